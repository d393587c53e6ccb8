"""Model folders: written here and opened by diffusers, written by diffusers and opened here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL as DiffusersVAE
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from shared.checkpoints import (
    load_denoiser,
    load_unet,
    load_vae,
    model_hash,
    save_component,
    write_model_index,
    write_scheduler,
)
from shared.conditioning import Conditioning
from shared.errors import UserError
from shared.layout import check_folder
from shared.text import TextEncoder, train_tokenizer
from shared.unet import UNet
from shared.vae import AutoencoderKL
from shared.weights import load_state

UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "sample_size": 16,
    "scaling_factor": 0.7,
}
SCHEDULER = {
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A whole tiny model folder, written by Duotone in float32."""
    root = tmp_path_factory.mktemp("saved") / "model"
    torch.manual_seed(0)
    save_component(UNet.from_config(UNET), root / "unet", torch.float32)
    save_component(AutoencoderKL.from_config(VAE), root / "vae", torch.float32)
    train_tokenizer(["a red apple", "a blue fish"], None, 12, root / "tokenizer")
    encoder = TextEncoder.from_scratch(root / "tokenizer", hidden_size=32, layers=1, heads=2)
    encoder.save(root / "text_encoder", torch.float32)
    write_scheduler(root, SCHEDULER)
    write_model_index(root)
    return root


@pytest.fixture
def model(saved, tmp_path):
    """A copy of the folder, to be spoilt."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def same_tensors(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    a_state, b_state = a.state_dict(), b.state_dict()
    return a_state.keys() == b_state.keys() and all(
        torch.equal(tensor, b_state[key]) for key, tensor in a_state.items()
    )


@pytest.mark.filterwarnings("error::FutureWarning")
def test_ours_opens_in_diffusers_as_a_stable_diffusion_pipeline(saved):
    check_folder(saved, "image")
    theirs = StableDiffusionPipeline.from_pretrained(
        saved, safety_checker=None, local_files_only=True
    )
    assert same_tensors(load_unet(saved / "unet"), theirs.unet)
    assert same_tensors(load_vae(saved / "vae"), theirs.vae)
    assert same_tensors(TextEncoder.load(saved).model, theirs.text_encoder)
    assert theirs.scheduler.config.prediction_type == "v_prediction"
    assert theirs.tokenizer("a red apple").input_ids[0] == theirs.tokenizer.bos_token_id
    assert theirs.vae.config.scaling_factor == 0.7
    assert not dict(theirs.config)["requires_safety_checker"]


def test_theirs_opens_here_in_half_precision_and_shards(saved, tmp_path):
    unet = UNet2DConditionModel(**UNET)
    unet.save_pretrained(tmp_path / "sharded", max_shard_size="500KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert same_tensors(load_unet(tmp_path / "sharded"), unet)

    unet.half().save_pretrained(tmp_path / "half", variant="fp16")
    ours = load_unet(tmp_path / "half")
    assert same_tensors(ours, unet.float())
    assert not ours.training
    unet.half().save_pretrained(tmp_path / "half shards", variant="fp16", max_shard_size="300KB")
    assert same_tensors(load_unet(tmp_path / "half shards", dtype=torch.float16), unet)


def test_a_vae_with_the_first_names_of_attention_opens(saved, tmp_path):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_state(saved / "vae")
    renamed = {}
    for key, tensor in state.items():
        for new, before in old.items():
            key = key.replace(f".{new}.", f".{before}.")
        renamed[key] = tensor
    assert renamed.keys() != state.keys()
    save_file(renamed, tmp_path / WEIGHTS)
    shutil.copy(saved / "vae" / "config.json", tmp_path)
    assert same_tensors(load_vae(tmp_path), load_vae(saved / "vae"))
    assert same_tensors(load_vae(tmp_path), DiffusersVAE.from_pretrained(tmp_path))


def test_the_denoiser_has_the_models_schedule_and_prediction(saved):
    denoiser = load_denoiser(saved)
    assert denoiser.schedule is not None and len(denoiser.schedule) == 1000
    x, cond = torch.randn(1, 4, 8, 8), Conditioning(context=torch.randn(1, 12, 32))
    sigma = denoiser.schedule.sigmas[[500]].float()
    with torch.no_grad():
        output = denoiser.network(x / (sigma**2 + 1).sqrt(), torch.tensor([500.0]), cond)
        v_to_x0 = x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1).sqrt()
        assert torch.allclose(denoiser(x, sigma, cond), v_to_x0, atol=1e-5)


def test_saving_casts_and_leaves_no_scraps(saved, tmp_path):
    unet = load_unet(saved / "unet")
    save_component(unet, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", WEIGHTS]
    assert {tensor.dtype for tensor in load_file(tmp_path / WEIGHTS).values()} == {torch.float16}
    assert next(unet.parameters()).dtype == torch.float32
    assert json.loads((tmp_path / "config.json").read_text()) == unet.config


def test_saving_where_nothing_can_be_written_is_told(saved, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make folder"):
        save_component(load_unet(saved / "unet"), tmp_path / "file" / "unet")


def test_the_hash_follows_weights_and_configs_only(model):
    before = model_hash(model)
    assert len(before) == 16 and int(before, 16)
    (model / "README.md").write_text("a card")
    (model / "tokenizer" / "words.txt").write_text("")
    assert model_hash(model) == before
    scheduler = model / "scheduler" / "scheduler_config.json"
    text = scheduler.read_text()
    scheduler.write_text(text.replace("v_prediction", "epsilon"))
    assert model_hash(model) != before
    scheduler.write_text(text)
    weights = model / "unet" / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_hash(model) != before


def change_state(folder: Path, change) -> None:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)


def rename_weights(model: Path, name: str) -> None:
    (model / "unet" / WEIGHTS).rename(model / "unet" / name)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edit_config(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# What is done to the folder, and what the one line must then say.
FAULTS = {
    "no folder": (shutil.rmtree, "there is no model folder"),
    "no index": (
        lambda model: (model / "model_index.json").unlink(),
        r"not a model folder: .*\(expected model_index.json\)",
    ),
    "broken index": (
        lambda model: (model / "model_index.json").write_text("{"),
        "model_index.json is not valid JSON",
    ),
    "index of a list": (
        lambda model: (model / "model_index.json").write_text("[]"),
        "does not hold a JSON object",
    ),
    "no scheduler": (
        lambda model: shutil.rmtree(model / "scheduler"),
        "cannot read .*scheduler_config.json: No such file",
    ),
    "no unet": (lambda model: shutil.rmtree(model / "unet"), "there is no folder .*unet"),
    "no weights": (
        lambda model: (model / "unet" / WEIGHTS).unlink(),
        f"unet has no {WEIGHTS}",
    ),
    "only a pickle": (
        lambda model: rename_weights(model, "diffusion_pytorch_model.bin"),
        "diffusion_pytorch_model.bin .*pickle checkpoints are not loaded.*convert to safetensors",
    ),
    "truncated": (
        lambda model: truncate(model / "unet" / WEIGHTS),
        f"{WEIGHTS} is truncated or not a safetensors file",
    ),
    "missing": (
        lambda model: change_state(model / "unet", lambda s: [s.pop(k) for k in sorted(s)[:5]]),
        r"5 tensors missing \(conv_in.weight, conv_in.bias, conv_norm_out.weight, \.\.\.\)$",
    ),
    "unexpected": (
        lambda model: change_state(model / "unet", lambda s: s.update(odd=torch.zeros(1))),
        r"1 tensor unexpected \(odd\)$",
    ),
    "wrong shape": (
        lambda model: change_state(
            model / "unet", lambda s: s.update({"conv_in.bias": torch.zeros(7)})
        ),
        r"1 tensor of another shape \(conv_in.bias is 7, should be 32\)$",
    ),
    "config of another": (
        lambda model: edit_config(model / "unet" / "config.json", block_out_channels=[32, 96]),
        "does not fit its config.json: .* of another shape",
    ),
    "unknown block": (
        lambda model: edit_config(
            model / "unet" / "config.json", down_block_types=["Odd", "DownBlock2D"]
        ),
        "Odd",
    ),
    "unknown schedule": (
        lambda model: edit_config(
            model / "scheduler" / "scheduler_config.json", beta_schedule="odd"
        ),
        "unknown beta_schedule 'odd'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder_gets_one_line(model, fault):
    spoil, message = FAULTS[fault]
    spoil(model)
    with pytest.raises(UserError, match=message) as caught:
        load_denoiser(model)
    assert "\n" not in str(caught.value)


def test_shards_must_lie_beside_their_index(model, tmp_path):
    index = model / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    rename_weights(model, "elsewhere.safetensors")
    for name in ("absent.safetensors", "../unet/elsewhere.safetensors"):
        index.write_text(json.dumps({"weight_map": {"conv_in.bias": name}}))
        with pytest.raises(UserError, match="not beside it"):
            load_unet(model / "unet")
    index.write_text("{}")
    with pytest.raises(UserError, match="no weight_map"):
        load_unet(model / "unet")


def test_a_failed_load_keeps_torch_as_it_was(model):
    truncate(model / "unet" / WEIGHTS)
    with pytest.raises(UserError):
        load_unet(model / "unet")
    assert torch.nn.Linear(9, 9).weight.std() > 0  # new layers are initialised again


def test_loading_imports_nothing_slow(saved):
    """Transformers, torch._dynamo and sympy cost seconds each, and any slip brings them in."""
    code = """
import sys
from shared.checkpoints import load_denoiser, load_vae, model_hash
from shared.text import TextEncoder
root = sys.argv[1]
load_denoiser(root); load_vae(root + "/vae"); TextEncoder.load(root).encode(["a"]); model_hash(root)
slow = ("transformers", "diffusers", "torch._dynamo", "sympy", "scipy", "torchaudio", "accelerate")
print([name for name in slow if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"

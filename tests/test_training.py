"""The training loop: resuming, several processes, schedules; and the linear code."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from imagediff.latents import load_images
from imagediff.train_diffusion import DiffusionConfig, train_diffusion
from imagediff.train_upscaler import UpscalerConfig
from imagediff.train_vae import VAEConfig, random_crops, train_vae
from shared.checkpoints import load_vae
from shared.config import read_config
from shared.ema import EMA
from shared.errors import UserError
from shared.linear_code import LinearCode, fit, fit_correction
from shared.muon import orthogonalize
from shared.schedules import NoiseSchedule, cosine_betas
from shared.train_denoiser import NoiseLevels, draw_sigmas
from shared.training import LoopConfig, draws, learning_rate_factor, train

ROOT = Path(__file__).parents[1]


class Regression(nn.Module):
    """A few weights with noise in the loss: whatever differs between two runs shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(4, 1)

    def forward(self, x, noise):
        return (self.layer(x + 0.1 * noise).squeeze(1) - x.sum(1)).square()


def regression_batch(items):
    x = torch.stack([torch.sin(torch.arange(4.0) + draw.index) for draw in items])
    noise = [torch.randn(4, generator=torch.Generator().manual_seed(d.seed)) for d in items]
    return x, torch.stack(noise)


def loop(steps, batch_size=4, mixed_precision: Any = "no", **settings):
    return LoopConfig(
        steps=steps, batch_size=batch_size, learning_rate=0.05, warmup=2, log_every=1,
        sample_every=0, mixed_precision=mixed_precision, **settings,
    )  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_resumes_exactly(tmp_path, optimizer):
    config = loop(9, checkpoint_every=3, optimizer=optimizer)
    whole = train(Regression(), regression_batch, 10, config, tmp_path / "whole")
    calls = 0

    def killed_in_step_5(items):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return regression_batch(items)

    with pytest.raises(KeyboardInterrupt):
        train(Regression(), killed_in_step_5, 10, config, tmp_path / "parts")
    parts = train(Regression(), regression_batch, 10, config, tmp_path / "parts", resume=True)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)
    # Steps 4 and 5 were done twice, the same both times.
    assert losses(tmp_path / "parts")[:3] == losses(tmp_path / "whole")[:3]
    assert losses(tmp_path / "parts")[-6:] == losses(tmp_path / "whole")[-6:]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("no", torch.float32)])
def test_mixed_precision_reaches_the_network(tmp_path, precision, dtype):
    seen = []

    class Watched(Regression):
        def forward(self, x, noise):
            seen.append(self.layer(x).dtype)
            return super().forward(x, noise).float()

    train(Watched(), regression_batch, 10, loop(2, mixed_precision=precision), tmp_path)
    assert seen == [dtype] * 2


def test_a_run_is_not_overwritten_unless_resumed(tmp_path):
    train(Regression(), regression_batch, 10, loop(1), tmp_path)
    with pytest.raises(UserError, match="--resume"):
        train(Regression(), regression_batch, 10, loop(1), tmp_path)
    with pytest.raises(UserError, match="no items"):
        train(Regression(), regression_batch, 0, loop(1), tmp_path / "empty")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    train(Regression(), regression_batch, 10, loop(1), tmp_path)
    other = Regression()
    other.more = nn.Linear(1, 1)
    with pytest.raises(UserError, match="does not fit"):
        train(other, regression_batch, 10, loop(2), tmp_path, resume=True)


def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        "from tests.test_training import Regression, regression_batch, loop\n"
        "from shared.training import processes, train\n"
        "assert processes().num_processes == 2\n"
        "train(Regression(), regression_batch, 10, loop(6), Path(sys.argv[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # What `accelerate launch` runs underneath; by itself it starts several CPU processes by MPI.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path / "two")],
        env=environment | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    train(Regression(), regression_batch, 10, loop(6, batch_size=8), tmp_path / "one")
    assert len(losses(tmp_path / "two")) == 6
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-5)


def test_every_item_is_drawn_once_an_epoch():
    config = loop(10)
    seen = [d.index for step in range(6) for d in draws(step, 12, config, 0, 1)]
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]
    two = [d for rank in range(2) for d in draws(1, 12, config, rank, 2)]
    alone = [d for step in (2, 3) for d in draws(step, 12, config, 0, 1)]
    assert [(d.index, d.seed) for d in two] == [(d.index, d.seed) for d in alone]


def test_the_learning_rate_rises_holds_and_falls_to_zero():
    config = LoopConfig(steps=100, warmup=10, anneal_from=0.5)
    factors = [learning_rate_factor(step, config) for step in range(101)]
    assert factors[:2] == [0.1, 0.2]
    assert factors[10:51] == [1.0] * 41
    assert factors[75] == pytest.approx(0.5, abs=1e-6)
    assert factors[100] == pytest.approx(0, abs=1e-6)


def test_orthogonalized_steps_have_singular_values_near_one():
    generator = torch.Generator().manual_seed(0)
    for shape in ((24, 90), (90, 24), (32, 32)):
        matrix = torch.randn(shape, generator=generator) @ torch.diag(
            torch.logspace(-1, 1, shape[1])
        )
        update = orthogonalize(matrix)
        values = torch.linalg.svdvals(update)
        assert values.max() < 1.3
        assert values.median() > 0.6
        # The same singular vectors: U S V^T -> U V^T, so their product is symmetric.
        product = update @ matrix.T
        assert (product - product.T).abs().max() < 1e-2 * product.abs().max()


def test_muon_minimizes(tmp_path):
    train(Regression(), regression_batch, 10, loop(150, optimizer="muon"), tmp_path)
    history = losses(tmp_path)
    assert sum(history[-20:]) / 20 < 0.15 * sum(history[:5]) / 5
    with pytest.raises(UserError, match="muon"):
        train(Regression(), regression_batch, 10, loop(1, optimizer="muom"), tmp_path / "x")


def test_ema_starts_short_and_forgets_the_start():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = EMA(module, 0.9)
    module.weight.data.fill_(1.0)
    average.update(module, 0)
    assert average.averages["weight"].item() == pytest.approx(1 - 1 / 10)
    average.update(module, 10_000)
    assert average.averages["weight"].item() == pytest.approx(0.9 * 0.9 + 0.1)


def test_sigmas_are_log_normal_but_for_the_uniform_share():
    schedule = NoiseSchedule.from_betas(cosine_betas(1000))
    uniforms = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0))
    sigmas = draw_sigmas(uniforms, NoiseLevels(mean=0.5, std=1.0, uniform=0.0), schedule)
    assert sigmas.log().mean().item() == pytest.approx(0.5, abs=0.03)
    assert sigmas.log().std().item() == pytest.approx(1.0, abs=0.03)
    t = schedule.sigma_to_t(draw_sigmas(uniforms, NoiseLevels(uniform=1.0), schedule))
    assert t.mean().item() == pytest.approx(499.5, abs=8)
    assert t.max() > 990


def test_the_linear_code_is_exact_for_pictures_of_its_rank():
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(3, 48, generator=generator)
    weights = torch.randn(40, 16, 3, generator=generator) * torch.tensor([3.0, 1.0, 0.2])
    patches = (weights @ directions + 0.3).reshape(40, 4, 4, 3, 4, 4)
    images = patches.permute(0, 3, 1, 4, 2, 5).reshape(40, 3, 16, 16)
    code = fit([images[:20], images[20:]], channels=3, patch=(4, 4))
    latents = code.encode(images)
    assert latents.shape == (40, 3, 4, 4)
    assert latents.square().mean().item() == pytest.approx(1.0, abs=1e-3)
    stds = latents.std((0, 2, 3))
    assert stds[0] > stds[1] > stds[2]
    assert (code.decode(latents) - images).abs().max() < 1e-3


def test_a_correction_finds_what_a_decoder_loses_linearly():
    generator = torch.Generator().manual_seed(2)
    true = torch.randn(8, 3, 32, 48, generator=generator)
    code = fit([true], channels=7, patch=(8, 8))
    latents = code.encode(true)
    # A decoder that loses a part of what the code holds, and knows the rest: its code tells all.
    made = true - 0.2 * (code.decode(latents) - code.mean.reshape(3, 8, 8).repeat(1, 4, 6))
    assert code.corrected(made, latents) is made
    whole = fit_correction(code, [(true, made, latents)], (1, 1))
    assert (whole.corrected(made, latents) - true).abs().max() < 0.02
    # Most of the correction is a lie where the latents are off as well: it is given less weight.
    noisy = latents + 0.4 * torch.randn(latents.shape, generator=generator)
    doubtful = fit_correction(code, [(true, made, noisy)], (3, 3))
    assert doubtful.correction is not None and doubtful.correction.shape == (192, 7, 3, 3)
    careful, bold, none = (
        (found - true).square().mean()
        for found in (doubtful.corrected(made, noisy), whole.corrected(made, noisy), made)
    )
    assert careful < none < bold
    with pytest.raises(ValueError, match="something"):
        fit_correction(code, [], (1, 1))


def test_the_linear_code_survives_its_file(tmp_path):
    code = fit([torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))], 5, (8, 8))
    code.save(tmp_path)
    loaded = LinearCode.load(tmp_path)
    assert loaded.patch == (3, 8, 8)
    assert torch.equal(loaded.basis, code.basis.half().float())  # half precision on disk
    with pytest.raises(UserError, match="train vae"):
        LinearCode.load(tmp_path / "none")


def test_crops_follow_their_seed_and_the_grid():
    images = torch.arange(32 * 32).float().reshape(1, 1, 32, 32).expand(4, 3, 32, 32)
    crops = random_crops(images, 16, 8, [1, 2, 3, 1])
    corners = crops[:, 0, 0, 0].long()
    assert torch.equal(crops[0], crops[3])
    assert all(corner // 32 % 8 == 0 and corner % 8 == 0 for corner in corners.tolist())
    with pytest.raises(UserError, match="multiple of 8"):
        random_crops(images, 15, 8, [1, 2, 3, 4])


@pytest.fixture(scope="module")
def captioned(tmp_path_factory) -> Path:
    """Plain pictures named by their colour: an imagefolder that needs no font."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("captioned")
    colours = {"red": (200, 0, 0), "green": (0, 180, 0), "blue": (0, 0, 220), "grey": (99, 99, 99)}
    rows = []
    for i in range(16):
        name, colour = list(colours.items())[i % 4]
        image = Image.new("RGB", (32, 32), colour)
        image.paste((255, 255, 255), (i, 4, i + 9, 20))
        image.save(folder / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": f"a {name} square"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


VAE = """
model:
  block_out_channels: [8, 8]
  down_block_types: [DownEncoderBlock2D, DownEncoderBlock2D]
  up_block_types: [UpDecoderBlock2D, UpDecoderBlock2D]
  norm_num_groups: 4
  latent_channels: 4
  sample_size: 32
crop: 16
loop: {steps: 30, batch_size: 4, sample_every: 30, learning_rate: 3.0e-3, warmup: 5}
"""
DIFFUSION = """
unet:
  sample_size: 16
  in_channels: 4
  out_channels: 4
  block_out_channels: [8, 16]
  down_block_types: [DownBlock2D, CrossAttnDownBlock2D]
  up_block_types: [CrossAttnUpBlock2D, UpBlock2D]
  layers_per_block: 1
  cross_attention_dim: 16
  attention_head_dim: 2
  norm_num_groups: 4
scheduler: {beta_schedule: squaredcos_cap_v2, prediction_type: v_prediction}
text: {hidden_size: 16, layers: 1, heads: 2}
max_tokens: 8
prompts: [a red square, a blue square]
loop: {steps: 6, batch_size: 4, sample_every: 3, checkpoint_every: 3}
"""


def test_both_trainings_make_a_whole_model_folder(captioned, tmp_path):
    from imagediff.pipeline import ImagePipeline

    (tmp_path / "vae.yaml").write_text(VAE)
    (tmp_path / "diffusion.yaml").write_text(DIFFUSION)
    out = tmp_path / "model"
    train_vae(tmp_path / "vae.yaml", captioned, out)
    train_diffusion(tmp_path / "diffusion.yaml", captioned, out)
    log = [json.loads(x) for x in (out / "runs/vae/log.jsonl").read_text().splitlines()]
    assert math.isfinite(log[-1]["psnr"]) and log[-1]["code_error"] < 1
    log = [json.loads(x) for x in (out / "runs/diffusion/log.jsonl").read_text().splitlines()]
    assert set(log[-1]["caption_gap"]) == {"0.3", "1", "3", "10", "30"}
    assert {p.name for p in (out / "runs/diffusion/samples").iterdir()} == {
        "000003.png", "000006.png"
    }  # fmt: skip
    pipeline = ImagePipeline.load(out, device="cpu", dtype="float32")
    (picture,) = pipeline("a red square", steps=2)
    assert picture.size == (32, 32)

    # A second run begins with the first one's weights, on some of the rows.
    more = f"{DIFFUSION}init: {out}\n".replace("steps: 6", "steps: 0")
    (tmp_path / "more.yaml").write_text(more.replace("sample_every: 3", "sample_every: 0"))
    train_vae(tmp_path / "vae.yaml", captioned, tmp_path / "second")
    train_diffusion(tmp_path / "more.yaml", captioned, tmp_path / "second")
    again = ImagePipeline.load(tmp_path / "second", device="cpu", dtype="float32")
    for part in ("denoiser", "text_encoder"):
        weights, copies = (getattr(p, part).state_dict() for p in (pipeline, again))
        assert all(torch.equal(weights[key], copies[key]) for key in weights)


def test_a_decoder_can_be_trained_on_alone(captioned, tmp_path):
    (tmp_path / "vae.yaml").write_text(VAE.replace("steps: 30", "steps: 3"))
    train_vae(tmp_path / "vae.yaml", captioned, tmp_path / "first")
    config = f"{VAE}init: {tmp_path / 'first' / 'vae'}\ntrain_encoder: false\n"
    (tmp_path / "more.yaml").write_text(config.replace("steps: 30", "steps: 3"))
    train_vae(tmp_path / "more.yaml", captioned, tmp_path / "second")
    before, after = (load_vae(tmp_path / run / "vae").state_dict() for run in ("first", "second"))
    kept = {key.split(".")[0] for key in before if torch.equal(before[key], after[key])}
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert {"encoder", "quant_conv"} <= kept
    assert changed == {"decoder", "post_quant_conv"}


def test_the_folder_opens_in_diffusers(captioned, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    (tmp_path / "vae.yaml").write_text(VAE.replace("steps: 30", "steps: 1"))
    (tmp_path / "diffusion.yaml").write_text(DIFFUSION.replace("steps: 6", "steps: 1"))
    out = tmp_path / "model"
    train_vae(tmp_path / "vae.yaml", captioned, out)
    train_diffusion(tmp_path / "diffusion.yaml", captioned, out)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        out, safety_checker=None, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red square", num_inference_steps=2).images[0].size == (32, 32)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("crop: 16", "crop: sixteen"), "crop"),
        (("crop: 16", "corp: 16"), "corp"),
        (("steps: 30", "stops: 30"), "loop"),
        (("{steps", "{mixed_precision: fp8, steps"), "mixed_precision"),
        (("model:", "model: ["), "not YAML"),
    ],
)
def test_faults_of_a_config_are_named(tmp_path, change, told):
    (tmp_path / "bad.yaml").write_text(VAE.replace(*change))
    with pytest.raises(UserError, match=told):
        read_config(tmp_path / "bad.yaml", VAEConfig)


def test_the_carried_models_configs_are_valid():
    configs = ROOT / "imagediff" / "configs"
    assert read_config(configs / "vae.yaml", VAEConfig).model["latent_channels"] == 16
    assert read_config(configs / "diffusion.yaml", DiffusionConfig).unet["in_channels"] == 16
    assert read_config(configs / "upscaler.yaml", UpscalerConfig).unet["num_class_embeds"] == 2
    with pytest.raises(UserError, match="cannot read"):
        read_config(configs / "none.yaml", VAEConfig)


def test_pictures_that_cannot_be_trained_on_are_named(tmp_path, captioned):
    from PIL import Image

    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="cannot be read"):
        load_images([tmp_path / "text.png"])
    Image.new("RGB", (16, 32)).save(tmp_path / "narrow.png")
    with pytest.raises(UserError, match=r"narrow\.png is 16x32"):
        load_images([captioned / "0.png", tmp_path / "narrow.png"])

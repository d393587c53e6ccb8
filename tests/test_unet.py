"""The U-Net against diffusers' UNet2DConditionModel: the same weights, the same arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.conditioning import Conditioning
from shared.errors import UserError
from shared.packing import PackedConv2d, pack_convolutions, remember_contexts
from shared.unet import UNet

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"

BASE: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [16, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
}

ALL_ATTENTION = {
    "down_block_types": ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "heads as an int": {},
    "heads as a list": {"attention_head_dim": [2, 8], **ALL_ATTENTION},
    "linear projection, two layers": {"use_linear_projection": True, "layers_per_block": 2},
    "three levels, attention in the middle": {
        "block_out_channels": [16, 24, 48],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": [1, 2, 1],
        "attention_head_dim": [1, 2, 4],
        "transformer_layers_per_block": [1, 2, 3],
    },
    "attention only on the way up": {
        "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["CrossAttnUpBlock2D"] * 2,
    },
    "context list": {"cross_attention_dim": [24, 24], **ALL_ATTENTION},
    "context list, other where none attends": {
        "cross_attention_dim": [99, 24],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    },
    "channels in and out differ": {"in_channels": 9, "out_channels": 5, "norm_eps": 1e-3},
    "sines first, shifted frequencies": {"flip_sin_to_cos": False, "freq_shift": 1},
    "downsampling pads right and bottom": {"downsample_padding": 0},
    "time embedding of another width": {"time_embedding_dim": 40},
    "class projection": {
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 12,
    },
    "class simple projection, concatenated": {
        "class_embed_type": "simple_projection",
        "projection_class_embeddings_input_dim": 12,
        "class_embeddings_concat": True,
    },
    "class timestep": {"class_embed_type": "timestep"},
    "class index": {"num_class_embeds": 7},
    "guidance embedding": {"time_cond_proj_dim": 12},
    "wide enough for the quick group norm": {
        "block_out_channels": [64, 128],
        "norm_num_groups": 32,
        "attention_head_dim": 4,
    },
}


def randomize(module: torch.nn.Module, seed: int = 0) -> None:
    """Random weights everywhere, norms and biases too, so that no path is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)


def inputs(config: dict[str, Any], size: int = 16) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """x, c_noise, context and the vector that the config's class embedding takes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, config["in_channels"], size, size, generator=generator)
    context = torch.randn(2, 5, 24, generator=generator)
    vector = None
    if config.get("num_class_embeds"):
        vector = torch.tensor([0, 6])
    elif config.get("class_embed_type") == "timestep":
        vector = torch.tensor([3.25, 700.0])
    elif config.get("class_embed_type") or config.get("time_cond_proj_dim"):
        vector = torch.randn(2, 12, generator=generator)
    return x, torch.tensor([3.0, 512.75]), context, vector


def run_reference(
    reference: UNet2DConditionModel,
    x: Tensor,
    c_noise: Tensor,
    context: Tensor,
    vector: Tensor | None,
) -> Tensor:
    name = "timestep_cond" if reference.config["time_cond_proj_dim"] else "class_labels"
    return reference(x, c_noise, context, **{name: vector}).sample


def load_ours(folder: Path) -> UNet:
    unet = UNet.from_config(json.loads((folder / "config.json").read_text()))
    unet.load_state_dict(load_file(folder / DIFFUSERS_WEIGHTS), strict=True)
    return unet.eval()


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_weights_saved_by_diffusers_give_the_same_output(name: str, tmp_path: Path) -> None:
    config = BASE | VARIANTS[name]
    reference = UNet2DConditionModel(**config).eval()
    randomize(reference)
    reference.save_pretrained(tmp_path)
    x, c_noise, context, vector = inputs(config)
    expected = run_reference(reference, x, c_noise, context, vector)
    cond = Conditioning(context=context, vector=vector)

    unet = load_ours(tmp_path)
    assert expected.std() > 0.1
    assert (unet(x, c_noise, cond) - expected).abs().max() <= 1e-5
    # channels_last takes other kernels, and a group normalization of our own
    unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    nhwc = unet(x.contiguous(memory_format=torch.channels_last), c_noise, cond)
    assert (nhwc - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_weights_saved_here_open_in_diffusers(name: str, tmp_path: Path) -> None:
    config = BASE | VARIANTS[name]
    unet = UNet.from_config(config).eval()
    randomize(unet)
    save_file(unet.state_dict(), tmp_path / DIFFUSERS_WEIGHTS)
    (tmp_path / "config.json").write_text(
        json.dumps({"_class_name": "UNet2DConditionModel", **unet.config})
    )
    loaded: Any = UNet2DConditionModel.from_pretrained(tmp_path, output_loading_info=True)
    reference, info = loaded
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    x, c_noise, context, vector = inputs(config)
    expected = run_reference(reference.eval(), x, c_noise, context, vector)
    output = unet(x, c_noise, Conditioning(context=context, vector=vector))
    assert (output - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_odd_sizes_and_a_context_mask_agree_with_diffusers() -> None:
    reference = UNet2DConditionModel(**BASE).eval()
    randomize(reference)
    unet = UNet.from_config(dict(reference.config)).eval()
    unet.load_state_dict(reference.state_dict())
    x, c_noise, context, _ = inputs(BASE, size=13)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    expected = reference(x, c_noise, context, encoder_attention_mask=mask).sample
    output = unet(x, c_noise, Conditioning(context=context, context_mask=mask))
    assert (output - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_masked_tokens_do_not_matter() -> None:
    unet = UNet.from_config(BASE).eval()
    randomize(unet)
    x, c_noise, context, _ = inputs(BASE)
    mask = torch.tensor([[1, 1, 1, 0, 0]] * 2, dtype=torch.bool)
    masked = unet(x, c_noise, Conditioning(context=context, context_mask=mask))
    cut = unet(x, c_noise, Conditioning(context=context[:, :3]))
    assert (masked - cut).abs().max() <= 1e-5


@torch.no_grad()
def test_concat_joins_the_channels() -> None:
    config = BASE | {"in_channels": 9}
    unet = UNet.from_config(config).eval()
    randomize(unet)
    x, c_noise, context, _ = inputs(config)
    whole = unet(x, c_noise, Conditioning(context=context))
    parts = unet(x[:, :4], c_noise, Conditioning(context=context, concat=x[:, 4:]))
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("name", ["three levels, attention in the middle", None])
@torch.no_grad()
def test_fewer_x_than_contexts_are_each_there_for_all(name) -> None:
    config = BASE | (VARIANTS[name] if name else {})
    unet = UNet.from_config(config).eval()
    randomize(unet)
    x, c_noise, context, _ = inputs(config)
    contexts = torch.cat([context, context.flip(1), 2 * context])
    cond = Conditioning(context=contexts)
    whole = unet(torch.cat([x] * 3), torch.cat([c_noise] * 3), cond)
    shared = unet(x, c_noise, cond)
    assert shared.shape == whole.shape
    assert (shared - whole).abs().max() <= 1e-5
    with pytest.raises(ValueError, match=r"cond\.context must be"):
        unet(x, c_noise, Conditioning(context=contexts[:3]))


def test_attentions_that_remember_their_context_change_nothing() -> None:
    unet = UNet.from_config(BASE).eval()
    randomize(unet)
    x, c_noise, context, _ = inputs(BASE)
    conds = [Conditioning(context=context), Conditioning(context=context.flip(1).contiguous())]
    runs = [conds[0], conds[0], conds[1], conds[0]]
    with torch.no_grad():
        expected = [unet(x, c_noise, cond) for cond in runs]
        assert not torch.equal(expected[0], expected[2])
        remember_contexts(unet)
        for cond, plain in zip(runs, expected, strict=True):
            assert torch.equal(unet(x, c_noise, cond), plain)
    # where gradients are wanted the keys are part of the graph
    unet(x, c_noise, conds[0]).sum().backward()
    assert all(p.grad is not None for p in unet.parameters())


def test_packed_convolutions_change_nothing() -> None:
    config = BASE | VARIANTS["three levels, attention in the middle"]
    unet = UNet.from_config(config).eval()
    randomize(unet)
    runs = []
    for size in (16, 24, 16):  # a change of shape packs again
        x, c_noise, context, _ = inputs(config, size)
        runs.append((x, c_noise, Conditioning(context=context)))
    with torch.no_grad():
        expected = [unet(*run) for run in runs]
    keys = list(unet.state_dict())
    pack_convolutions(unet)
    assert any(isinstance(module, PackedConv2d) for module in unet.modules())
    assert list(unet.state_dict()) == keys
    with torch.inference_mode():
        packed = [unet(*run) for run in runs]
    for ours, plain in zip(packed, expected, strict=True):
        assert (ours - plain).abs().max() <= 1e-5
    # where gradients are wanted it is the plain convolution
    assert (unet(*runs[0]) - expected[0]).abs().max() <= 1e-5
    unet(*runs[0]).sum().backward()


def test_bfloat16_weights_and_autocast_stay_near_float32() -> None:
    unet = UNet.from_config(BASE)
    randomize(unet)
    x, c_noise, context, _ = inputs(BASE)
    cond = Conditioning(context=context)
    expected = unet(x, c_noise, cond).detach()
    with torch.autocast("cpu", torch.bfloat16):
        autocast = unet(x, c_noise, cond)
    autocast.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in unet.parameters())
    assert (autocast - expected).abs().mean() < 0.05 * expected.abs().mean()
    with torch.no_grad():
        half = unet.to(torch.bfloat16)(x, c_noise, cond)
    assert half.dtype == torch.bfloat16
    assert (half - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_gradients_agree_with_diffusers_under_channels_last() -> None:
    config = BASE | VARIANTS["wide enough for the quick group norm"]
    reference = UNet2DConditionModel(**config)
    randomize(reference)
    unet = UNet.from_config(config)
    unet.load_state_dict(reference.state_dict())
    unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, c_noise, context, _ = inputs(config)
    reference(x, c_noise, context).sample.square().mean().backward()
    nhwc = x.contiguous(memory_format=torch.channels_last)
    unet(nhwc, c_noise, Conditioning(context=context)).square().mean().backward()
    ours = dict(unet.named_parameters())
    for name, parameter in reference.named_parameters():
        grad, expected = ours[name].grad, parameter.grad
        assert grad is not None and expected is not None
        scale = expected.abs().max().clamp(min=1e-3)
        assert (grad - expected).abs().max() <= 1e-4 * scale, name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"act_fn": "relu"}, ["act_fn", "'relu'", "'silu'"]),
        ({"down_block_types": ["AttnDownBlock2D"] * 2}, ["down_block_types", "DownBlock2D"]),
        ({"up_block_types": ["UpBlock2D"]}, ["up_block_types", "must be 2"]),
        ({"mid_block_type": "UNetMidBlock"}, ["mid_block_type", "UNetMidBlock2DCrossAttn"]),
        ({"class_embed_type": "identity"}, ["class_embed_type", "simple_projection"]),
        ({"class_embed_type": "projection"}, ["projection_class_embeddings_input_dim"]),
        ({"addition_embed_type": "text_time"}, ["addition_embed_type", "text_time", "None"]),
        ({"only_cross_attention": [True, False]}, ["only_cross_attention", "False"]),
        ({"num_attention_heads": 4}, ["num_attention_heads", "None"]),
        ({"resnet_time_scale_shift": "scale_shift"}, ["resnet_time_scale_shift", "'default'"]),
        ({"block_out_channels": [16, 33]}, ["block_out_channels[1]", "norm_num_groups"]),
        ({"attention_head_dim": 3}, ["number of heads", "3"]),
        ({"attention_head_dim": [1, 2, 3]}, ["attention_head_dim", "levels"]),
        ({"layers_per_block": 0}, ["layers_per_block", "positive"]),
        ({"cross_attention_dim": [24, 32]}, ["cross_attention_dim", "one value"]),
        ({"in_channels": "four"}, ["in_channels", "'four'"]),
        ({"norm_num_groups": None}, ["norm_num_groups", "None"]),
        ({"downsample_padding": 2}, ["downsample_padding", "1, 0"]),
        ({"_class_name": "UNet2DModel"}, ["_class_name", "UNet2DConditionModel"]),
        ({"wavelets": "haar"}, ["unknown key", "wavelets"]),
    ],
)
def test_unsupported_config_is_refused_by_name(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as refusal:
        UNet.from_config(BASE | change)
    message = str(refusal.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_keys_that_are_off_are_accepted() -> None:
    config = BASE | {"sample_size": 64, "upcast_attention": True, "from_the_future": None}
    assert UNet.from_config(config).config == config


@pytest.mark.parametrize(
    ("change", "cond", "words"),
    [
        ({}, Conditioning(), "needs cond.context"),
        ({}, Conditioning(context=torch.zeros(2, 5, 23)), r"\(2 n 24\)"),
        ({}, Conditioning(context=torch.zeros(1, 5, 24)), r"\(2 n 24\)"),
        (
            {},
            Conditioning(context=torch.zeros(2, 5, 24), context_mask=torch.ones(2, 4)),
            r"cond.context_mask must be \(2 5\)",
        ),
        (
            {},
            Conditioning(context=torch.zeros(2, 5, 24), vector=torch.zeros(2, 12)),
            "takes no cond.vector",
        ),
        (
            VARIANTS["class projection"],
            Conditioning(context=torch.zeros(2, 5, 24)),
            "needs cond.vector",
        ),
        (
            VARIANTS["class projection"],
            Conditioning(context=torch.zeros(2, 5, 24), vector=torch.zeros(2, 11)),
            r"cond.vector must be \(2 12\)",
        ),
        (
            {"in_channels": 9},
            Conditioning(context=torch.zeros(2, 5, 24), concat=torch.zeros(2, 4, 16, 16)),
            "takes 9 channels; got 4 of x and 4 of cond.concat",
        ),
        ({"in_channels": 5}, Conditioning(context=torch.zeros(2, 5, 24)), "takes 5 channels"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(
    change: dict[str, Any], cond: Conditioning, words: str
) -> None:
    unet = UNet.from_config(BASE | change)
    with pytest.raises(ValueError, match=words):
        unet(torch.zeros(2, 4, 16, 16), torch.ones(2), cond)

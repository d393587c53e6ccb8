"""The autoencoder against diffusers' AutoencoderKL: the same weights, the same arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.checkpoints import load_vae, save_component
from shared.errors import UserError
from shared.train_autoencoder import AutoencoderConfig, build_autoencoder
from shared.training import LoopConfig
from shared.vae import AutoencoderKL, Posterior

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"

BASE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [16, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
}

THREE_LEVELS = {
    "block_out_channels": [8, 16, 24],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "three levels": THREE_LEVELS,
    "two layers a block": {"layers_per_block": 2},
    "sixteen latent channels": {"latent_channels": 16},
    "one channel, as a spectrogram": {"in_channels": 1, "out_channels": 1},
    "no attention": {"mid_block_add_attention": False},
    "one group": {"norm_num_groups": 1},
    "no quantization convolutions": {"use_quant_conv": False, "use_post_quant_conv": False},
    "no convolution after the encoder": {"use_quant_conv": False},
    "all at once": {
        **THREE_LEVELS,
        "layers_per_block": 2,
        "latent_channels": 6,
        "norm_num_groups": 4,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
    },
    "wide enough for the quick group norm": {
        "block_out_channels": [64, 128],
        "norm_num_groups": 32,
    },
}


def randomize(module: torch.nn.Module) -> None:
    """Random weights everywhere, norms and biases too, so that no path is silent."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)


def inputs(config: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """A picture and latents of no relation to it; neither is square."""
    generator = torch.Generator().manual_seed(1)
    picture = torch.randn(2, config["in_channels"], 24, 16, generator=generator)
    shrink = 2 ** (len(config["block_out_channels"]) - 1)
    shape = (2, config["latent_channels"], 24 // shrink, 16 // shrink)
    return picture, torch.randn(shape, generator=generator)


def assert_agree(vae: AutoencoderKL, reference: Any, config: dict[str, Any]) -> None:
    picture, latents = inputs(config)
    posterior, expected = vae.encode(picture), reference.encode(picture).latent_dist
    assert (posterior.mean - expected.mean).abs().max() <= 1e-5
    assert (posterior.logvar - expected.logvar).abs().max() <= 1e-5
    decoded = reference.decode(latents).sample
    assert decoded.std() > 0.1
    assert (vae.decode(latents) - decoded).abs().max() <= 1e-5


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_weights_saved_by_diffusers_give_the_same_output(name: str, tmp_path: Path) -> None:
    config = BASE | VARIANTS[name]
    reference = diffusers.AutoencoderKL(**config).eval()
    randomize(reference)
    reference.save_pretrained(tmp_path)

    vae = AutoencoderKL.from_config(json.loads((tmp_path / "config.json").read_text())).eval()
    vae.load_state_dict(load_file(tmp_path / DIFFUSERS_WEIGHTS), strict=True)
    assert_agree(vae, reference, config)
    # channels_last takes other kernels
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert_agree(vae, reference, config)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_weights_saved_here_open_in_diffusers(name: str, tmp_path: Path) -> None:
    config = BASE | VARIANTS[name]
    vae = AutoencoderKL.from_config(config).eval()
    randomize(vae)
    save_file(vae.state_dict(), tmp_path / DIFFUSERS_WEIGHTS)
    (tmp_path / "config.json").write_text(
        json.dumps({"_class_name": "AutoencoderKL", **vae.config})
    )
    loaded: Any = diffusers.AutoencoderKL.from_pretrained(tmp_path, output_loading_info=True)
    reference, info = loaded
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_agree(vae, reference.eval(), config)


def test_posterior_samples_and_its_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, logvar, noise = (torch.randn(2, 4, 3, 5, generator=generator) for _ in range(3))
    posterior = Posterior(mean, logvar)
    assert torch.equal(posterior.mode(), mean)
    sample = posterior.sample(noise)
    assert torch.allclose(sample, mean + logvar.exp().sqrt() * noise, atol=1e-6)
    standard = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    gaussian = torch.distributions.Normal(mean, logvar.exp().sqrt())
    expected = torch.distributions.kl_divergence(gaussian, standard).flatten(1).sum(1)
    assert torch.allclose(posterior.kl(), expected, rtol=1e-5)


@torch.no_grad()
def test_extreme_log_variances_are_kept_in_bounds() -> None:
    vae = AutoencoderKL.from_config(BASE | {"use_quant_conv": False})
    torch.nn.init.constant_(vae.encoder.conv_out.bias, 1e3)  # type: ignore[arg-type]
    picture, _ = inputs(BASE)
    posterior = vae.encode(picture)
    assert posterior.logvar.max() == 20
    torch.nn.init.constant_(vae.encoder.conv_out.bias, -1e3)  # type: ignore[arg-type]
    assert vae.encode(picture).logvar.min() == -30


def test_picture_of_a_wrong_size_is_refused() -> None:
    vae = AutoencoderKL.from_config(BASE | THREE_LEVELS)
    with pytest.raises(ValueError, match="multiples of 4, not 18x16"):
        vae.encode(torch.zeros(1, 3, 18, 16))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"act_fn": "relu"}, ["act_fn", "relu"]),
        ({"down_block_types": ["DownBlock2D"] * 2}, ["down_block_types", "DownEncoderBlock2D"]),
        ({"up_block_types": ["UpDecoderBlock2D"]}, ["up_block_types", "block_out_channels"]),
        ({"block_out_channels": [16, 33]}, ["block_out_channels", "norm_num_groups"]),
        ({"wavelets": "haar"}, ["wavelets", "haar"]),
    ],
)
def test_unsupported_config_is_refused_by_name(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as refusal:
        AutoencoderKL.from_config(BASE | change)
    message = str(refusal.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@torch.no_grad()
def test_without_an_encoder_the_decoder_is_what_it_was(tmp_path: Path) -> None:
    whole = AutoencoderKL.from_config(BASE).eval()
    randomize(whole)
    save_component(whole, tmp_path / "whole", torch.float32)
    config = BASE | {"_encoder": "linear code"}
    loop = LoopConfig(steps=1)
    begun = build_autoencoder(
        AutoencoderConfig(model=config, loop=loop, init=str(tmp_path / "whole"))
    )
    save_component(begun, tmp_path / "half", torch.float32)
    half = load_vae(tmp_path / "half")
    names = {key.partition(".")[0] for key in half.state_dict()}
    assert names == {"decoder", "post_quant_conv"}
    picture, latents = inputs(BASE)
    assert torch.equal(half.decode(latents), whole.decode(latents))
    with pytest.raises(UserError, match="has no encoder; the linear code"):
        half.encode(picture)
    with pytest.raises(UserError, match="_encoder may only be 'linear code', not 'none'"):
        AutoencoderKL.from_config(BASE | {"_encoder": "none"})
    # What is left in diffusers' own: the same decoder, an encoder that nobody has trained.
    theirs: Any = diffusers.AutoencoderKL.from_pretrained(tmp_path / "half").eval()
    assert torch.allclose(theirs.decode(latents).sample, whole.decode(latents), atol=1e-5)

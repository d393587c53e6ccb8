"""The KL-regularized autoencoder of latent diffusion: pictures or spectrograms to latents and back.

Rombach et al. 2022 (arXiv 2112.10752, section 3.1), with the keys and arithmetic of diffusers'
``AutoencoderKL``, built from the same ``config.json``. Latents here are raw: the codec that owns
the autoencoder applies its ``scaling_factor``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention import Attention
from shared.errors import UserError
from shared.layers import Downsample2D, GroupNorm, ResnetBlock2D, Upsample2D

EPS = 1e-6
ENCODER, LINEAR_CODE = "_encoder", "linear code"
_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
# They describe the latents or the way of running, not the arithmetic of this module.
_IGNORED = frozenset(
    {"sample_size", "scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast"}
)


@dataclass(frozen=True)
class Posterior:
    """A diagonal Gaussian over latents.

    Attributes:
        mean: (b c h w).
        logvar: (b c h w), the logarithm of the variance, kept within [-30, 20].
    """

    mean: Tensor
    logvar: Tensor

    def mode(self) -> Tensor:
        """The likeliest latents, (b c h w)."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """Latents drawn with the given standard normal ``noise`` (b c h w)."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """The divergence from the standard normal in nats, summed over (c h w): (b,)."""
        elements = self.mean.square() + self.logvar.exp() - 1 - self.logvar
        return 0.5 * elements.flatten(1).sum(1)


class AutoencoderKL(nn.Module):
    """Encoder, decoder and the 1x1 convolutions around the latents.

    With ``n = len(block_out_channels)`` a picture (b c h w) has latents
    (b latent_channels h/2^(n-1) w/2^(n-1)).

    A config with ``"_encoder": "linear code"`` has no encoder: its latents are those of the code
    beside it (:mod:`shared.linear_code`).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        values = _parse(config)
        self.config: dict[str, Any] = dict(config)
        widths: tuple[int, ...] = tuple(values["block_out_channels"])
        self.downsampling = 2 ** (len(widths) - 1)
        self.latent_channels: int = values["latent_channels"]
        z = self.latent_channels
        shape = _Shape(
            widths, values["layers_per_block"], values["norm_num_groups"],
            values["mid_block_add_attention"],
        )  # fmt: skip
        encodes = _has_encoder(config)
        self.encoder = Encoder(values["in_channels"], 2 * z, shape) if encodes else None
        self.decoder = Decoder(z, values["out_channels"], shape)
        quantizes = encodes and values["use_quant_conv"]
        self.quant_conv = nn.Conv2d(2 * z, 2 * z, 1) if quantizes else None
        self.post_quant_conv = nn.Conv2d(z, z, 1) if values["use_post_quant_conv"] else None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AutoencoderKL:
        """Build from a diffusers ``AutoencoderKL`` configuration (the content of ``config.json``).

        Raises:
            UserError: a key or value that is not supported; the message names it.
        """
        return cls(config)

    def encode(self, x: Tensor) -> Posterior:
        """Pictures (b c h w), by custom in [-1, 1], to the posterior over their latents.

        Raises:
            UserError: the autoencoder has no encoder.
            ValueError: a height or width that is no multiple of ``downsampling``.
        """
        if self.encoder is None:
            raise UserError("this autoencoder has no encoder; the linear code beside it encodes")
        if x.shape[2] % self.downsampling or x.shape[3] % self.downsampling:
            raise ValueError(
                f"height and width must be multiples of {self.downsampling}, "
                f"not {x.shape[2]}x{x.shape[3]}"
            )
        moments = self.encoder(x)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0))

    def decode(self, z: Tensor) -> Tensor:
        """Raw latents (b z h w) to pictures (b c h*downsampling w*downsampling), not clamped."""
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))


@dataclass(frozen=True)
class _Shape:
    """What encoder and decoder have in common."""

    widths: tuple[int, ...]
    layers: int
    groups: int
    attention: bool


class Encoder(nn.Module):
    """(b in h w) -> (b out h/2^(n-1) w/2^(n-1)): resnet blocks, halving between levels."""

    def __init__(self, in_channels: int, out_channels: int, shape: _Shape) -> None:
        super().__init__()
        widths = shape.widths
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            _Level(
                [widths[max(i - 1, 0)]] + [width] * shape.layers,
                shape.groups,
                downsample=i < len(widths) - 1,
            )
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], shape.groups, shape.attention)
        self.conv_norm_out = GroupNorm(shape.groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for block in self.down_blocks:
            h = block(h)
        h = self.mid_block(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Decoder(nn.Module):
    """(b z h w) -> (b out h*2^(n-1) w*2^(n-1)): the encoder's levels from coarse to fine."""

    def __init__(self, in_channels: int, out_channels: int, shape: _Shape) -> None:
        super().__init__()
        widths = shape.widths[::-1]
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], shape.groups, shape.attention)
        self.up_blocks = nn.ModuleList(
            _Level(
                [widths[max(i - 1, 0)]] + [width] * (shape.layers + 1),
                shape.groups,
                upsample=i < len(widths) - 1,
            )
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = GroupNorm(shape.groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            h = block(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class _Level(nn.Module):
    """The resnet blocks of one resolution; ``widths`` has one entry more than there are blocks."""

    def __init__(
        self,
        widths: Sequence[int],
        groups: int,
        *,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock2D(before, after, groups=groups, eps=EPS)
            for before, after in pairwise(widths)
        )
        # Absent rather than None where unused: diffusers has no such key there.
        if downsample:
            self.downsamplers = nn.ModuleList([Downsample2D(widths[-1], padding=0)])
        if upsample:
            self.upsamplers = nn.ModuleList([Upsample2D(widths[-1])])
        self._after = "downsamplers" if downsample else "upsamplers" if upsample else None

    def forward(self, h: Tensor) -> Tensor:
        for resnet in self.resnets:
            h = resnet(h)
        return h if self._after is None else getattr(self, self._after)[0](h)


class MidBlock(nn.Module):
    """Two resnet blocks at the coarsest resolution with single-head self-attention between."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock2D(channels, channels, groups=groups, eps=EPS) for _ in range(2)
        )
        self.attentions = nn.ModuleList(
            Attention(channels, 1, channels, bias=True, groups=groups, eps=EPS, residual=True)
            for _ in range(int(attention))
        )

    def forward(self, h: Tensor) -> Tensor:
        h = self.resnets[0](h)
        for attention in self.attentions:
            h = attention(h)
        return self.resnets[1](h)


def _has_encoder(config: Mapping[str, Any]) -> bool:
    # An underscore keeps diffusers from taking it for an argument.
    says = config.get(ENCODER)
    if says not in (None, LINEAR_CODE):
        raise UserError(f"VAE config: {ENCODER} may only be {LINEAR_CODE!r}, not {says!r}")
    return says is None


def _parse(config: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in config.items():
        if key in _DEFAULTS or key in _IGNORED or key.startswith("_"):
            continue
        if key == "act_fn" and value in ("silu", "swish"):
            continue
        if key in ("down_block_types", "up_block_types"):
            only = _DOWN if key.startswith("down") else _UP
            if all(name == only for name in value):
                continue
            raise UserError(f"VAE config: {key} may hold only {only!r}, not {list(value)!r}")
        if value in (None, False):
            continue
        raise UserError(f"VAE config: {key} = {value!r} is not supported")
    values = _DEFAULTS | {key: config[key] for key in _DEFAULTS if key in config}
    widths, groups = values["block_out_channels"], values["norm_num_groups"]
    for key in ("down_block_types", "up_block_types"):
        if key in config and len(config[key]) != len(widths):
            raise UserError(
                f"VAE config: {key} has {len(config[key])} entries, "
                f"block_out_channels has {len(widths)}"
            )
    for width in widths:
        if width % groups:
            raise UserError(
                f"VAE config: block_out_channels {list(widths)} must be multiples of "
                f"norm_num_groups = {groups}"
            )
    return values

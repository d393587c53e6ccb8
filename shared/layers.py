"""The convolutional blocks and the time embedding that the U-Net and the VAE share.

Attribute names are diffusers' own, so that ``state_dict()`` keys agree and weights move between
the two libraries with no renaming.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def channels_last(module: M) -> M:
    """The module with its kernels in that order in memory, the one convolutions work in.

    Tensors in another order are re-arranged at each call.
    """
    return module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def sinusoidal_embedding(
    c_noise: Tensor, dim: int, *, flip_sin_to_cos: bool = True, freq_shift: float = 0.0
) -> Tensor:
    """Embed scalars by sines and cosines of geometrically spaced frequencies, in float32.

    Vaswani et al. 2017 (arXiv 1706.03762, section 3.5), with the two conventions that diffusion
    models differ in.

    Args:
        c_noise: (b,) network times; fractional values are welcome.
        dim: length of the embedding; an odd one is padded with a zero.
        flip_sin_to_cos: cosines first (Stable Diffusion) or sines first (DDPM).
        freq_shift: the lowest frequency is ``10000 ** -((half - 1) / (half - freq_shift))``.

    Returns:
        (b, dim) float32.
    """
    half = dim // 2
    # Kept as log, multiply, exp in float32: the order of roundings that trained weights saw.
    exponents = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=c_noise.device)
    angles = c_noise.float()[:, None] * torch.exp(exponents / (half - freq_shift))
    halves = (angles.cos(), angles.sin()) if flip_sin_to_cos else (angles.sin(), angles.cos())
    return F.pad(torch.cat(halves, dim=-1), (0, dim % 2))


class TimestepEmbedding(nn.Module):
    """A two-layer perceptron from an embedding (b, in_channels) to (b, time_embed_dim).

    ``cond_dim`` adds a bias-free projection of a second vector to the input, as guidance-distilled
    students have for their guidance scale (Meng et al. 2023, arXiv 2210.03142).
    """

    def __init__(self, in_channels: int, time_embed_dim: int, cond_dim: int | None = None) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, time_embed_dim)
        self.cond_proj = None if cond_dim is None else nn.Linear(cond_dim, in_channels, bias=False)
        self.linear_2 = nn.Linear(time_embed_dim, time_embed_dim)

    def forward(self, embedding: Tensor, condition: Tensor | None = None) -> Tensor:
        if self.cond_proj is not None and condition is not None:
            embedding = embedding + self.cond_proj(condition)
        return self.linear_2(F.silu(self.linear_1(embedding)))


class GroupNorm(nn.GroupNorm):
    """Group normalization (Wu & He 2018, arXiv 1803.08494) that is quick under channels_last too.

    On small channels_last maps PyTorch's CPU kernel walks from group to group, which is up to eight
    times slower than need be where a group has few channels. There the moments of single channels,
    which vectorize, are taken first and then joined to those of groups.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (b c h w) or (b c n) -> the same shape and dtype."""
        if x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16):
            # torch's CPU kernel takes three times as long for half precision as for float32.
            return self._normalize(x.float(), self.weight.float(), self.bias.float()).to(x.dtype)
        return self._normalize(x, self.weight, self.bias)

    def _normalize(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        per_group = self.num_channels // self.num_groups
        if per_group >= 8 or not _is_slow_to_normalize(x):
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)
        b, c, g = len(x), self.num_channels, self.num_groups
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # b (h w) c, a view
        sums = torch.stack([pixels.sum(1), pixels.square().sum(1)])  # 2 b c
        sums = sums.view(2, b, g, per_group).sum(-1, keepdim=True)
        mean, mean_square = (sums / (per_group * pixels.shape[1])).unbind()  # b g 1
        variance = (mean_square - mean.square()).clamp(min=0)
        scale = torch.rsqrt(variance + self.eps) * weight.view(g, per_group)  # b g c/g
        shift = bias.view(g, per_group) - mean * scale
        return torch.addcmul(shift.view(b, c, 1, 1), x, scale.view(b, c, 1, 1))


def _is_slow_to_normalize(x: Tensor) -> bool:
    """Whether x is what that kernel is slow on; on less, the overhead of more calls weighs more."""
    return (
        x.ndim == 4
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.shape[2] * x.shape[3] < 1024
        and x.numel() >= 2**15
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
    )


class ResnetBlock2D(nn.Module):
    """Two norm-SiLU-conv layers with a residual path: (b in h w) -> (b out h w).

    ``temb``, the SiLU of the time embedding (b, temb_channels), is projected and added between the
    two convolutions; its caller applies the SiLU, once for all blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int | None = None,
        groups: int = 32,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = (
            None if temb_channels is None else nn.Linear(temb_channels, out_channels)
        )
        self.norm2 = GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = (
            None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None and temb is not None:
            h = h + self.time_emb_proj(temb)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample2D(nn.Module):
    """Halve height and width by a strided convolution: (b c h w) -> (b c h/2 w/2).

    ``padding=1`` pads all four sides (U-Net); ``padding=0`` pads only right and bottom, the
    asymmetric way that Stable Diffusion's VAE was trained with.
    """

    def __init__(self, channels: int, padding: int = 1) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))


class Upsample2D(nn.Module):
    """Double height and width (nearest), then convolve: (b c h w) -> (b c 2h 2w).

    ``size`` overrides the doubling where the way down rounded an odd size.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        scale_factor = 2.0 if size is None else None
        return self.conv(F.interpolate(x, size=size, scale_factor=scale_factor, mode="nearest"))

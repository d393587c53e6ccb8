"""Brownian bridges between the ends of pairs, as noise that a denoiser removes.

Brownian motion of variance ``s^2`` a unit of time that has to be at x0 at its end is, with the time
t left, ``x0 + sigma * noise`` with ``sigma = s sqrt(t)``: in the one coordinate of all samplers. So
what says where a bridge ends is a denoiser, and DDPM's sampler follows the bridge: only that it
starts from data, at ``sigma = s``, and not from noise (Shi et al. 2023, arXiv 2303.16852).
"""

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.noise import NoiseFn
from shared.parameterization import Parameterization, Scalings
from shared.samplers import sample_ddpm


def bridge_kind(s: float, apart: float) -> Parameterization:
    """The network says how far the end is, in units of how far it usually is at that time.

    Args:
        s: standard deviation of the motion over the whole time.
        apart: how far the ends of a pair are apart along an axis, about.
    """

    def scalings(sigma: Tensor) -> Scalings:
        t = (sigma / s).square()
        far = (apart**2 * t.square() + s**2 * t * (1 - t).clamp(min=0)).sqrt()
        return Scalings(torch.ones_like(t), far, torch.ones_like(t), sigma / s)

    return scalings


def bridge_noise(
    start: Tensor, end: Tensor, t: Tensor, noise: Tensor, s: float
) -> tuple[Tensor, Tensor]:
    """A state of the bridge from start to end (b c h w) as ``end + sigma * result``.

    Given both ends the state with t left is a Gaussian around ``t start + (1 - t) end`` of variance
    ``s^2 t (1 - t)``.

    Args:
        t: (b,) time that is left, above 0 to 1.
        noise: (b c h w), standard normal.

    Returns:
        What takes the place of the noise in :meth:`shared.denoiser.Denoiser.loss`, with x0 the end:
        (b c h w); and sigma (b,).
    """
    left = t[:, None, None, None]
    offset = left * (start - end) + s * (left * (1 - left)).sqrt() * noise
    sigma = s * t.sqrt()
    return offset / sigma[:, None, None, None], sigma


def walk_bridge(denoise: DenoiseFn, start: Tensor, s: float, steps: int, noise: NoiseFn) -> Tensor:
    """Follow a bridge from ``start`` (b c h w): all states, (steps + 1, b c h w), the last its end.

    Each step is the exact one of a Brownian bridge to where ``denoise`` sees the end.
    """
    states: list[Tensor] = []
    sigmas = s * torch.linspace(1, 0, steps + 1).sqrt()
    last = sample_ddpm(
        denoise, start, sigmas, noise=noise, callback=lambda step, x, *_: states.append(x)
    )
    return torch.stack([*states, last])

"""Guidance by a linear measurement y = A x0 of the clean signal: inpainting, super-resolution."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.guidance.compose import per_sample
from shared.guidance.pullback import pull_back


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear A with orthogonal rows of one length, ``A A^T = gram * 1`` on the range of A.

    Attributes:
        forward: A: x0 (b c h w) -> y (b ...).
        pseudo_inverse: ``A^+ = A^T (A A^T)^-1``: y -> (b c h w). So ``A^T = gram * A^+``.
        gram: the rows' squared length.
    """

    forward: Callable[[Tensor], Tensor]
    pseudo_inverse: Callable[[Tensor], Tensor]
    gram: float = 1.0


def keep(mask: Tensor) -> LinearMap:
    """Keep where the mask (broadcast to (b c h w)) is true, 0 elsewhere."""

    def masked(values: Tensor) -> Tensor:
        return torch.where(mask.bool(), values, 0)

    return LinearMap(forward=masked, pseudo_inverse=masked)


def average_pool(height: int, width: int) -> LinearMap:
    """Means over blocks of height x width: (b c h w) -> (b c h/height w/width).

    Raises:
        UserError: a block below 1; when called, a size that the blocks do not divide.
    """
    if height < 1 or width < 1:
        raise UserError(f"blocks to average must be at least 1 by 1, not {height} by {width}")

    def forward(x0: Tensor) -> Tensor:
        if x0.shape[2] % height or x0.shape[3] % width:
            size = " by ".join(map(str, x0.shape[2:]))
            raise UserError(f"blocks of {height} by {width} do not divide {size}")
        return F.avg_pool2d(x0, (height, width))

    def spread(y: Tensor) -> Tensor:
        return y.repeat_interleave(height, dim=2).repeat_interleave(width, dim=3)

    return LinearMap(forward, spread, gram=1 / (height * width))


def consistent(denoise: DenoiseFn, linear: LinearMap, y: Tensor) -> DenoiseFn:
    """Make the estimate agree with y: ``denoised + A^+ (y - A denoised)``, ``A^+ A`` a projection.

    The nearest estimate with ``A denoised = y`` (DDNM, Wang et al. 2022, arXiv 2212.00490, Eq. 13;
    the "data consistency" of 2311.00613 is this on the noisy state). For y without noise. The
    result keeps y exactly, but the rest follows y only through the noisy state that it leads to: an
    approximation of the posterior.
    """

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoise(x, sigma)
        return denoised + linear.pseudo_inverse(y.to(denoised) - linear.forward(denoised))

    return guided


def known_region(denoise: DenoiseFn, known: Tensor, mask: Tensor) -> DenoiseFn:
    """Replace the estimate by ``known`` (b c h w) where the mask is 1: inpainting.

    :func:`consistent` with :func:`keep`, and exact to the bit in what it keeps. The mask
    (broadcast to (b c h w)) may have values between 0 and 1, which blend; 0 everywhere changes
    nothing, to the bit. Apply it last: guidance around it would move the known region again.
    """

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoise(x, sigma)
        return torch.lerp(denoised, known.to(denoised).expand_as(denoised), mask.to(denoised))

    return guided


def posterior(
    denoise: DenoiseFn,
    linear: LinearMap,
    y: Tensor,
    noise_std: float,
    data_std: float,
) -> DenoiseFn:
    """Approximate the denoiser given ``y = A x0 + noise_std * noise`` (PiGDM and DPS).

    Pseudo-inverse guidance (Song et al. 2023, ICLR, "Pseudoinverse-Guided Diffusion Models for
    Inverse Problems", Eq. 7) takes x0 given x for a Gaussian about denoised with variance r^2, so
    that y is one with covariance ``r^2 A A^T + noise_std^2``, and adds sigma^2 times its score:

        denoised + sigma^2 J^T A^T (y - A denoised) / (gram r^2 + noise_std^2)

    with J = d denoised / d x and ``r^2 = sigma^2 data_std^2 / (sigma^2 + data_std^2)``. This is
    exact for Gaussian data of that standard deviation; elsewhere it is off by the part of the
    posterior's shape that a Gaussian lacks. ``data_std`` 0 is the approximation of DPS (Chung et
    al. 2022, arXiv 2209.14687, Theorem 1), which trusts the early estimates as if certain.

    Raises:
        UserError: a standard deviation below 0, or both 0.
    """
    if not (noise_std >= 0 and data_std >= 0 and noise_std + data_std > 0):
        raise UserError(
            "noise_std and data_std must be at least 0 and not both 0, "
            f"not {noise_std} and {data_std}"
        )

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.square()
        spread = level * data_std**2 / (level + data_std**2)  # r^2, b

        def direction(denoised: Tensor) -> Tensor:
            residual = linear.pseudo_inverse(y.to(denoised) - linear.forward(denoised))
            trust = linear.gram / (linear.gram * spread + noise_std**2)
            return residual * per_sample(trust)

        denoised, pulled = pull_back(denoise, x, sigma, direction)
        return denoised + pulled * per_sample(level)

    return guided


def residual_norm(linear: LinearMap, y: Tensor) -> Callable[[Tensor], Tensor]:
    """``|y - A denoised|`` as the function of a :class:`~shared.guidance.Loss`, (b c h w) -> (b,).

    DPS' gradient of the squared norm, divided by the norm, is twice the gradient of this.
    """

    def loss(denoised: Tensor) -> Tensor:
        return (y.to(denoised) - linear.forward(denoised)).flatten(1).norm(dim=1)

    return loss

"""What the tests of samplers share: grids, starts, and exact moments of a stochastic sampler."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from shared.noise import NoiseFn
from shared.samplers import SAMPLERS, SamplerFn
from shared.schedules import exponential
from tests.analytic import single_gaussian

HIGH, LOW = 10.0, 0.05
DETERMINISTIC = [name for name, sampler in SAMPLERS.items() if not sampler.stochastic]


def grid(n: int, kind: Callable[[int, float, float], Tensor] = exponential) -> Tensor:
    """n steps from HIGH to LOW, float64: where the ODE is smooth and an order can be observed."""
    return kind(n + 1, LOW, HIGH)[:-1].double()


def gentle_grid(n: int) -> Tensor:
    """The same with first steps so short that a multistep method's beginning weighs nothing."""
    part = torch.linspace(0, 1, n + 1, dtype=torch.float64) ** 3
    return (math.log(HIGH) + part * math.log(LOW / HIGH)).exp()


def start(n: int = 256, sigma: float = HIGH) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return sigma * torch.randn(n, 1, 1, 2, generator=generator, dtype=torch.float64)


def random_noise(x: Tensor, generator: torch.Generator) -> NoiseFn:
    """Fresh noise like x at every call, not repeatable: for counting many samples."""
    return lambda step: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,) and covariance (d d) of samples (b c h w)."""
    flat = x.flatten(1)
    return flat.mean(0), flat.T.cov()


def exact_variance(sample: SamplerFn, sigmas: Tensor, draws: int) -> float:
    """The variance of what a sampler makes of a single Gaussian, with nothing random in it.

    That Gaussian's denoiser is affine, so a sampler's result is an affine function of its start and
    its noises. Row 0 of the batch gets neither, row 1 the start's standard deviation, row k + 2 a
    unit of the noise numbered k: differences to row 0 are the function's coefficients, and the sum
    of their squares is the variance. Its mean must come out exactly.
    """
    gaussian = single_gaussian()
    mean = gaussian.means[0].reshape(1, 1, 2)
    x = mean.repeat(draws + 2, 1, 1, 1)
    x[1] += math.hypot(gaussian.stds[0].item(), sigmas[0].item())
    asked: list[int] = []

    def noise(step: int) -> Tensor:
        unit = torch.zeros_like(x)
        unit[step + 2] = 1
        asked.append(step)
        return unit

    x0 = sample(gaussian.denoise, x, sigmas, noise=noise)
    assert len(asked) == len(set(asked)), "no noise is used twice"
    torch.testing.assert_close(x0[0], mean, rtol=0, atol=1e-9)
    return (x0[1:] - x0[0]).square().sum(0).mean().item()

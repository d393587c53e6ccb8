"""Small students of data whose denoiser is known exactly, and how far their samples are from it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.distillation import Loss
from shared.parameterization import Parameterization
from shared.samplers import SamplerFn
from shared.schedules import NoiseSchedule, scaled_linear_betas, trained
from tests.analytic import GaussianMixture, three_modes

SCHEDULE = NoiseSchedule.from_betas(scaled_linear_betas(1000))
MIXTURE = three_modes()
SAMPLES = 3000

Levels = Callable[[Tensor, Tensor, float], Tensor]
"""(uniforms (b,), normals (b,), progress) -> sigmas (b k)."""


class Network(nn.Module):
    """A perceptron of samples (b 1 1 2), the time, and a vector if ``guidance_dim`` is given."""

    waves: Tensor

    def __init__(self, guidance_dim: int | None = None, width: int = 64, waves: int = 8) -> None:
        super().__init__()
        self.guidance_dim = guidance_dim
        self.register_buffer("waves", torch.arange(1, waves + 1) * math.pi / 2000)
        self.layers = nn.Sequential(
            nn.Linear(2 + 2 * waves + (guidance_dim or 0), width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2),
        )

    def forward(self, x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        phase = c_noise[:, None] * self.waves
        told = [x.flatten(1), phase.sin(), phase.cos()]
        if cond.vector is not None:
            told.append(cond.vector)
        return self.layers(torch.cat(told, 1)).reshape(x.shape)


def student(parameterization: Parameterization, guidance_dim: int | None = None) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(Network(guidance_dim), parameterization, SCHEDULE)


def bound(denoiser: Denoiser, cond: Conditioning | None = None) -> DenoiseFn:
    told = cond or Conditioning()
    return lambda x, sigma: denoiser(x, sigma, told)


def draw(mixture: GaussianMixture, n: int, generator: torch.Generator) -> Tensor:
    """Samples (n 1 1 2) of the data."""
    component = torch.multinomial(mixture.weights, n, replacement=True, generator=generator)
    noise = torch.randn(n, 2, generator=generator).double()
    x0 = mixture.means[component] + mixture.stds[component, None] * noise
    return x0.float().reshape(n, 1, 1, 2)


def log_normal(uniforms: Tensor, normals: Tensor) -> Tensor:
    """Levels (b,) about those where the mixture is decided; 15 % are the noisiest."""
    sigma = (0.2 + 1.4 * normals).exp().clamp(SCHEDULE.sigma_min, SCHEDULE.sigma_max)
    return torch.where(uniforms < 0.15, SCHEDULE.sigma_max, sigma)


def fit(
    denoiser: Denoiser,
    loss: Loss,
    teacher: DenoiseFn,
    levels: Levels,
    *,
    steps: int,
    rate: float,
    batch: int = 256,
    seed: int = 0,
) -> DenoiseFn:
    """Train by Adam, the rate falling to 0 over the second half; the result is averaged weights."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(denoiser.parameters(), rate, foreach=True)
    parameters = [parameter.detach() for parameter in denoiser.parameters()]
    averages = [parameter.clone() for parameter in parameters]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, 2 * (1 - step / steps))
        x0 = draw(MIXTURE, batch, generator)
        noise = torch.randn(x0.shape, generator=generator)
        uniforms = torch.rand(batch, generator=generator)
        normals = torch.randn(batch, generator=generator)
        sigmas = levels(uniforms, normals, step / steps)
        optimizer.zero_grad()
        loss(bound(denoiser), teacher, x0, noise, sigmas).mean().backward()
        optimizer.step()
        torch._foreach_lerp_(averages, parameters, 1 - min(0.99, (1 + step) / (10 + step)))
    with torch.no_grad():
        for parameter, average in zip(parameters, averages, strict=True):
            parameter.copy_(average)
    return bound(denoiser.requires_grad_(False))


def sample(denoise: DenoiseFn, sampler: SamplerFn, steps: int) -> Tensor:
    """SAMPLES samples from the same noise, on the trained grid of so many steps."""
    sigmas = trained(steps, SCHEDULE)
    start = torch.Generator().manual_seed(11)
    fresh = torch.Generator().manual_seed(12)
    x = torch.randn(SAMPLES, 1, 1, 2, generator=start) * sigmas[0]
    with torch.no_grad():
        return sampler(denoise, x, sigmas, noise=lambda step: torch.randn(x.shape, generator=fresh))


def sliced_wasserstein(one: Tensor, other: Tensor, directions: int = 32) -> float:
    """The 2-Wasserstein distance of samples (n 1 1 2), mean square over directions, its root."""
    angles = torch.arange(directions) * math.pi / directions
    lines = torch.stack([angles.cos(), angles.sin()])
    sorted_ = [(x.flatten(1) @ lines).sort(0).values for x in (one, other)]
    return (sorted_[0] - sorted_[1]).square().mean().sqrt().item()


def off_target(samples: Tensor) -> float:
    """Their distance from as many of the data."""
    return sliced_wasserstein(samples, draw(MIXTURE, SAMPLES, torch.Generator().manual_seed(13)))

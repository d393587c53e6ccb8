"""One small network in a sampling loop of ours and in one of diffusers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.guidance import plain
from shared.parameterization import parameterization_from_config
from shared.schedules import NoiseSchedule, schedule_from_config

SHAPE = (2, 3, 8, 8)
# Stable Diffusion's schedule, and the plain one with the wider range of noise.
SCALED_LINEAR = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
TRAILING = {"timestep_spacing": "trailing"}


class Network(nn.Module):
    """A small random network that looks at the state and at the time."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.time = nn.Linear(8, 16)
        self.last = nn.Conv2d(16, 3, 3, padding=1)
        # Radians a step. A real network's go up to 1, but diffusers interpolates Karras times in
        # float32, with errors of some 1e-4 steps, and those are not what is compared here.
        self.register_buffer("frequencies", torch.logspace(-1, -3, 4))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        phase = c_noise[:, None] * self.frequencies
        time = self.time(torch.cat([phase.sin(), phase.cos()], dim=1))
        return self.last(torch.tanh(self.first(x) + time[:, :, None, None]))


CONFIGS = {
    f"{name}-{prediction_type}": {**config, "prediction_type": prediction_type}
    for name, config in (("linear", LINEAR), ("scaled_linear", SCALED_LINEAR))
    for prediction_type in ("epsilon", "v_prediction")
}


def random_network() -> Network:
    torch.manual_seed(0)
    return Network().requires_grad_(False)


def unit_noise() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def ours(network: nn.Module, config: dict) -> tuple[DenoiseFn, NoiseSchedule]:
    """(denoise, schedule) as a diffusers config asks for."""
    schedule = schedule_from_config(config)
    denoiser = Denoiser(network, parameterization_from_config(config, schedule), schedule)
    return plain(denoiser, Conditioning()), schedule


def theirs(network, scheduler: Any, steps: int, x: Tensor, **step_arguments) -> Tensor:
    """The loop of a diffusers pipeline."""
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        output = network(scaled, t.float().expand(len(x)), Conditioning())
        x = scheduler.step(output, t, x, **step_arguments, return_dict=False)[0]
    return x


def vp(x: Tensor, sigma: Tensor) -> Tensor:
    """The variance-preserving state that DDIM, DDPM and DPM-Solver of diffusers keep."""
    return x / (1 + sigma**2).sqrt()


def noise_of(seed: int, shape: Sequence[int] = SHAPE):
    """The noises that diffusers would draw one after another, as a NoiseFn."""
    generator = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn(tuple(shape), generator=generator)


def assert_agree(mine: Tensor, reference: Tensor) -> None:
    """To 1e-4 of the result's own size: random networks blow some of these up."""
    assert mine.isfinite().all()
    assert (mine - reference).abs().max() <= 1e-4 * reference.abs().max()

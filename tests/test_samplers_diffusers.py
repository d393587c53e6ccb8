"""Whole sampling loops against diffusers' schedulers: same network, same start, same noise.

What makes the two comparable: theirs must end at sigma 0 (``set_alpha_to_one``,
``final_sigmas_type="zero"``), clip nothing (``clip_sample=False``), and walk the same timesteps
("trailing", with a number of steps that divides 1000, since DDIM steps by 1000 // n; "linspace" for
Karras, whose ends are then the ends of the training schedule). In DPMSolverMultistepScheduler,
Karras timesteps are rounded to integers, ours and Euler's are not, so it is compared without.
"""

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.guidance import plain
from shared.parameterization import parameterization_from_config
from shared.samplers import (
    sample_ddim,
    sample_ddpm,
    sample_dpmpp_2m,
    sample_euler,
    sample_heun,
)
from shared.schedules import make_sigmas, schedule_from_config, trained

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

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


@pytest.fixture(params=["epsilon", "v_prediction"])
def prediction_type(request) -> str:
    return request.param


@pytest.fixture(params=[LINEAR, SCALED_LINEAR], ids=["linear", "scaled_linear"])
def config(request, prediction_type) -> dict:
    return {**request.param, "prediction_type": prediction_type}


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network().requires_grad_(False)


@pytest.fixture
def unit() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def ours(network, config):
    """(denoise, schedule) as a diffusers config asks for."""
    schedule = schedule_from_config(config)
    denoiser = Denoiser(network, parameterization_from_config(config, schedule), schedule)
    return plain(denoiser, Conditioning()), schedule


def theirs(network, scheduler, steps: int, x: Tensor, **step_arguments) -> Tensor:
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


def noise_of(seed: int):
    """The noises that diffusers would draw one after another, as a NoiseFn."""
    generator = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn(SHAPE, generator=generator)


def assert_agree(mine: Tensor, reference: Tensor) -> None:
    """To 1e-4 of the result's own size: random networks blow some of these up."""
    assert mine.isfinite().all()
    assert (mine - reference).abs().max() <= 1e-4 * reference.abs().max()


@pytest.mark.parametrize("steps", [10, 50])
def test_ddim(network, config, unit, steps):
    denoise, schedule = ours(network, config)
    sigmas = trained(steps, schedule)
    x = unit * sigmas[0]
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **TRAILING, **config)
    reference = theirs(network, scheduler, steps, vp(x, sigmas[0]), eta=0.0)
    assert_agree(sample_ddim(denoise, x, sigmas), reference)


def test_ddim_with_eta(network, config, unit):
    denoise, schedule = ours(network, config)
    sigmas = trained(20, schedule)
    x = unit * sigmas[0]
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **TRAILING, **config)
    generator = torch.Generator().manual_seed(5)
    reference = theirs(network, scheduler, 20, vp(x, sigmas[0]), eta=0.7, generator=generator)
    assert_agree(sample_ddim(denoise, x, sigmas, noise=noise_of(5), eta=0.7), reference)


def test_ddpm(network, config, unit):
    denoise, schedule = ours(network, config)
    sigmas = trained(50, schedule)
    x = unit * sigmas[0]
    scheduler = DDPMScheduler(clip_sample=False, **TRAILING, **config)  # variance "fixed_small"
    generator = torch.Generator().manual_seed(5)
    reference = theirs(network, scheduler, 50, vp(x, sigmas[0]), generator=generator)
    assert_agree(sample_ddpm(denoise, x, sigmas, noise=noise_of(5)), reference)


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_euler(network, config, unit, spacing):
    denoise, schedule = ours(network, config)
    sigmas = trained(25, schedule, spacing, steps_offset=1)
    x = unit * sigmas[0]
    scheduler = EulerDiscreteScheduler(timestep_spacing=spacing, steps_offset=1, **config)
    assert_agree(sample_euler(denoise, x, sigmas), theirs(network, scheduler, 25, x))


@pytest.mark.parametrize("name", ["karras", "exponential"])
def test_euler_with_karras_and_exponential_sigmas(network, config, unit, name):
    denoise, schedule = ours(network, config)
    sigmas = make_sigmas(name, 25, schedule)
    x = unit * sigmas[0]
    scheduler = EulerDiscreteScheduler(
        timestep_spacing="linspace", **{f"use_{name}_sigmas": True}, **config
    )
    assert_agree(sample_euler(denoise, x, sigmas), theirs(network, scheduler, 25, x))


def test_euler_with_churn(network, unit):
    # Churn lifts the state to sigma_hat before the network sees it, and in EDM's Algorithm 2 its
    # time too; their loop has scaled the state and told the time at sigma by then. A network that
    # looks at neither, and predicts eps, must agree.
    config = {**LINEAR, "prediction_type": "epsilon"}
    schedule = schedule_from_config(config)
    sigmas = trained(20, schedule)
    x = unit * sigmas[0]

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x - sigma[:, None, None, None] * network.last.bias[:, None, None]

    def constant(x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        return network.last.bias[:, None, None].expand_as(x)

    scheduler = EulerDiscreteScheduler(**TRAILING, **config)
    generator = torch.Generator().manual_seed(5)
    reference = theirs(constant, scheduler, 20, x, s_churn=4.0, s_noise=1.01, generator=generator)
    churned = sample_euler(denoise, x, sigmas, noise=noise_of(5), s_churn=4.0, s_noise=1.01)
    assert_agree(churned, reference)


def test_heun(network, config, unit):
    denoise, schedule = ours(network, config)
    sigmas = trained(25, schedule)
    x = unit * sigmas[0]
    scheduler = HeunDiscreteScheduler(**TRAILING, **config)
    assert_agree(sample_heun(denoise, x, sigmas), theirs(network, scheduler, 25, x))


@pytest.mark.parametrize("steps", [10, 25])  # theirs treats fewer than 15 steps apart
def test_dpmpp_2m(network, config, unit, steps):
    denoise, schedule = ours(network, config)
    sigmas = trained(steps, schedule)
    x = unit * sigmas[0]
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", final_sigmas_type="zero", **TRAILING, **config
    )
    reference = theirs(network, scheduler, steps, vp(x, sigmas[0]))
    assert_agree(sample_dpmpp_2m(denoise, x, sigmas), reference)

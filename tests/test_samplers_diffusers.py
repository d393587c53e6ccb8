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
from torch import Tensor

from shared.conditioning import Conditioning
from shared.samplers import (
    sample_ddim,
    sample_ddpm,
    sample_dpmpp_2m,
    sample_euler,
    sample_heun,
)
from shared.schedules import make_sigmas, schedule_from_config, trained
from tests.diffusers_loops import (
    CONFIGS,
    LINEAR,
    TRAILING,
    Network,
    assert_agree,
    noise_of,
    ours,
    random_network,
    theirs,
    unit_noise,
    vp,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


@pytest.fixture(params=CONFIGS.values(), ids=list(CONFIGS))
def config(request) -> dict:
    return request.param


@pytest.fixture
def network() -> Network:
    return random_network()


@pytest.fixture
def unit() -> Tensor:
    return unit_noise()


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

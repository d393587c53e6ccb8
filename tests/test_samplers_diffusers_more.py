"""More loops against diffusers' schedulers: multistep methods and those that add noise.

As in test_samplers_diffusers.py; where theirs differ in more than rounding, the test says in what.
"""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_deis_multistep import DEISMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_singlestep import DPMSolverSinglestepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete import (
    KDPM2AncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_sde_ve import ScoreSdeVeScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.samplers import (
    sample_ddpm,
    sample_deis,
    sample_dpm2,
    sample_dpm2_ancestral,
    sample_dpmpp_2m_sde,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_sde,
    sample_euler_ancestral,
    sample_lcm,
    sample_lms,
    sample_plms,
    sample_predictor_corrector,
    sample_unipc,
)
from shared.schedules import make_sigmas, trained
from tests.diffusers_loops import (
    CONFIGS,
    LINEAR,
    SCALED_LINEAR,
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


def test_ddpm_with_the_large_variance(network, config, unit):
    # "leading", for then their last t is 0 and they add no noise in that step, as in the paper.
    denoise, schedule = ours(network, config)
    sigmas = trained(50, schedule, "leading")
    x = unit * sigmas[0]
    scheduler = DDPMScheduler(
        clip_sample=False, timestep_spacing="leading", variance_type="fixed_large", **config
    )
    generator = torch.Generator().manual_seed(5)
    reference = theirs(network, scheduler, 50, vp(x, sigmas[0]), generator=generator)
    assert_agree(sample_ddpm(denoise, x, sigmas, noise=noise_of(5), variance="large"), reference)


@pytest.mark.parametrize("schedule_config", [LINEAR, SCALED_LINEAR], ids=["linear", "scaled"])
@pytest.mark.parametrize("steps", [10, 25])
def test_plms(network, schedule_config, unit, steps):
    # With v theirs mixes the v of several steps, where the paper mixes the noise: eps alone agrees.
    config = {**schedule_config, "prediction_type": "epsilon"}
    denoise, schedule = ours(network, config)
    sigmas = trained(steps, schedule)
    x = unit * sigmas[0]
    scheduler = PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=True, **TRAILING, **config)
    reference = theirs(network, scheduler, steps, vp(x, sigmas[0]))
    assert_agree(sample_plms(denoise, x, sigmas), reference)


@pytest.mark.parametrize("order", [2, 4])
def test_lms(network, config, unit, order):
    denoise, schedule = ours(network, config)
    sigmas = trained(25, schedule)
    x = unit * sigmas[0]
    scheduler = LMSDiscreteScheduler(**TRAILING, **config)
    reference = theirs(network, scheduler, 25, x, order=order)
    assert_agree(sample_lms(denoise, x, sigmas, order=order), reference)


@pytest.mark.parametrize(
    ("sample", "reference_of"),
    [
        (sample_dpm2_ancestral, KDPM2AncestralDiscreteScheduler),
        (sample_euler_ancestral, EulerAncestralDiscreteScheduler),
    ],
)
def test_ancestral_samplers(network, config, unit, sample, reference_of):
    denoise, schedule = ours(network, config)
    sigmas = trained(10, schedule)
    x = unit * sigmas[0]
    scheduler = reference_of(**TRAILING, **config)
    generator = torch.Generator().manual_seed(5)
    reference = theirs(network, scheduler, 10, x, generator=generator)
    assert_agree(sample(denoise, x, sigmas, noise=noise_of(5)), reference)


def test_dpm2(network, config, unit):
    denoise, schedule = ours(network, config)
    sigmas = trained(10, schedule)
    x = unit * sigmas[0]
    reference = theirs(network, KDPM2DiscreteScheduler(**TRAILING, **config), 10, x)
    assert_agree(sample_dpm2(denoise, x, sigmas), reference)


class Timeless(nn.Module):
    """A network that does not look at the time."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        return self.network(x, torch.zeros_like(c_noise), cond)


def test_dpmpp_2s(network, config, unit):
    # Theirs takes pairs of steps, the first the middle of a step of ours: in an exponential grid
    # it is the middle that ours takes. The last of 13 is the step to 0. Theirs cuts the times of
    # such a grid to integers, so the network does not look at them.
    network = Timeless(network)
    denoise, schedule = ours(network, config)
    sigmas = make_sigmas("exponential", 13, schedule)
    x = unit * sigmas[0]
    scheduler = DPMSolverSinglestepScheduler(
        solver_order=2, use_exponential_sigmas=True, lower_order_final=True, **config
    )
    reference = theirs(network, scheduler, 13, vp(x, sigmas[0]))
    every_other = torch.cat([sigmas[0::2], sigmas[-1:]])
    assert_agree(sample_dpmpp_2s_ancestral(denoise, x, every_other, eta=0.0), reference)


@pytest.mark.parametrize("steps", [10, 25])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(network, config, unit, steps, order):
    denoise, schedule = ours(network, config)
    sigmas = trained(steps, schedule)
    x = unit * sigmas[0]
    scheduler = UniPCMultistepScheduler(
        solver_order=order, solver_type="bh2", final_sigmas_type="zero", **TRAILING, **config
    )
    reference = theirs(network, scheduler, steps, vp(x, sigmas[0]))
    assert_agree(sample_unipc(denoise, x, sigmas, order=order), reference)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(network, config, unit, order):
    # Theirs ends at the lowest trained level and not at 0.
    denoise, schedule = ours(network, config)
    sigmas = trained(25, schedule)
    sigmas[-1] = schedule.sigma_min
    x = unit * sigmas[0]
    scheduler = DEISMultistepScheduler(solver_order=order, **TRAILING, **config)
    reference = theirs(network, scheduler, 25, vp(x, sigmas[0]))
    assert_agree(vp(sample_deis(denoise, x, sigmas, order=order), sigmas[-1]), reference)


def test_dpmpp_2m_sde(network, config, unit):
    denoise, schedule = ours(network, config)
    sigmas = trained(25, schedule)
    x = unit * sigmas[0]
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", final_sigmas_type="zero", **TRAILING, **config
    )
    generator = torch.Generator().manual_seed(5)
    reference = theirs(network, scheduler, 25, vp(x, sigmas[0]), generator=generator)
    assert_agree(sample_dpmpp_2m_sde(denoise, x, sigmas, noise=noise_of(5)), reference)


def test_dpmpp_sde(network, config, unit, monkeypatch):
    # Theirs imports torchsde for a Brownian tree. It is handed our noise instead: of the first half
    # step, and of the whole step, made of the first half's and the second's as on one path.
    monkeypatch.setitem(sys.modules, "torchsde", ModuleType("torchsde"))
    from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

    denoise, schedule = ours(network, config)
    sigmas = trained(20, schedule)
    x = unit * sigmas[0]
    drawn = noise_of(5)
    halves: list[Tensor] = []

    def noise_sampler(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        halves.append(drawn(0))
        if len(halves) % 2:
            return halves[-1]
        # Variances in units of sigma_next^2, with q = (sigma_next / sigma): from the middle on
        # 1 - q; carried from the first half, q (1 - q).
        q = sigma_next / sigma
        first = (q * (1 - q)).sqrt() * halves[-2]
        return (first + (1 - q).sqrt() * halves[-1]) / (1 - q**2).sqrt()

    class Scheduler(DPMSolverSDEScheduler):
        def set_timesteps(self, num_inference_steps, device=None, num_train_timesteps=None):
            super().set_timesteps(num_inference_steps, device, num_train_timesteps)
            self.noise_sampler = noise_sampler

    reference = theirs(network, Scheduler(**TRAILING, **config), 20, x)
    assert_agree(sample_dpmpp_sde(denoise, x, sigmas, noise=noise_of(5)), reference)


@pytest.mark.parametrize("steps", [1, 4])
def test_lcm(network, config, unit, steps):
    # The large scaling of the time turns off the boundary condition, which is the model's affair.
    denoise, schedule = ours(network, config)
    sigmas = trained(steps, schedule)
    x = unit * sigmas[0]
    scheduler = LCMScheduler(
        original_inference_steps=1000, timestep_scaling=1e6, clip_sample=False, **config
    )
    generator = torch.Generator().manual_seed(5)
    reference = theirs(network, scheduler, steps, vp(x, sigmas[0]), generator=generator)
    assert_agree(sample_lcm(denoise, x, sigmas, noise=noise_of(5)), reference)


def test_predictor_corrector(network, unit):
    # One sample, for theirs averages the norms of a batch; and their loop corrects at a level
    # before it predicts from it, ours after having predicted to it: the first correction is ours
    # to leave out, and their last step goes to 0.
    denoise, _ = ours(network, {**LINEAR, "prediction_type": "epsilon"})
    steps, x = 12, unit[:1] * 20.0
    scheduler: Any = ScoreSdeVeScheduler(sigma_min=0.1, sigma_max=20.0, snr=0.16)
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    sigmas = torch.cat([scheduler.sigmas, torch.zeros(1)])
    generator = torch.Generator().manual_seed(5)
    reference, clean = x, x
    for i, t in enumerate(scheduler.timesteps):
        sigma = sigmas[i].expand(1)
        if i:
            score = (denoise(reference, sigma) - reference) / sigma**2
            reference = scheduler.step_correct(
                score, reference, generator=generator, return_dict=False
            )[0]
        score = (denoise(reference, sigma) - reference) / sigma**2
        reference, clean = scheduler.step_pred(
            score, t, reference, generator=generator, return_dict=False
        )
    noise = noise_of(5, x.shape)
    assert_agree(sample_predictor_corrector(denoise, x, sigmas, noise=noise), clean)

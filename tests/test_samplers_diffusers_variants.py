"""The loops of diffusers again: in each of their spacings, by few and more steps, and for flows.

As in test_samplers_diffusers.py. Where their loop walks another grid than its own spacing, it is
left out: DDIM and DDPM step by 1000 // n, which is no step of "linspace".
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_deis_multistep import DEISMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_lcm import FlowMatchLCMScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete import (
    KDPM2AncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.guidance import plain
from shared.parameterization import flow
from shared.samplers import (
    sample_ddim,
    sample_ddpm,
    sample_deis,
    sample_dpm2,
    sample_dpm2_ancestral,
    sample_dpmpp_2m,
    sample_dpmpp_2m_sde,
    sample_euler,
    sample_euler_ancestral,
    sample_heun,
    sample_lcm,
    sample_lms,
    sample_unipc,
)
from shared.schedules import trained
from tests.diffusers_loops import (
    LINEAR,
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


@dataclass(frozen=True)
class Loop:
    """A loop of theirs and what it needs.

    ``own_grid``: it makes "linspace" and "leading" of n + 1 times, the last left out, so the grid
    is taken from it. ``vp_state``: it walks variance-preserving states.
    """

    sample: Callable[..., Tensor]
    scheduler: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    own_grid: bool = False
    vp_state: bool = False
    stochastic: bool = False


DDIM = {"clip_sample": False, "set_alpha_to_one": True}
TO_ZERO = {"final_sigmas_type": "zero"}
MULTISTEP = {"own_grid": True, "vp_state": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}
# It ends above 0, where the last step needs no lower order; theirs lowers it below 15 steps.
ALL_ORDERS = {"lower_order_final": False}

LOOPS = {
    "ddim": Loop(sample_ddim, DDIMScheduler, DDIM, vp_state=True),
    "ddpm": Loop(
        sample_ddpm, DDPMScheduler, {"clip_sample": False}, vp_state=True, stochastic=True
    ),
    "euler": Loop(sample_euler, EulerDiscreteScheduler),
    "euler ancestral": Loop(
        sample_euler_ancestral, EulerAncestralDiscreteScheduler, stochastic=True
    ),
    "heun": Loop(sample_heun, HeunDiscreteScheduler),
    "lms": Loop(sample_lms, LMSDiscreteScheduler),
    "dpm2": Loop(sample_dpm2, KDPM2DiscreteScheduler),
    "dpm2 ancestral": Loop(sample_dpm2_ancestral, KDPM2AncestralDiscreteScheduler, stochastic=True),
    "dpm++2m": Loop(sample_dpmpp_2m, DPMSolverMultistepScheduler, TO_ZERO, **MULTISTEP),
    "dpm++2m-sde": Loop(
        sample_dpmpp_2m_sde,
        DPMSolverMultistepScheduler,
        {**TO_ZERO, **SDE},
        **MULTISTEP,
        stochastic=True,
    ),
    "unipc": Loop(
        partial(sample_unipc, order=2), UniPCMultistepScheduler, {**TO_ZERO}, **MULTISTEP
    ),
    "deis": Loop(partial(sample_deis, order=2), DEISMultistepScheduler, ALL_ORDERS, **MULTISTEP),
}
# What divides 1000 in even steps, and 999 in "linspace", whose times then are those of both.
COUNTS = {"trailing": (4, 20), "leading": (4, 20), "linspace": (4, 28)}
PAIRS = [
    (name, spacing)
    for name in LOOPS
    for spacing in COUNTS
    if not (name in ("ddim", "ddpm") and spacing == "linspace")
]


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network()


@cache
def scheduler_of(name: str) -> Any:
    """Made once: some take a second."""
    return LOOPS[name].scheduler(**LOOPS[name].options, **LINEAR)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name, spacing", PAIRS)
def test_every_spacing(network: Network, name: str, spacing: str, prediction_type: str) -> None:
    loop, config = LOOPS[name], {**LINEAR, "prediction_type": prediction_type}
    denoise, schedule = ours(network, config)
    for steps in COUNTS[spacing]:
        scheduler = scheduler_of(name)
        scheduler.register_to_config(timestep_spacing=spacing, prediction_type=prediction_type)
        scheduler.set_timesteps(steps)
        sigmas = scheduler.sigmas if loop.own_grid else trained(steps, schedule, spacing)
        assert len(sigmas) == steps + 1
        x = unit_noise() * sigmas[0]
        begin = vp(x, sigmas[0]) if loop.vp_state else x
        drawn = {"generator": torch.Generator().manual_seed(5)} if loop.stochastic else {}
        reference = theirs(network, scheduler, steps, begin, **drawn)
        found = loop.sample(denoise, x, sigmas, noise=noise_of(5))
        assert_agree(vp(found, sigmas[-1]), reference)


# Flows. Their state is (1 - t) x0 + t noise, here times 1 + sigma, and their sigma is t.


def flow_denoiser(network: nn.Module) -> DenoiseFn:
    return plain(Denoiser(network, flow()), Conditioning())


def their_flow(network: nn.Module, scheduler: Any, x: Tensor, **step_arguments: Any) -> Tensor:
    """The loop of a pipeline, which tells the network t itself and not its rounding."""
    for time, t in zip(scheduler.sigmas.tolist(), scheduler.timesteps, strict=False):
        output = network(x, torch.full((len(x),), time), Conditioning())
        x = scheduler.step(output, t, x, **step_arguments, return_dict=False)[0]
    return x


def levels(t: Tensor) -> Tensor:
    return (t.double() / (1 - t.double())).float()


FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
FLOW_LOOPS = {
    "dpm++2m": Loop(sample_dpmpp_2m, DPMSolverMultistepScheduler, TO_ZERO),
    "dpm++2m-sde": Loop(
        sample_dpmpp_2m_sde, DPMSolverMultistepScheduler, {**TO_ZERO, **SDE}, stochastic=True
    ),
    **{
        f"unipc {order}": Loop(
            partial(sample_unipc, order=order),
            UniPCMultistepScheduler,
            {**TO_ZERO, "solver_order": order},
        )
        for order in (1, 2, 3)
    },
    "deis": Loop(partial(sample_deis, order=2), DEISMultistepScheduler, ALL_ORDERS),
}


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", FLOW_LOOPS)
def test_multistep_methods_of_a_flow(network: Network, name: str, shift: float) -> None:
    loop = FLOW_LOOPS[name]
    for steps in (5, 20):
        scheduler = loop.scheduler(flow_shift=shift, **FLOW, **loop.options)
        scheduler.set_timesteps(steps)
        if scheduler.sigmas[-1] > 0:  # DEIS: its last step stays where it is
            scheduler.sigmas, scheduler.timesteps = scheduler.sigmas[:-1], scheduler.timesteps[:-1]
        sigmas = levels(scheduler.sigmas)
        drawn = {"generator": torch.Generator().manual_seed(5)} if loop.stochastic else {}
        unit = unit_noise()
        reference = their_flow(network, scheduler, unit * scheduler.sigmas[0], **drawn)
        x = unit * sigmas[0]
        found = loop.sample(flow_denoiser(network), x, sigmas, noise=noise_of(5))
        assert_agree(found / (1 + sigmas[-1]), reference)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 28])
def test_euler_and_lcm_of_a_flow(network: Network, steps: int, shift: float) -> None:
    times = np.linspace(0.99, 1 / steps if steps > 1 else 0.99, steps).tolist()
    unit = unit_noise()
    for sample, kind in (
        (sample_euler, FlowMatchEulerDiscreteScheduler),
        (sample_lcm, FlowMatchLCMScheduler),
    ):
        scheduler: Any = kind(shift=shift)
        scheduler.set_timesteps(sigmas=times)
        sigmas = levels(scheduler.sigmas)
        generator = torch.Generator().manual_seed(5)
        reference = their_flow(network, scheduler, unit * scheduler.sigmas[0], generator=generator)
        x = unit * sigmas[0]
        assert_agree(sample(flow_denoiser(network), x, sigmas, noise=noise_of(5)), reference)


def test_heun_in_a_flow_s_time_is_another_method_of_the_same_order(network: Network) -> None:
    # Theirs is Heun's method in t for the flow's state, ours in sigma for x, as EDM has it; the
    # average of two slopes is not the same in both. The solution is, and so is the order.
    unit, apart = unit_noise(), []
    for steps in (16, 32, 64):
        scheduler: Any = FlowMatchHeunDiscreteScheduler()
        scheduler.sigma_max, scheduler.sigma_min = 0.8, 0.2
        scheduler.set_timesteps(steps)
        # All but the step to 0, which is Euler's in both and of first order.
        t = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1:-1:2]])
        scheduler.timesteps = scheduler.timesteps[:-1]
        reference = their_flow(network, scheduler, unit * t[0])
        sigmas = levels(t)
        found = sample_heun(flow_denoiser(network), unit * sigmas[0], sigmas)
        apart.append((found / (1 + sigmas[-1]) - reference).abs().max().item())
    assert apart[0] > 1e-5
    assert apart[0] / apart[1] == pytest.approx(4, rel=0.3)
    assert apart[1] / apart[2] == pytest.approx(4, rel=0.3)

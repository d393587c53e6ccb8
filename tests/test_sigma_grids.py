"""Sigma grids against diffusers, against their formulas, and as a table.

Where the references disagree, in words:

* "linspace": diffusers' DDIM rounds times to trained levels, which is followed; its Euler scheduler
  interpolates sigma linearly between them, and DPMSolverMultistep takes n + 1 times and leaves out
  the cleanest. The latter is "sgm-uniform" here, but rounded.
* "trailing": at some numbers of steps, 61 among them, diffusers makes one more, at time -1.
* "sgm-uniform": ComfyUI keeps fractions of times, which is followed; generative-models cuts them.
* "beta": the paper and ComfyUI spread times; diffusers spreads sigmas, here "beta-sigma". ComfyUI
  rounds the times and drops repeated ones, so that it may make fewer steps than it was asked for.
* "ays": for n steps n + 1 levels are interpolated, the last then 0, as in NVIDIA's own guide and
  diffusers' tables; stable-diffusion-webui interpolates n and puts the 0 after them.
* "flow": Stable Diffusion 3 and diffusers shift the clean end twice; Flux takes n even steps to 0.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_utils import AysSchedules
from scipy import stats
from torch import Tensor

from shared.errors import UserError
from shared.schedules import (
    SCHEDULES,
    SPACINGS,
    NoiseSchedule,
    beta,
    linear_betas,
    make_sigmas,
    schedule_from_config,
    sgm_uniform,
    trained,
)
from shared.sigma_grids import (
    AYS_TABLES,
    align_your_steps,
    beta_quantiles,
    beta_sigma,
    exponential,
    flow,
    karras,
    poly_exponential,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULE = schedule_from_config(STABLE_DIFFUSION)
STEPS = [1, 2, 3, 7, 10, 25, 50, 112, 1000]
NAMES = Path(__file__).resolve().parent.parent / "docs" / "samplers.md"


def same_levels(theirs) -> NoiseSchedule:
    """A schedule of their own float32 alphas_cumprod: its rounding is not what is compared."""
    return NoiseSchedule(theirs.alphas_cumprod.double())


def agree(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("config", [STABLE_DIFFUSION, {}], ids=["scaled_linear", "linear"])
@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize("spacing, offset", [("trailing", 0), ("leading", 0), ("leading", 1)])
def test_trained_levels_are_the_sigmas_of_diffusers(spacing, offset, n, config):
    if (n, offset) == (1000, 1):
        pytest.skip("the offset leaves the trained levels")
    theirs = EulerDiscreteScheduler(timestep_spacing=spacing, steps_offset=offset, **config)
    theirs.set_timesteps(n)
    agree(trained(n, same_levels(theirs), spacing, offset), theirs.sigmas)


def test_trailing_times_are_those_of_diffusers_for_every_number_of_steps():
    theirs = DDIMScheduler(timestep_spacing="trailing")
    longer = 0
    for n in range(1, 1001):
        theirs.set_timesteps(n)
        longer += len(theirs.timesteps) > n
        assert torch.equal(SPACINGS["trailing"](n, 1000), theirs.timesteps[:n])
    assert 0 < longer < 100  # their time -1, where numpy's last number is just above 0


@pytest.mark.parametrize("n", [2, 4, 10, 28, 112, 1000])  # n - 1 divides 999: nothing to round
def test_linspace_levels_are_the_sigmas_of_diffusers_euler(n):
    theirs = EulerDiscreteScheduler(timestep_spacing="linspace", **STABLE_DIFFUSION)
    theirs.set_timesteps(n)
    agree(trained(n, same_levels(theirs), "linspace"), theirs.sigmas)


@pytest.mark.parametrize("n", [3, 7, 25, 50])
def test_linspace_levels_are_those_of_diffusers_ddim(n):
    theirs = DDIMScheduler(timestep_spacing="linspace", **STABLE_DIFFUSION)
    theirs.set_timesteps(n)
    schedule = same_levels(theirs)
    agree(trained(n, schedule, "linspace")[:-1], schedule.sigmas[theirs.timesteps].float())


@pytest.mark.parametrize("config", [STABLE_DIFFUSION, {}], ids=["scaled_linear", "linear"])
@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize("name", ["karras", "exponential", "beta-sigma"])
def test_grids_over_the_range_are_the_sigmas_of_diffusers(name, n, config):
    theirs = EulerDiscreteScheduler(
        use_karras_sigmas=name == "karras",
        use_exponential_sigmas=name == "exponential",
        use_beta_sigmas=name == "beta-sigma",
        timestep_spacing="trailing" if n == 1 else "linspace",  # a single linspace is clean
        **config,
    )
    theirs.set_timesteps(n)
    agree(make_sigmas(name, n, same_levels(theirs)), theirs.sigmas)


@pytest.mark.parametrize("n", STEPS)
def test_rounded_sgm_uniform_times_are_those_of_diffusers_dpm_solver(n):
    theirs = DPMSolverMultistepScheduler(timestep_spacing="linspace", **STABLE_DIFFUSION)
    theirs.set_timesteps(n)
    times = SCHEDULE.sigma_to_t(sgm_uniform(n, SCHEDULE)[:-1].double())
    assert (times - theirs.timesteps).abs().max() < 0.501
    # Even, between the levels too, and a step short of the cleanest.
    expected = 999 - 999 / n * torch.arange(n)
    torch.testing.assert_close(times, expected.double(), rtol=0, atol=1e-2)


@pytest.mark.parametrize("shift", [1.0, 3.0, 1.15])
@pytest.mark.parametrize("n", [2, 3, 7, 10, 28, 50, 1000])
def test_flow_grids_are_those_of_diffusers(n, shift):
    theirs: Any = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(n)
    # Theirs end where 1 / 1000 is after two shifts, each a factor in this coordinate.
    sigmas = flow(n, sigma_min=shift**2 / 999, shift=shift)
    t = sigmas.double() / (1 + sigmas.double())
    assert theirs.sigmas[0] == 1 and 999 <= sigmas[0] < math.inf
    torch.testing.assert_close(t[1:].float(), theirs.sigmas[1:], rtol=1e-5, atol=0)

    theirs.set_timesteps(sigmas=np.linspace(1, 1 / n, n).tolist())  # as Flux's pipeline does
    sigmas = flow(n, sigma_min=shift / (n - 1), shift=shift).double()
    torch.testing.assert_close(
        (sigmas / (1 + sigmas))[1:].float(), theirs.sigmas[1:], rtol=1e-5, atol=0
    )


def test_a_flow_s_pure_noise_is_lowered_to_where_numbers_end():
    assert flow(1, 0.01)[0] == 999
    fine = flow(5000, 0.01, shift=3.0)
    assert fine[0].isfinite() and (fine.diff() < 0).all()


def test_shift_is_a_factor_of_sigma():
    torch.testing.assert_close(flow(20, 0.06, 9.0, shift=3.0), 3 * flow(20, 0.02, 3.0))


def test_poly_exponential_is_the_formula():
    i = np.arange(6)
    formula = np.exp(((5 - i) / 5) ** 1.7 * (math.log(20) - math.log(0.05)) + math.log(0.05))
    sigmas = poly_exponential(6, 0.05, 20.0, rho=1.7)
    np.testing.assert_allclose(sigmas[:-1].numpy(), formula, rtol=1e-6)
    torch.testing.assert_close(poly_exponential(9, 0.05, 20.0), exponential(9, 0.05, 20.0))


@pytest.mark.parametrize("a, b", [(0.6, 0.6), (1.0, 1.0), (2.0, 0.5)])
def test_beta_quantiles_are_those_of_the_distribution(a, b):
    shares = beta_quantiles(25, a, b)
    np.testing.assert_allclose(shares.numpy(), stats.beta.ppf(np.linspace(1, 0, 25), a, b), 1e-9)
    np.testing.assert_allclose(stats.beta.cdf(shares.numpy(), a, b), np.linspace(1, 0, 25), 1e-6)


def test_beta_spreads_the_trained_times():
    times = SCHEDULE.sigma_to_t(beta(25, SCHEDULE)[:-1].double())
    expected = 999 * stats.beta.ppf(np.linspace(1, 0, 25), 0.6, 0.6)
    np.testing.assert_allclose(times.numpy(), expected, rtol=0, atol=1e-2)
    # Flat, it is linspace without rounding, and sgm-uniform with the cleanest level.
    flat = beta(25, SCHEDULE, a=1.0, b=1.0)[:-1]
    torch.testing.assert_close(flat[:-1], sgm_uniform(24, SCHEDULE)[:-1])
    even = beta_sigma(5, 1.0, 5.0, 1.0, 1.0)
    torch.testing.assert_close(even, torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.0]))


@pytest.mark.parametrize(
    "table, name",
    [
        ("sd15", "StableDiffusionSigmas"),
        ("sdxl", "StableDiffusionXLSigmas"),
        ("svd", "StableDiffusionVideoSigmas"),
    ],
)
def test_ten_aligned_steps_are_the_published_ones(table, name):
    agree(align_your_steps(10, table=table), torch.tensor(AysSchedules[name]))


@pytest.mark.parametrize("n", [1, 4, 20, 33])
@pytest.mark.parametrize("table", AYS_TABLES)
def test_aligned_steps_are_interpolated_in_log_sigma(table, n):
    levels = np.log(AYS_TABLES[table])
    expected = np.exp(np.interp(np.linspace(0, 10, n + 1), np.arange(11), levels))
    expected[-1] = 0
    np.testing.assert_allclose(align_your_steps(n, table=table).numpy(), expected, rtol=1e-6)


def test_aligned_steps_stretch_to_another_range():
    published, stretched = align_your_steps(10), align_your_steps(10, 0.01, 160.0)
    assert stretched[0] == 160
    ratios = (stretched[:-1] / 0.01).log() / (published[:-1] / 0.029).log()
    torch.testing.assert_close(ratios, ratios[:1].expand(10))
    # Stable Diffusion's own range is the table's, to its three digits.
    torch.testing.assert_close(make_sigmas("ays-sd15", 10, SCHEDULE), published, rtol=7e-3, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 25, 1000])
def test_every_grid_descends_to_zero_within_the_trained_range(name, steps):
    for schedule in (SCHEDULE, NoiseSchedule.from_betas(linear_betas())):
        sigmas = make_sigmas(name, steps, schedule)
        assert sigmas.shape == (steps + 1,) and sigmas.dtype == torch.float32
        assert (sigmas.diff() < 0).all() and sigmas[-1] == 0
        assert sigmas[-2] >= schedule.sigma_min * (1 - 1e-6)
        if name == "leading":
            assert SCHEDULE.sigma_to_t(sigmas[-2]) <= 1000 // steps
        else:
            assert sigmas[0] == pytest.approx(schedule.sigma_max, rel=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_grid_says_what_it_is(name):
    assert f"| `{name}` |" in NAMES.read_text(encoding="utf-8")
    grid = SCHEDULES[name]
    assert 10 < len(grid.summary) < 80 and "\n" not in grid.summary and grid.paper


def test_no_two_grids_are_the_same_but_trained_and_trailing():
    grids = {name: make_sigmas(name, 20, SCHEDULE) for name in SCHEDULES}
    same = [
        (one, other)
        for one in grids
        for other in grids
        if one < other and torch.allclose(grids[one], grids[other], rtol=1e-3)
    ]
    assert same == [("trailing", "trained")] or same == [("trained", "trailing")]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: make_sigmas("sgm-unifrom", 5, SCHEDULE), "did you mean 'sgm-uniform'"),
        (lambda: make_sigmas("leading", 1001, SCHEDULE), "between 1 and 1000.*not 1001"),
        (lambda: sgm_uniform(0, SCHEDULE), "between 1 and 10000, not 0"),
        (lambda: beta_quantiles(5, 0.0, 1.0), "must be above 0, not 0.0 and 1.0"),
        (lambda: beta_sigma(5, 2.0, 1.0), "0 < sigma_min <= sigma_max"),
        (lambda: poly_exponential(5, 0.1, 1.0, rho=-1.0), "rho .* above 0, not -1"),
        (lambda: align_your_steps(5, table="sd3"), "unknown align-your-steps table 'sd3'"),
        (lambda: align_your_steps(5, 20.0), "0 < sigma_min <= sigma_max, not 20.0 and 14.615"),
        (lambda: flow(5, 0.1, shift=0.0), "shift .* above 0, not 0"),
        (lambda: flow(5, 0.0), "0 < sigma_min"),
        (lambda: karras(10_001, 0.1, 1.0), "between 1 and 10000, not 10001"),
    ],
)
def test_impossible_grids_are_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)

"""How fast samplers converge: to the exact flow, and to the exact distribution."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from shared.samplers import (
    SAMPLERS,
    RestartInterval,
    SamplerFn,
    invert_ddim,
    sample_ddim,
    sample_ddpm,
    sample_deis,
    sample_dpm2_ancestral,
    sample_dpmpp_2m_sde,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
    sample_euler_ancestral,
    sample_heun,
    sample_lms,
    sample_plms,
    sample_predictor_corrector,
    sample_restart,
    sample_unipc,
)
from shared.schedules import exponential, karras
from tests.analytic import fine_flow, gaussian_flow, single_gaussian, three_modes
from tests.walks import DETERMINISTIC, HIGH, LOW, exact_variance, gentle_grid, grid, start

UP_TO_SECOND = [name for name in DETERMINISTIC if SAMPLERS[name].order in (1, 2)]


def observed(errors: Sequence[float | Tensor]) -> list[float]:
    """The order that errors show, each with twice the steps of the one before."""
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


def root_mean_square(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


@pytest.fixture(scope="module")
def exact() -> Tensor:
    return fine_flow(three_modes().denoise, start(), grid(400))


@pytest.mark.parametrize("kind", [exponential, karras])
@pytest.mark.parametrize("name", UP_TO_SECOND)
def test_converges_to_the_exact_flow_with_its_order(name, kind, exact):
    sampler, mixture = SAMPLERS[name], three_modes()
    errors = [
        root_mean_square(sampler.function(mixture.denoise, start(), grid(n, kind)) - exact)
        for n in (40, 80, 160)
    ]
    assert observed(errors) == pytest.approx([sampler.order] * 2, abs=0.1)
    assert errors[-1] < (1e-2 if sampler.order == 1 else 1e-3)


# Multistep methods of other orders than the table's, and the stochastic ones without their noise.
MORE: dict[str, tuple[SamplerFn, int]] = {
    "lms 2": (partial(sample_lms, order=2), 2),
    "lms 3": (partial(sample_lms, order=3), 3),
    "deis 2": (partial(sample_deis, order=2), 2),
    "unipc 1": (partial(sample_unipc, order=1), 2),
    "unipc 3": (partial(sample_unipc, order=3), 4),
    "3m eta 0": (partial(sample_dpmpp_3m_sde, eta=0.0), 3),
}
HIGHER = {
    name: (SAMPLERS[name].function, SAMPLERS[name].order) for name in ("lms", "deis", "unipc")
}


@pytest.mark.parametrize(
    ("sample", "order"), [*HIGHER.values(), *MORE.values()], ids=[*HIGHER, *MORE]
)
def test_higher_orders_show_once_the_beginning_weighs_nothing(sample, order, exact):
    mixture = three_modes()
    errors = [
        root_mean_square(sample(mixture.denoise, start(), gentle_grid(n)) - exact)
        for n in (80, 160)
    ]
    assert observed(errors)[0] == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", HIGHER)
def test_higher_orders_pay_on_the_grids_in_use(name, exact):
    denoise = three_modes().denoise
    error = root_mean_square(SAMPLERS[name].function(denoise, start(), grid(40, karras)) - exact)
    second = root_mean_square(
        SAMPLERS["dpm++2m"].function(denoise, start(), grid(40, karras)) - exact
    )
    assert error < second / 4


def test_plms_is_of_fourth_order_where_the_steps_are_even():
    # Between levels at which the flow bends, since a grid even in sigma cannot span decades.
    mixture, x = three_modes(), start(64, 1.0)

    def even(n: int) -> Tensor:
        return torch.linspace(1.0, 0.2, n + 1, dtype=torch.float64)

    exact = fine_flow(mixture.denoise, x, even(400))
    lms = sample_lms(mixture.denoise, x, even(160))
    plms = sample_plms(mixture.denoise, x, even(160))
    # Heun's first step leaves an error of order 3, Euler's one of order 2.
    assert root_mean_square(plms - exact) < root_mean_square(lms - exact) / 10
    errors = [root_mean_square(sample_plms(mixture.denoise, x, even(n)) - exact) for n in (40, 80)]
    assert observed(errors)[0] > 2.7


@pytest.mark.parametrize("name", [name for name in DETERMINISTIC if SAMPLERS[name].order])
def test_reaches_sigma_zero_where_the_closed_solution_is(name):
    gaussian, sampler = single_gaussian(), SAMPLERS[name]
    x = start(sigma=80.0)
    exact = gaussian_flow(gaussian, x, 80.0, 0.0)
    errors = []
    for n in (50, 200):
        x0 = sampler.function(gaussian.denoise, x, karras(n, 0.002, 80.0).double())
        errors.append((x0 - exact).abs().max())
    assert errors[1] < (4e-2 if sampler.order == 1 else 1e-3)
    assert errors[1] < errors[0] / 3


def test_the_reference_itself_is_exact():
    gaussian = single_gaussian()
    flow = gaussian_flow(gaussian, start(), HIGH, LOW)
    torch.testing.assert_close(fine_flow(gaussian.denoise, start(), grid(400)), flow)


# Stochastic samplers: the variance that they give a Gaussian, found exactly, against its own.
def in_distribution(n: int) -> dict[str, SamplerFn]:
    """Samplers for a run of n steps."""
    restarts = (RestartInterval(0.1, 0.4, n // 8, 2), RestartInterval(0.5, 2.0, n // 8, 1))
    return {
        "ddpm": sample_ddpm,
        "ddpm large": partial(sample_ddpm, variance="large"),
        "ddim eta .5": partial(sample_ddim, eta=0.5),
        "euler ancestral": sample_euler_ancestral,
        "reverse diffusion": partial(sample_predictor_corrector, corrections=0),
        "dpm2 ancestral": sample_dpm2_ancestral,
        "2s ancestral": sample_dpmpp_2s_ancestral,
        "2s ancestral eta .5": partial(sample_dpmpp_2s_ancestral, eta=0.5),
        "sde": sample_dpmpp_sde,
        "sde eta .5": partial(sample_dpmpp_sde, eta=0.5),
        "2m sde": sample_dpmpp_2m_sde,
        "2m sde eta .5": partial(sample_dpmpp_2m_sde, eta=0.5),
        "3m sde": sample_dpmpp_3m_sde,
        "3m sde eta .5": partial(sample_dpmpp_3m_sde, eta=0.5),
        "restart": partial(sample_restart, restarts=restarts),
    }


FIRST = ("ddpm", "ddpm large", "ddim eta .5", "euler ancestral", "reverse diffusion")


@pytest.mark.parametrize("name", in_distribution(8))
def test_stochastic_samplers_converge_in_distribution_with_their_order(name):
    right = single_gaussian().stds[0].item() ** 2 + LOW**2
    errors = [
        abs(exact_variance(in_distribution(n)[name], grid(n), 2 * n + 3) / right - 1)
        for n in (40, 80, 160)
    ]
    assert observed(errors) == pytest.approx([1 if name in FIRST else 2] * 2, abs=0.25)
    assert errors[-1] < (0.05 if name in FIRST else 1e-3)


# Inversion: up the grid and down again.
@pytest.mark.parametrize("lowest", [LOW, 0.0])
def test_inversion_returns_to_the_start_the_nearer_the_more_steps(lowest):
    mixture = three_modes()
    generator = torch.Generator().manual_seed(2)
    # The mixture's middle component: clean signals.
    x0 = mixture.means[1] + 0.5 * torch.randn(64, 1, 1, 2, generator=generator, dtype=torch.float64)
    errors = []
    for n in (50, 100, 200):
        sigmas = grid(n) if lowest else torch.cat([grid(n), torch.zeros(1, dtype=torch.float64)])
        noise = invert_ddim(mixture.denoise, x0, sigmas)
        errors.append(root_mean_square(sample_ddim(mixture.denoise, noise, sigmas) - x0))
    assert observed(errors) == pytest.approx([1, 1], abs=0.3)
    assert errors[-1] < 0.03


def test_inversion_finds_the_noise_that_the_exact_flow_finds():
    gaussian = single_gaussian()
    x = start(64)
    x0 = gaussian_flow(gaussian, x, HIGH, LOW)
    errors = [
        (invert_ddim(gaussian.denoise, x0, grid(n)) - x).abs().max() / HIGH for n in (100, 200)
    ]
    assert observed(errors)[0] == pytest.approx(1, abs=0.1)
    assert errors[1] < 0.05


def test_inversion_tells_its_steps_from_the_end():
    mixture, sigmas = three_modes(), torch.tensor([HIGH, 1.0, 0.0])
    seen: list[tuple[int, float]] = []

    def callback(step: int, x: Tensor, sigma: float, denoised: Tensor) -> None:
        seen.append((step, sigma))
        torch.testing.assert_close(denoised, mixture.denoise(x, torch.full((2,), sigma)))

    invert_ddim(mixture.denoise, start(2, 1.0), sigmas, callback=callback)
    assert seen == [(0, 1.0), (1, 1.0)]


def test_restarts_forget_errors():
    # Few steps from far up, then few restarts: nearer the right variance than without.
    right = single_gaussian().stds[0].item() ** 2 + LOW**2
    interval = RestartInterval(0.1, 1.0, 6, 4)
    errors = [
        abs(exact_variance(partial(sample, **more), grid(10), 8) / right - 1)
        for sample, more in ((sample_heun, {}), (sample_restart, {"restarts": (interval,)}))
    ]
    assert errors[1] < errors[0] / 2

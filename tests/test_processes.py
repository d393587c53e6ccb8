"""Forward processes: their coefficients, their discretisation, and the way back, exactly."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from shared.errors import UserError
from shared.processes import (
    PROCESSES,
    NoiseRate,
    Process,
    cosine_rate,
    linear_rate,
    noised,
    reverse_drift,
    scaled_linear_rate,
    score,
    sigmoid_rate,
    simulate,
    simulate_reverse,
    straight_flow,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
    zero_terminal_snr_rate,
)
from shared.schedules import BETA_SCHEDULES, NoiseSchedule, rescale_zero_terminal_snr
from shared.sigma_grids import exponential, karras
from tests.analytic import gaussian_flow, single_gaussian, three_modes

RATES: dict[str, NoiseRate] = {
    "linear": linear_rate(),
    "scaled_linear": scaled_linear_rate(),
    "squaredcos_cap_v2": cosine_rate(),
    "sigmoid": sigmoid_rate(),
}
ALL: dict[str, Process] = {
    **{name: process() for name, process in PROCESSES.items()},
    **{f"vp {name}": variance_preserving(rate) for name, rate in RATES.items()},
    **{f"sub-vp {name}": sub_variance_preserving(rate) for name, rate in RATES.items()},
    "vp zero snr": variance_preserving(zero_terminal_snr_rate(scaled_linear_rate())),
}
T = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)


def noise(step: int, n: int = 2048) -> Tensor:
    return torch.randn(n, 1, 1, 2, generator=torch.Generator().manual_seed(step)).double()


def derivative(function, t: Tensor) -> Tensor:
    t = t.clone().requires_grad_()
    return torch.autograd.grad(function(t).sum(), t)[0]


@pytest.mark.parametrize("name", ALL)
def test_drift_and_diffusion_are_those_of_scale_and_sigma(name):
    process = ALL[name]
    scale = process.scale(T)
    if name != "ve":  # whose scale is a constant, without a gradient
        torch.testing.assert_close(process.drift(T), derivative(process.scale, T) / scale)
    else:
        assert (scale == 1).all() and (process.drift(T) == 0).all()
    variance_rate = derivative(lambda t: process.sigma(t).square(), T)
    torch.testing.assert_close(process.diffusion(T).square(), scale.square() * variance_rate)
    torch.testing.assert_close(process.std(T), scale * process.sigma(T))


@pytest.mark.parametrize("name", RATES)
def test_the_variances_are_those_that_the_names_promise(name):
    vp, sub_vp = variance_preserving(RATES[name]), sub_variance_preserving(RATES[name])
    torch.testing.assert_close(vp.scale(T).square() + vp.std(T).square(), torch.ones_like(T))
    torch.testing.assert_close(sub_vp.std(T), 1 - sub_vp.scale(T).square())
    torch.testing.assert_close(sub_vp.std(T), vp.std(T).square())
    assert (sub_vp.std(T) < vp.std(T)).all()


def test_all_start_at_the_data_and_end_in_noise():
    start, end = torch.zeros(1).double(), torch.ones(1).double()
    assert all(ALL[name].sigma(start).item() < 1e-7 for name in ALL if name != "ve")
    assert ALL["ve"].sigma(start).item() == 0.01
    assert ALL["ve"].sigma(end).item() == pytest.approx(50)
    assert ALL["vp"].scale(end).item() == pytest.approx(math.exp(-10.05 / 2))
    assert ALL["vp zero snr"].scale(end).item() == 0 and ALL["flow"].scale(end).item() == 0


def discretisation_error(name: str, n: int, zero_snr: bool = False) -> float:
    """The largest error of alphas_cumprod, n betas against the process with the same rate."""
    ends = (0.85, 12.0) if name == "scaled_linear" else (0.1, 20.0)
    schedule = NoiseSchedule.from_betas(BETA_SCHEDULES[name](n, ends[0] / n, ends[1] / n))
    rate = RATES[name]
    if zero_snr:
        schedule, rate = rescale_zero_terminal_snr(schedule), zero_terminal_snr_rate(rate)
    t = torch.arange(1, n + 1, dtype=torch.float64) / n
    exact = variance_preserving(rate).scale(t).square()
    return (schedule.alphas_cumprod - exact)[:-1].abs().max().item()


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "sigmoid"])
def test_the_discrete_schedules_tend_to_the_process_with_order_one(name, zero_snr):
    errors = [discretisation_error(name, n, zero_snr) for n in (500, 1000, 2000, 4000)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(1, abs=0.03)
    assert errors[1] < 5e-3


def test_the_discrete_cosine_schedule_is_the_process_but_for_its_capped_end():
    assert discretisation_error("squaredcos_cap_v2", 1000) < 1e-14


def test_even_times_of_the_exploding_process_are_the_levels_of_ncsn():
    times = torch.linspace(1, 0, 12, dtype=torch.float64)
    levels = variance_exploding(0.01, 50.0).sigma(times)
    torch.testing.assert_close(levels.float(), exponential(12, 0.01, 50.0)[:-1])


@pytest.mark.parametrize("name", ALL)
def test_time_is_the_inverse_of_sigma(name):
    process = ALL[name]
    torch.testing.assert_close(process.time(process.sigma(T)), T, rtol=1e-9, atol=1e-12)
    assert process.time(torch.zeros(2, 3)).max() < 1e-15
    assert process.time(torch.tensor(math.inf)) == 1


@pytest.mark.parametrize("name", ALL)
def test_score_is_the_gradient_of_the_log_density(name):
    process, mixture = ALL[name], three_modes()
    for t in (0.1, 0.5, 0.9):
        now = torch.tensor(t, dtype=torch.float64)
        state = noised(process, noise(0, 8), noise(1, 8), t).requires_grad_()
        # The density of state / scale differs from the state's by a constant factor.
        sigma = process.sigma(now).expand(8)
        density = mixture.log_density(state / process.scale(now), sigma).sum()
        expected = torch.autograd.grad(density, state)[0]
        found = score(process, mixture.denoise, state.detach(), t)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_the_ode_drift_follows_the_closed_flow(name):
    process, gaussian, x = ALL[name], single_gaussian(), noise(0, 8)

    def along(t: float) -> Tensor:
        now = torch.tensor(t, dtype=torch.float64)
        moved = gaussian_flow(gaussian, x, 1.0, process.sigma(now).item())
        return process.scale(now) * moved

    h = 1e-5
    for t in (0.1, 0.5, 0.9):
        slope = (along(t + h) - along(t - h)) / (2 * h)
        drift = reverse_drift(process, gaussian.denoise, along(t), t, stochasticity=0.0)
        torch.testing.assert_close(drift, slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("stochasticity", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", PROCESSES)
def test_any_stochasticity_keeps_a_gaussian_s_variance(name, stochasticity):
    """Of a linear drift d the variance goes by V' = 2 d V - stochasticity^2 diffusion^2."""
    process, gaussian = ALL[name], single_gaussian()
    std = gaussian.stds[0]

    def variance(t: Tensor) -> Tensor:
        return (process.scale(t) * std).square() + process.std(t).square()

    for t in T[::6].tolist():
        now = torch.tensor(t, dtype=torch.float64)
        states = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double().reshape(2, 1, 1, 2)
        drifts = reverse_drift(process, gaussian.denoise, states, t, stochasticity=stochasticity)
        slope = (drifts[1] - drifts[0]).flatten()
        change = 2 * slope * variance(now) - (stochasticity * process.diffusion(now)).square()
        torch.testing.assert_close(change, derivative(variance, now).expand(2), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", PROCESSES)
def test_forward_simulation_reaches_the_marginal(name):
    process = ALL[name]
    x0 = torch.tensor([1.5, -0.5]).double().reshape(1, 1, 1, 2).expand(2048, 1, 1, 2)
    start, end = 0.1, 0.8
    # The closed draw at the start, so that the exploding process has its first noise.
    times = torch.linspace(start, end, 101, dtype=torch.float64)
    state = simulate(process, noised(process, x0, noise(999), start), times, noise)
    now = torch.tensor(end, dtype=torch.float64)
    std = process.std(now).item()
    error = state - process.scale(now) * x0
    assert error.mean((0, 1, 2)).abs().max().item() < 4 * std / 45 + 0.01
    assert error.std().item() == pytest.approx(std, rel=0.04)


def test_forward_simulation_converges_with_order_one():
    """Without noise, to the exact mean."""
    process, x0 = variance_preserving(), noise(0, 2)
    errors = []
    for n in (100, 200, 400):
        times = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        state = simulate(process, x0, times, lambda step: torch.zeros(2, 1, 1, 2))
        errors.append((state - process.scale(times[-1]) * x0).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.1)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "name, stochasticity", [*((name, 1.0) for name in PROCESSES), ("vp", 0.5), ("flow", 0.0)]
)
def test_reverse_simulation_gives_the_mixture(name, stochasticity):
    process, mixture = ALL[name], three_modes()
    times = process.time(karras(200, 0.03, 40.0)[:-1])
    start = noised(process, torch.zeros(2048, 1, 1, 2).double(), noise(999), times[0].item())
    state = simulate_reverse(
        process, mixture.denoise, start, times, noise, stochasticity=stochasticity
    )
    x = (state / process.scale(times[-1])).flatten(1)
    # Some three standard errors, and the bias of 200 steps.
    assert (x.mean(0) - mixture.mean()).abs().max() < 0.06
    torch.testing.assert_close(x.T.cov(), mixture.covariance(), rtol=0, atol=0.08)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: simulate(straight_flow(), x, torch.tensor([0.5, 0.2]), noise), "ascending"),
        (lambda x: simulate(straight_flow(), x, torch.tensor([0.5, 1.2]), noise), "from 0 to 1"),
        (lambda x: simulate(straight_flow(), x, torch.tensor([0.5]), noise), "at least two"),
        (
            lambda x: simulate_reverse(
                straight_flow(), three_modes().denoise, x, torch.tensor([0.1, 0.2]), noise
            ),
            "descending",
        ),
        (lambda x: variance_exploding(2.0, 1.0), "0 < sigma_min < sigma_max, not 2.0 and 1.0"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call(torch.zeros(1, 1, 1, 2))

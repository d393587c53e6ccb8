"""The adaptive sampler: scipy's solver where that can be compared, each sample by itself."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from shared.errors import UserError
from shared.samplers import sample_adaptive
from shared.schedules import karras
from tests.analytic import gaussian_flow, single_gaussian, three_modes
from tests.walks import HIGH, LOW, grid, start


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_one_sample_is_solved_step_for_step_as_by_scipy(tolerance: float) -> None:
    mixture, sigmas = three_modes(), grid(5)
    for one in start(3).split(1):
        called = []

        def denoise(state: Tensor, sigma: Tensor, called=called) -> Tensor:
            called.append(sigma.item())
            return mixture.denoise(state, sigma)

        found = sample_adaptive(denoise, one, sigmas, rtol=tolerance, atol=tolerance)

        def slope(u: float, flat) -> Tensor:
            state = torch.from_numpy(flat.copy()).view(1, 1, 1, 2)
            sigma = torch.tensor([math.exp(u)], dtype=torch.float64)
            return (state - mixture.denoise(state, sigma)).flatten()

        ends = (math.log(sigmas[0]), math.log(sigmas[-1]))
        expected = solve_ivp(slope, ends, one.flatten().numpy(), rtol=tolerance, atol=tolerance)
        assert len(called) == expected.nfev
        torch.testing.assert_close(found.flatten(), torch.from_numpy(expected.y[:, -1]))
        assert called[0] == pytest.approx(HIGH) and min(called) == pytest.approx(LOW)


def test_the_error_follows_the_tolerance_to_sigma_zero() -> None:
    gaussian, x = single_gaussian(), start(64, sigma=80.0)
    exact = gaussian_flow(gaussian, x, 80.0, 0.0)
    sigmas = karras(2, 1e-4, 80.0).double()
    for tolerance in (1e-2, 1e-4, 1e-6):
        x0 = sample_adaptive(gaussian.denoise, x, sigmas, rtol=tolerance, atol=tolerance)
        assert (x0 - exact).abs().max() < 10 * tolerance


def test_steps_between_are_not_its_own() -> None:
    """As many steps as one likes cost nothing, and change nothing."""
    mixture, x = three_modes(), start(4)
    counts, results = [], []
    for n in (2, 50):
        called = []

        def denoise(state: Tensor, sigma: Tensor, called=called) -> Tensor:
            called.append(sigma)
            return mixture.denoise(state, sigma)

        seen = []
        sigmas = karras(n, LOW, HIGH).double()
        results.append(
            sample_adaptive(denoise, x, sigmas, callback=lambda *told, seen=seen: seen.append(told))
        )
        counts.append(len(called))
        assert [(step, sigma) for step, _, sigma, _ in seen] == [*enumerate(sigmas[:-1].tolist())]
    assert counts[0] == counts[1]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


def test_the_callback_sees_the_path() -> None:
    mixture, sigmas = three_modes(), karras(12, LOW, HIGH).double()
    exact = {}
    for end in range(2, 12):  # by going no further
        exact[end - 1] = sample_adaptive(
            mixture.denoise, start(4), sigmas[:end], rtol=1e-8, atol=1e-8
        )
    checked = []

    def look(step: int, x: Tensor, sigma: float, denoised: Tensor) -> None:
        if step in exact:
            torch.testing.assert_close(x, exact[step], rtol=0, atol=1e-4)
            expected = mixture.denoise(x, torch.full((4,), sigma).double())
            torch.testing.assert_close(denoised, expected, rtol=0, atol=1e-3)
            checked.append(step)

    sample_adaptive(mixture.denoise, start(4), sigmas, callback=look, rtol=1e-6, atol=1e-6)
    assert checked == list(exact)


def test_each_sample_has_its_own_steps() -> None:
    """Hard and easy samples side by side: each as alone to the bit, the easy at rest when done."""
    mixture, x = three_modes(), start(6)
    sigmas = karras(4, LOW, HIGH).double()
    asked: list[Tensor] = []

    def denoise(state: Tensor, sigma: Tensor) -> Tensor:
        asked.append(sigma)
        rows = zip(state.split(1), sigma.split(1), strict=True)
        return torch.cat([mixture.denoise(row, level) for row, level in rows])

    together = sample_adaptive(denoise, x, sigmas)
    assert any(sigma.unique().numel() > 1 for sigma in asked)
    for i in range(6):
        assert torch.equal(together[i : i + 1], sample_adaptive(denoise, x[i : i + 1], sigmas))


def test_what_cannot_be_solved_is_refused() -> None:
    with pytest.raises(UserError, match="infinite or no numbers"):
        sample_adaptive(lambda x, sigma: x / 0, start(2), grid(4))
    with pytest.raises(UserError, match="must be above 0"):
        sample_adaptive(three_modes().denoise, start(2), grid(4), rtol=0.0)

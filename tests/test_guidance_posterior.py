"""Sampling given a measurement, against the exact posterior of the Gaussian mixture.

The measurement is y = x0[0] + noise for data (1 1 2): guidance must move one coordinate and, since
the components differ, through it the other. Methods that are exact must give the exact denoiser.
For the others the known bias is stated and bounded on both sides: a bound that is never reached
proves nothing. Numbers are errors of the mean (Euclidean) and of the covariance (Frobenius).
"""

import pytest
import torch
from torch import Tensor

from shared.errors import UserError
from shared.guidance import (
    LinearMap,
    Loss,
    average_pool,
    classifier,
    consistent,
    ddpm_step,
    gradient,
    keep,
    known_region,
    normalised_step,
    posterior,
    residual_norm,
    score_step,
)
from shared.samplers import sample_heun
from shared.schedules import exponential, karras
from tests.analytic import GaussianMixture, Measured, single_gaussian, three_modes

N = 1024
FIRST = torch.tensor([1.0, 0.0]).double()
MASK = FIRST.view(1, 1, 1, 2)
Y, STD = 0.6, 0.3
SEEN = torch.tensor([Y, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
MIXTURE = three_modes()
MEASURED = Measured(MIXTURE, FIRST, Y, STD)
NOISELESS = Measured(MIXTURE, FIRST, Y, 1e-6)
SIGMAS = karras(32, 0.01, 80.0).double()
EXACT = 0.01, 0.025


def unit(seed: int, n: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 1, 2, generator=generator, dtype=torch.float64)


def start() -> Tensor:
    """Unit Gaussian noise (N 1 1 2) from a Sobol sequence, whose moments err by 0.003 only."""
    points = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(N, dtype=torch.float64)
    return torch.special.ndtri(points.clamp(1e-9, 1 - 1e-9)).view(N, 1, 1, 2)


def states() -> tuple[Tensor, Tensor]:
    sigma = torch.logspace(-1.5, 1, 12).double()
    return MIXTURE.means[0] + sigma[:, None, None, None] * unit(1, 12), sigma


def errors(denoise, truth: Measured) -> tuple[float, float]:
    """Of 1024 samples; Heun's own and the sampling error are below EXACT."""
    x0 = sample_heun(denoise, 80.0 * start(), SIGMAS).flatten(1)
    mean, covariance = truth.moments()
    return (x0.mean(0) - mean).norm().item(), (x0.T.cov() - covariance).norm().item()


def test_the_exact_denoiser_given_y_is_right_by_quadrature_and_by_sampling():
    """The truth itself: E[x0 | x, y] by summing over a fine grid of x0, then its samples."""
    x, sigma = states()
    axis = torch.linspace(-4, 4, 161).double()
    grid = torch.cartesian_prod(axis, axis)
    prior = MIXTURE.log_density(grid.view(-1, 1, 1, 2), torch.zeros(len(grid)))
    log_y = -(grid[:, 0] - Y).square() / (2 * STD**2)
    for i in range(4, 12):  # below, the grid is too coarse
        log_x = -(grid - x[i].flatten()).square().sum(1) / (2 * sigma[i] ** 2)
        expected = (prior + log_y + log_x).softmax(0) @ grid
        found = MEASURED.denoise(x[i : i + 1], sigma[i : i + 1])
        torch.testing.assert_close(found.flatten(), expected, rtol=1e-6, atol=1e-6)
    mean = (prior + log_y).softmax(0) @ grid
    torch.testing.assert_close(MEASURED.moments()[0], mean, rtol=1e-4, atol=1e-5)
    mean_error, covariance_error = errors(MEASURED.denoise, MEASURED)
    assert mean_error < EXACT[0] and covariance_error < EXACT[1]


def test_classifier_guidance_with_the_exact_classifier_is_exact():
    x, sigma = states()
    guided = classifier(MIXTURE.denoise, MEASURED.log_likelihood)
    torch.testing.assert_close(guided(x, sigma), MEASURED.denoise(x, sigma), rtol=1e-9, atol=1e-9)
    mean_error, covariance_error = errors(guided, MEASURED)
    assert mean_error < EXACT[0] and covariance_error < EXACT[1]


POOL = torch.tensor([0.5, 0.5]).double()
MAPS: dict[str, tuple[LinearMap, Tensor, Tensor]] = {
    "mask": (keep(MASK), FIRST, SEEN),
    "pool": (average_pool(1, 2), POOL, torch.tensor([Y], dtype=torch.float64).view(1, 1, 1, 1)),
}


@pytest.mark.parametrize("std", [0.3, 1e-6])
@pytest.mark.parametrize("name", MAPS)
def test_pigdm_is_exact_for_gaussian_data(name, std):
    linear, row, y = MAPS[name]
    gaussian = single_gaussian()
    data_std = gaussian.stds[0].item()
    x, sigma = states()
    guided = posterior(gaussian.denoise, linear, y, std, data_std)(x, sigma)
    truth = Measured(gaussian, row, Y, std)
    torch.testing.assert_close(guided, truth.denoise(x, sigma), rtol=1e-8, atol=1e-8)
    with torch.inference_mode():
        inferred = posterior(gaussian.denoise, linear, y, std, data_std)(x.clone(), sigma.clone())
    assert torch.equal(inferred, guided)


def test_pigdm_on_a_mixture_misses_the_part_that_is_not_gaussian():
    mean_error, covariance_error = errors(
        posterior(MIXTURE.denoise, keep(MASK), SEEN, STD, 0.9), MEASURED
    )
    assert 0.04 < mean_error < 0.08 and covariance_error < 0.05


def test_dps_is_overconfident():
    """It takes the estimate for certain, so the measured coordinate hardly varies at all."""
    dps = posterior(MIXTURE.denoise, keep(MASK), SEEN, STD, 0.0)
    mean_error, covariance_error = errors(dps, MEASURED)
    assert mean_error < 0.04 and 0.1 < covariance_error < 0.16
    x0 = sample_heun(dps, 80.0 * start(), SIGMAS)
    assert x0[..., 0].var() < 0.1 * MEASURED.moments()[1][0, 0]


def test_dps_is_the_score_step_on_the_likelihood_of_the_estimate():
    x, sigma = states()
    loss = Loss(lambda denoised: (Y - denoised[:, 0, 0, 0]).square() / (2 * STD**2))
    guided = gradient(MIXTURE.denoise, [loss], score_step(1.0))(x, sigma)
    dps = posterior(MIXTURE.denoise, keep(MASK), SEEN, STD, 0.0)(x, sigma)
    torch.testing.assert_close(guided, dps)


# (name, guidance, bounds of the mean's and of the covariance's error against the noisy truth)
APPROXIMATE = [
    (
        "by the estimate alone",
        gradient(
            MIXTURE.denoise,
            [Loss(lambda denoised: (Y - denoised[:, 0, 0, 0]).square() / (2 * STD**2))],
            score_step(1.0),
            through_denoiser=False,
        ),
        (0.18, 0.3),
        (0.13, 0.23),
    ),
    (
        "normalised",
        gradient(MIXTURE.denoise, [Loss(residual_norm(keep(MASK), SEEN))], normalised_step(0.5)),
        (0.12, 0.22),
        (0.14, 0.24),
    ),
    (
        "constant step",
        gradient(
            MIXTURE.denoise,
            [Loss(residual_norm(keep(MASK), SEEN))],
            ddpm_step(0.2, SIGMAS, eta=0.0),
        ),
        (0.05, 0.12),
        (0.05, 0.13),
    ),
]


@pytest.mark.parametrize("name, guided, of_mean, of_covariance", APPROXIMATE)
def test_gradients_that_are_no_likelihood_are_biased(name, guided, of_mean, of_covariance):
    """Their steps know neither the measurement's noise nor the estimate's."""
    mean_error, covariance_error = errors(guided, MEASURED)
    assert of_mean[0] <= mean_error < of_mean[1]
    assert of_covariance[0] <= covariance_error < of_covariance[1]
    mean, covariance = MEASURED.moments()
    free = (MIXTURE.mean() - mean).norm(), (MIXTURE.covariance() - covariance).norm()
    assert mean_error < 0.6 * free[0] and covariance_error < 0.3 * free[1]  # 0.47 and 0.93


def test_data_consistency_keeps_y_exactly_and_is_biased_in_the_rest():
    """The rest learns of y from the noisy state only: too little of it, early on."""
    guided = consistent(MIXTURE.denoise, keep(MASK), SEEN)
    x0 = sample_heun(guided, 80.0 * start(), SIGMAS)
    torch.testing.assert_close(x0[..., 0], torch.full_like(x0[..., 0], Y))
    mean_error, covariance_error = errors(guided, NOISELESS)
    assert 0.09 < mean_error < 0.16 and covariance_error < 0.06


def test_data_consistency_is_exact_where_the_rest_is_independent():
    """One component: y tells nothing of the other coordinate, and nothing is lost."""
    gaussian = single_gaussian()
    guided = consistent(gaussian.denoise, keep(MASK), SEEN)
    mean_error, covariance_error = errors(guided, Measured(gaussian, FIRST, Y, 1e-6))
    assert mean_error < EXACT[0] and covariance_error < EXACT[1]


@pytest.mark.parametrize("name", MAPS)
def test_consistency_is_the_nearest_estimate_that_agrees(name):
    linear, row, y = MAPS[name]
    x, sigma = states()
    denoised = MIXTURE.denoise(x, sigma)
    guided = consistent(MIXTURE.denoise, linear, y)(x, sigma)
    torch.testing.assert_close(guided.flatten(1) @ row, torch.full((12,), Y).double())
    residual = (Y - denoised.flatten(1) @ row) / row.square().sum()
    torch.testing.assert_close((guided - denoised).flatten(1), residual[:, None] * row)
    torch.testing.assert_close(linear.forward(linear.pseudo_inverse(y)), y)
    # gram: <A x, A x> is gram |A^+ A x|^2
    seen = linear.forward(x)
    back = linear.pseudo_inverse(seen)
    torch.testing.assert_close(
        seen.square().flatten(1).sum(1), linear.gram * back.square().flatten(1).sum(1)
    )


def test_average_pool_is_the_mean_of_blocks():
    x0 = torch.arange(48.0).view(1, 2, 4, 6)
    pool = average_pool(2, 3)
    torch.testing.assert_close(pool.forward(x0), x0.view(1, 2, 2, 2, 2, 3).mean((3, 5)))
    assert pool.gram == pytest.approx(1 / 6)


def test_known_region_is_consistency_with_a_mask_and_exact_in_it():
    x, sigma = states()
    replaced = known_region(MIXTURE.denoise, SEEN, MASK)(x, sigma)
    expected = consistent(MIXTURE.denoise, keep(MASK), SEEN)(x, sigma)
    torch.testing.assert_close(replaced, expected)
    assert torch.equal(replaced[..., 0], torch.full_like(replaced[..., 0], Y))
    denoised = MIXTURE.denoise(x, sigma)
    assert torch.equal(replaced[..., 1], denoised[..., 1])
    nothing = known_region(MIXTURE.denoise, SEEN, torch.zeros(1))(x, sigma)
    assert torch.equal(nothing, denoised)
    half = known_region(MIXTURE.denoise, SEEN, 0.5 * MASK)(x, sigma)
    torch.testing.assert_close(half[..., 0], (denoised[..., 0] + Y) / 2)


def test_known_region_gives_the_conditional_distribution_where_components_agree():
    """Components that share their first coordinate: seeing it says nothing of which one it is."""
    mixture = GaussianMixture(
        weights=torch.tensor([0.6, 0.4]).double(),
        means=torch.tensor([[0.2, 1.0], [0.2, -1.0]]).double(),
        stds=torch.tensor([0.4, 0.4]).double(),
    )
    guided = known_region(mixture.denoise, SEEN, MASK)
    sigmas = exponential(48, 0.01, 80.0).double()
    x0 = sample_heun(guided, 80.0 * start(), sigmas)[..., 1]
    mean, covariance = Measured(mixture, FIRST, Y, 1e-6).moments()
    assert abs(x0.mean() - mean[1]) < 0.05
    assert abs(x0.var() - covariance[1, 1]) < 0.05


def test_says_what_is_wrong():
    with pytest.raises(UserError, match="not both 0, not 0 and 0"):
        posterior(MIXTURE.denoise, keep(MASK), SEEN, 0, 0)
    with pytest.raises(UserError, match="at least 0"):
        posterior(MIXTURE.denoise, keep(MASK), SEEN, -0.1, 1.0)
    with pytest.raises(UserError, match="at least 1 by 1, not 0 by 2"):
        average_pool(0, 2)
    with pytest.raises(UserError, match="2 by 4 do not divide 4 by 6"):
        average_pool(2, 4).forward(torch.zeros(1, 1, 4, 6))

"""The adaptive probability-flow ODE against closed solutions, and likelihoods against the truth."""

import math

import pytest
import torch
from torch import Tensor

from shared.errors import UserError
from shared.likelihood import bits_per_dim, log_likelihood, probability_flow
from shared.noise import NoiseStream
from tests.analytic import GaussianMixture, gaussian_flow, single_gaussian, three_modes

LOW, HIGH = 0.002, 80.0


def draws(mixture: GaussianMixture, n: int) -> Tensor:
    """n samples of the mixture, (n 1 1 2) float64."""
    generator = torch.Generator().manual_seed(0)
    which = torch.multinomial(mixture.weights, n, replacement=True, generator=generator)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return (mixture.means[which] + mixture.stds[which, None] * noise).reshape(n, 1, 1, 2)


def levels(x: Tensor, sigma: float) -> Tensor:
    return x.new_full((len(x),), sigma)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sigma_from, sigma_to", [(HIGH, LOW), (LOW, HIGH), (3.0, 0.5)])
def test_the_flow_is_the_closed_solution(sigma_from, sigma_to, dtype):
    gaussian = single_gaussian()
    x = sigma_from * torch.randn(16, 1, 1, 2, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact = gaussian_flow(gaussian, x, sigma_from, sigma_to)
    moved = probability_flow(gaussian.denoise, x, sigma_from, sigma_to)
    assert moved.dtype == dtype
    torch.testing.assert_close(moved.double(), exact.double(), rtol=1e-4, atol=1e-4)


def test_tolerance_is_what_the_error_follows():
    gaussian, x = single_gaussian(), draws(single_gaussian(), 8)
    exact = gaussian_flow(gaussian, x, LOW, HIGH)
    errors = [
        (probability_flow(gaussian.denoise, x, LOW, HIGH, rtol=tol, atol=tol) - exact).abs().max()
        for tol in (1e-3, 1e-6, 1e-9)
    ]
    assert errors[0] > 30 * errors[1] > 900 * errors[2]


def test_encoding_and_decoding_returns_the_data():
    mixture = three_modes()
    x0 = draws(mixture, 32)
    encoded = probability_flow(mixture.denoise, x0, LOW, HIGH)
    assert 50 < encoded.std() < 110
    decoded = probability_flow(mixture.denoise, encoded, HIGH, LOW)
    assert (decoded - x0).abs().max() < 1e-4
    found = log_likelihood(mixture.denoise, x0)
    torch.testing.assert_close(found.encoded, encoded, rtol=1e-4, atol=1e-3)


def test_sampling_gives_the_mixture():
    mixture, n = three_modes(), 2048
    start = HIGH * torch.randn(n, 1, 1, 2, generator=torch.Generator().manual_seed(2)).double()
    x = probability_flow(mixture.denoise, start, HIGH, LOW).flatten(1)
    mean, covariance = mixture.mean(), mixture.covariance()
    # Five standard errors of a mean and, the kurtosis being about a Gaussian's, of a variance.
    assert ((x.mean(0) - mean).abs() < 5 * (covariance.diagonal() / n).sqrt()).all()
    assert (x.T.cov() - covariance).abs().max() < 5 * covariance.max() * math.sqrt(2 / n)
    # More than two moments: how often a draw is how likely.
    theirs = mixture.log_density(draws(mixture, n), levels(x, LOW))
    ours = mixture.log_density(x.reshape(n, 1, 1, 2), levels(x, LOW))
    for quantile in (0.1, 0.5, 0.9):
        assert ours.quantile(quantile) == pytest.approx(theirs.quantile(quantile).item(), abs=0.1)


@pytest.mark.parametrize("mixture", [single_gaussian(), three_modes()], ids=["one", "three"])
def test_the_exact_trace_gives_the_exact_likelihood(mixture):
    x0 = draws(mixture, 16)
    found = log_likelihood(mixture.denoise, x0, data_mean=mixture.mean())
    assert found.log_p.shape == (16,) and found.evaluations < 200
    data, noised = (mixture.log_density(x0, levels(x0, sigma)) for sigma in (0.0, LOW))
    assert (found.log_p - data).abs().max() < 0.01
    assert (found.log_p - noised).abs().max() < 1e-3
    # Without the mean, the Gaussian at sigma_max is off by |mean| / sigma_max standard deviations.
    log_p = log_likelihood(mixture.denoise, x0).log_p
    assert (log_p - noised).abs().max() < 4 * mixture.mean().norm() / HIGH < 0.1
    bits = -found.log_p / (2 * math.log(2))
    torch.testing.assert_close(found.bits_per_dim, bits)


def test_a_prior_of_the_data_s_width_is_exact_from_a_low_sigma_max():
    gaussian = GaussianMixture(
        weights=torch.ones(1).double(),
        means=torch.zeros(1, 2).double(),
        stds=torch.tensor([0.6]).double(),
    )
    x0 = draws(gaussian, 8)
    exact = gaussian.log_density(x0, levels(x0, LOW))
    errors = [
        (log_likelihood(gaussian.denoise, x0, sigma_max=2.0, data_std=std).log_p - exact).abs()
        for std in (0.6, 0.0)
    ]
    assert errors[0].max() < 1e-4 and errors[1].max() > 0.05


def test_hutchinson_is_unbiased_and_more_probes_spread_less():
    mixture, n = three_modes(), 192
    x0 = draws(mixture, 1)
    exact = log_likelihood(mixture.denoise, x0).log_p.item()
    copies, noise = x0.expand(n, 1, 1, 2), NoiseStream(range(n), (1, 1, 2))
    spreads = []
    for probes in (1, 4):
        log_p = log_likelihood(mixture.denoise, copies, noise=noise, probes=probes, rtol=1e-4).log_p
        spreads.append(log_p.std().item())
        assert abs(log_p.mean().item() - exact) < 3 * spreads[-1] / math.sqrt(n)
    assert spreads[0] / spreads[1] == pytest.approx(2, rel=0.2)


def test_hutchinson_is_exact_where_the_jacobian_is_diagonal():
    gaussian = single_gaussian()
    x0 = draws(gaussian, 4)
    noise = NoiseStream(range(4), (1, 1, 2))
    estimated = log_likelihood(gaussian.denoise, x0, noise=noise).log_p
    torch.testing.assert_close(estimated, log_likelihood(gaussian.denoise, x0).log_p)


def test_a_sample_does_not_depend_on_its_batch():
    mixture = three_modes()
    x0, noise = draws(mixture, 8), NoiseStream(range(8), (1, 1, 2))
    together = log_likelihood(mixture.denoise, x0, noise=noise).log_p
    alone = log_likelihood(mixture.denoise, x0[5:6], noise=NoiseStream([5], (1, 1, 2))).log_p
    torch.testing.assert_close(alone, together[5:6], rtol=0, atol=1e-3)


def test_the_density_integrates_to_one():
    """Of a denoiser that is nobody's posterior mean: whatever it says, the ODE moves mass about."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return 0.5 * torch.tanh(x.flip(-1)) + 0.1 * x / (1 + sigma[:, None, None, None])

    axis = torch.linspace(-3, 3, 61).double()
    x0 = torch.cartesian_prod(axis, axis).reshape(-1, 1, 1, 2)
    found = log_likelihood(denoise, x0, sigma_min=0.5, sigma_max=2.0, data_std=0.0)
    mass = found.log_p.exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass == pytest.approx(1, abs=0.02)


def test_bits_per_dim_of_uniform_pixels_is_their_depth():
    # A density of 1/2 on -1 .. 1 in each of 5 dimensions, in 256 bins.
    log_p = torch.tensor([-5 * math.log(2)])
    assert bits_per_dim(log_p, 5, bin_width=2 / 256).item() == pytest.approx(8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda f, x: probability_flow(f, x, 1.0, 0.0), "above 0 and finite, not 1.0, 0.0"),
        (lambda f, x: log_likelihood(f, x, sigma_min=2, sigma_max=1), "must be above sigma_min"),
        (lambda f, x: log_likelihood(f, x, probes=0), "probes >= 1"),
        (lambda f, x: log_likelihood(f, x, data_std=-1.0), "data_std >= 0"),
        (lambda f, x: log_likelihood(f, x, bin_width=0.0), "bin_width must be above 0"),
        (lambda f, x: probability_flow(f, x * math.nan, 1.0, 2.0), "finite numbers only"),
        (
            lambda f, x: probability_flow(lambda x, sigma: x / 0, x, 1.0, 2.0),
            "infinite or no numbers at sigma 1",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call(single_gaussian().denoise, torch.zeros(1, 1, 1, 2))

"""What samplers become when something is turned off, and what stochastic ones draw from."""

from functools import partial

import pytest
import torch
from torch import Tensor

from shared.noise import NoiseStream
from shared.samplers import (
    DEFAULT_RESTARTS,
    sample_annealed_langevin,
    sample_ddim,
    sample_ddpm,
    sample_deis,
    sample_dpm2,
    sample_dpm2_ancestral,
    sample_dpmpp_2m,
    sample_dpmpp_2m_sde,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
    sample_euler,
    sample_euler_ancestral,
    sample_heun,
    sample_lcm,
    sample_lms,
    sample_plms,
    sample_predictor_corrector,
    sample_restart,
    sample_unipc,
)
from shared.schedules import exponential, karras
from tests.analytic import GaussianMixture, gaussian_flow, single_gaussian, three_modes
from tests.walks import HIGH, exact_variance, moments, random_noise, start

SIGMAS = karras(12, 0.02, HIGH)
NOISE = NoiseStream(range(256), (1, 1, 2))

EQUAL = {
    # Bit for bit, without noise.
    "ddim eta 0 is euler": (sample_ddim, sample_euler),
    "euler ancestral eta 0 is euler": (partial(sample_euler_ancestral, eta=0.0), sample_euler),
    "dpm2 ancestral eta 0 is dpm2": (partial(sample_dpm2_ancestral, eta=0.0), sample_dpm2),
    "sde eta 0 is 2s": (
        partial(sample_dpmpp_sde, eta=0.0),
        partial(sample_dpmpp_2s_ancestral, eta=0.0),
    ),
    "2m sde eta 0 is 2m": (partial(sample_dpmpp_2m_sde, eta=0.0), sample_dpmpp_2m),
    "lms order 1 is euler": (partial(sample_lms, order=1), sample_euler),
    "deis order 1 is euler": (partial(sample_deis, order=1), sample_euler),
}


@pytest.mark.parametrize(("one", "other"), EQUAL.values(), ids=EQUAL)
def test_is_the_other_bit_for_bit(one, other):
    denoise = three_modes().denoise
    for x in (start(), start().float()):
        assert torch.equal(one(denoise, x, SIGMAS), other(denoise, x, SIGMAS))


def test_restart_without_intervals_and_with_none_in_reach_is_heun():
    denoise, (interval,) = three_modes().denoise, DEFAULT_RESTARTS
    heun = sample_heun(denoise, start(), SIGMAS)
    without = sample_restart(denoise, start(), SIGMAS, noise=NOISE, restarts=())
    assert torch.equal(without, heun)
    coarse = torch.tensor([HIGH, 2.0, 0.0])  # its lowest level is above the interval
    assert interval.high < 2
    out_of_reach = sample_restart(denoise, start(), coarse, noise=NOISE)
    assert torch.equal(out_of_reach, sample_heun(denoise, start(), coarse))
    assert not torch.equal(sample_restart(denoise, start(), SIGMAS, noise=NOISE), heun)


SAME_NOISE = {
    "ddim eta 1 is ddpm": (partial(sample_ddim, eta=1.0), sample_ddpm),
    "euler ancestral is ddpm": (sample_euler_ancestral, sample_ddpm),
    "euler ancestral is ddim with its eta": (
        partial(sample_euler_ancestral, eta=0.5),
        partial(sample_ddim, eta=0.5),
    ),
}


@pytest.mark.parametrize(("one", "other"), SAME_NOISE.values(), ids=SAME_NOISE)
def test_is_the_other_given_the_same_noise(one, other):
    denoise = three_modes().denoise
    result = one(denoise, start(), SIGMAS, noise=NOISE)
    expected = other(denoise, start(), SIGMAS, noise=NOISE)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    assert (result - sample_euler(denoise, start(), SIGMAS)).abs().mean() > 0.1


def test_the_beginnings_of_unipc_and_plms():
    # Two steps that end at 0: no corrector has a say in the last, nor anyone's second order.
    denoise, coarse = three_modes().denoise, torch.tensor([HIGH, 1.0, 0.0])
    torch.testing.assert_close(
        sample_unipc(denoise, start(), coarse), sample_dpmpp_2m(denoise, start(), coarse)
    )
    # Two even steps in sigma: PLMS's weights are those of LMS after the same first step.
    even = torch.tensor([3.0, 2.0, 1.0]).double()
    x = start(sigma=3.0)
    first = sample_heun(denoise, x, even[:2])
    slopes = [
        (state - denoise(state, sigma.expand(len(x)))) / sigma
        for state, sigma in ((first, even[1]), (x, even[0]))
    ]
    expected = first - (1.5 * slopes[0] - 0.5 * slopes[1])
    torch.testing.assert_close(sample_plms(denoise, x, even), expected)


@pytest.mark.parametrize(
    "sample",
    [
        sample_euler_ancestral,
        sample_dpm2_ancestral,
        sample_dpmpp_2s_ancestral,
        sample_dpmpp_sde,
        sample_dpmpp_2m_sde,
        sample_dpmpp_3m_sde,
        sample_restart,
        partial(sample_heun, s_churn=4.0),
    ],
)
def test_s_noise_scales_the_noise(sample):
    denoise = single_gaussian().denoise  # affine: the result is too, in its noise
    none, half, whole = (
        sample(denoise, start(), SIGMAS.double(), noise=NOISE, s_noise=s) for s in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(half, (none + whole) / 2)
    assert (whole - none).abs().mean() > 0.1


DRAWS_FROM_THE_MIXTURE = {
    "ddpm": (sample_ddpm, 250),
    "euler churn": (partial(sample_euler, s_churn=30.0), 300),
    "heun churn": (partial(sample_heun, s_churn=20.0), 100),
    "dpm2 ancestral": (sample_dpm2_ancestral, 80),
    "2s ancestral": (sample_dpmpp_2s_ancestral, 80),
    "sde": (sample_dpmpp_sde, 80),
    "2m sde": (sample_dpmpp_2m_sde, 80),
    "3m sde": (sample_dpmpp_3m_sde, 80),
    "restart": (sample_restart, 60),
}


@pytest.mark.parametrize(
    ("sample", "steps"), DRAWS_FROM_THE_MIXTURE.values(), ids=DRAWS_FROM_THE_MIXTURE
)
def test_stochastic_samplers_draw_from_the_mixture(sample, steps):
    mixture = three_modes()
    generator = torch.Generator().manual_seed(3)
    x = 40 * torch.randn(1500, 1, 1, 2, generator=generator, dtype=torch.float64)
    sigmas = karras(steps, 0.02, 40.0)
    mean, covariance = moments(sample(mixture.denoise, x, sigmas, noise=random_noise(x, generator)))
    # The standard error of a mean of 1500 is 0.025, of a variance about 0.034.
    torch.testing.assert_close(mean, mixture.mean(), atol=0.08, rtol=0)
    torch.testing.assert_close(covariance, mixture.covariance(), atol=0.11, rtol=0)


@pytest.mark.parametrize("steps", [1, 4])
def test_lcm_with_a_consistency_function_is_exact_in_distribution(steps):
    gaussian = single_gaussian()

    def consistency(x: Tensor, sigma: Tensor) -> Tensor:
        return gaussian_flow(gaussian, x, sigma[0].item(), 0.0)

    generator = torch.Generator().manual_seed(4)
    std = (gaussian.stds[0] ** 2 + HIGH**2).sqrt()
    x = gaussian.means[0] + std * torch.randn(
        20_000, 1, 1, 2, generator=generator, dtype=torch.float64
    )
    sigmas = exponential(steps, 0.2, HIGH).double()
    mean, covariance = moments(sample_lcm(consistency, x, sigmas, noise=random_noise(x, generator)))
    torch.testing.assert_close(mean, gaussian.mean(), atol=0.02, rtol=0)
    torch.testing.assert_close(covariance, gaussian.covariance(), atol=0.015, rtol=0)


def test_langevin_dynamics_reaches_the_gaussian_as_its_steps_grow():
    variance = single_gaussian().stds[0].item() ** 2
    sigmas = exponential(20, 0.05, HIGH).double()
    excess = [
        exact_variance(
            partial(sample_annealed_langevin, steps_per_level=steps, step_size=1.0),
            sigmas,
            20 * steps,
        )
        / variance
        - 1
        for steps in (10, 20, 40)
    ]
    assert 0 < excess[1] < excess[0] * 0.6 and 0 < excess[2] < excess[1] * 0.6
    assert excess[2] < 0.02


def test_langevin_dynamics_reaches_the_mixture():
    mixture, x = three_modes(), start(1000)
    generator = torch.Generator().manual_seed(5)
    x0 = sample_annealed_langevin(
        mixture.denoise,
        x,
        exponential(20, 0.1, HIGH).double(),
        noise=random_noise(x, generator),
        steps_per_level=20,
        step_size=1.0,
    )
    mean, covariance = moments(x0)
    # Errors of chance 0.03 and 0.04, and what the chains' finite steps leave.
    torch.testing.assert_close(mean, mixture.mean(), atol=0.1, rtol=0)
    torch.testing.assert_close(covariance, mixture.covariance(), atol=0.13, rtol=0)


def test_predictor_corrector_reaches_a_mixture_of_many_dimensions():
    # Two modes well apart; the steps' size by norms in few dimensions costs what is stated.
    d, n, std, snr = 48, 300, 0.6, 0.16
    means = torch.stack([torch.full((d,), 0.3), torch.full((d,), -0.3)]).double()
    mixture = GaussianMixture(
        torch.tensor([0.6, 0.4]).double(), means, torch.tensor([std, std]).double()
    )
    generator = torch.Generator().manual_seed(6)
    x = 40 * torch.randn(n, 3, 4, 4, generator=generator, dtype=torch.float64)
    sigmas = karras(250, 0.02, 40.0).double()
    noise = random_noise(x, generator)
    x0 = sample_predictor_corrector(mixture.denoise, x, sigmas, noise=noise, snr=snr).flatten(1)
    first = x0.mean(1) > 0
    within = x0 - torch.where(first[:, None], means[0], means[1])
    assert first.double().mean().item() == pytest.approx(0.6, abs=0.08)  # chance: 0.028
    assert within.mean().item() == pytest.approx(0, abs=0.02)
    stated = (1 + 4 / d) / (1 - snr**2)
    assert within.var().item() / std**2 == pytest.approx(stated, abs=0.04)  # chance: 0.012


@pytest.mark.parametrize("snr", [0.16, 0.4])
def test_the_corrector_holds_the_variance_that_is_stated(snr):
    gaussian = GaussianMixture(
        torch.ones(1).double(), torch.zeros(1, 768).double(), torch.tensor([0.6]).double()
    )
    generator = torch.Generator().manual_seed(7)
    right = 0.6**2 + 0.1**2
    x = right**0.5 * torch.randn(50, 3, 16, 16, generator=generator, dtype=torch.float64)
    sigmas = torch.tensor([0.1001, 0.1]).double()  # next to nothing to predict
    corrected = sample_predictor_corrector(
        gaussian.denoise, x, sigmas, noise=random_noise(x, generator), corrections=80, snr=snr
    )
    # Chance: 0.007.
    assert corrected.var().item() / right == pytest.approx(1 / (1 - snr**2), abs=0.025)

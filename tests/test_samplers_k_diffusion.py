"""Samplers that diffusers lacks or has otherwise, against k-diffusion's published loops.

The steps of its sampling.py are written out here anew, in float64, on the exact denoiser
of a Gaussian mixture: the same numbers, but for rounding.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from shared.samplers import sample_dpmpp_2s_ancestral, sample_dpmpp_3m_sde, sample_heun
from shared.schedules import karras
from tests.analytic import three_modes
from tests.walks import HIGH, start

SIGMAS = karras(12, 0.02, HIGH).double()  # to 0
MIXTURE = three_modes()


def model(x: Tensor, sigma: float) -> Tensor:
    return MIXTURE.denoise(x, x.new_full((len(x),), sigma))


def fresh(step: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randn(16, 1, 1, 2, generator=generator, dtype=torch.float64)


def ancestral_step(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    up = eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5
    up = min(sigma_next, up)
    return (sigma_next**2 - up**2) ** 0.5, up


def their_heun(x: Tensor, levels: list[float], s_churn: float, s_noise: float) -> Tensor:
    for i, (sigma, sigma_next) in enumerate(pairwise(levels)):
        gamma = min(s_churn / (len(levels) - 1), 2**0.5 - 1)
        sigma_hat = sigma * (gamma + 1)
        if gamma > 0:
            x = x + fresh(i) * s_noise * (sigma_hat**2 - sigma**2) ** 0.5
        d = (x - model(x, sigma_hat)) / sigma_hat
        dt = sigma_next - sigma_hat
        if sigma_next == 0:
            x = x + d * dt
        else:
            x_2 = x + d * dt
            d_2 = (x_2 - model(x_2, sigma_next)) / sigma_next
            x = x + (d + d_2) / 2 * dt
    return x


def their_dpmpp_2s_ancestral(x: Tensor, levels: list[float], eta: float) -> Tensor:
    for i, (sigma, sigma_next) in enumerate(pairwise(levels)):
        denoised = model(x, sigma)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        if sigma_down == 0:
            x = x + (x - denoised) / sigma * (sigma_down - sigma)
        else:
            t, t_next = -math.log(sigma), -math.log(sigma_down)
            h = t_next - t
            middle = math.exp(-(t + h / 2))
            x_2 = middle / sigma * x - math.expm1(-h / 2) * denoised
            x = sigma_down / sigma * x - math.expm1(-h) * model(x_2, middle)
        if sigma_next > 0:
            x = x + fresh(i) * sigma_up
    return x


def their_dpmpp_3m_sde(x: Tensor, levels: list[float], eta: float, second: float) -> Tensor:
    """``second`` is the weight of the second difference over theirs."""
    denoised_1 = denoised_2 = x
    h_1: float | None = None
    h_2: float | None = None
    for i, (sigma, sigma_next) in enumerate(pairwise(levels)):
        denoised = model(x, sigma)
        if sigma_next == 0:
            return denoised
        h = math.log(sigma / sigma_next)
        h_eta = h * (eta + 1)
        x = math.exp(-h_eta) * x - math.expm1(-h_eta) * denoised
        phi_2 = math.expm1(-h_eta) / h_eta + 1
        if h_1 is not None and h_2 is not None:
            r0, r1 = h_1 / h, h_2 / h
            d1_0, d1_1 = (denoised - denoised_1) / r0, (denoised_1 - denoised_2) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            d2 = (d1_0 - d1_1) / (r0 + r1)
            phi_3 = phi_2 / h_eta - 0.5
            x = x + phi_2 * d1 - second * phi_3 * d2
        elif h_1 is not None:
            x = x + phi_2 * (denoised - denoised_1) / (h_1 / h)
        if eta:
            x = x + fresh(i) * sigma_next * math.sqrt(-math.expm1(-2 * h * eta))
        denoised_1, denoised_2, h_1, h_2 = denoised, denoised_1, h, h_1
    return x


def same(ours: Callable[..., Tensor], theirs: Tensor, **options: float) -> bool:
    found = ours(MIXTURE.denoise, start(16), SIGMAS, noise=fresh, **options)
    return torch.allclose(found, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("s_churn, s_noise", [(0.0, 1.0), (2.0, 1.003), (80.0, 1.0)])
def test_heun_with_churn(s_churn: float, s_noise: float) -> None:
    theirs = their_heun(start(16), SIGMAS.tolist(), s_churn, s_noise)
    assert same(sample_heun, theirs, s_churn=s_churn, s_noise=s_noise)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpmpp_2s_ancestral(eta: float) -> None:
    theirs = their_dpmpp_2s_ancestral(start(16), SIGMAS.tolist(), eta)
    assert same(sample_dpmpp_2s_ancestral, theirs, eta=eta)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpmpp_3m_sde_but_for_the_weight_of_the_second_difference(eta: float) -> None:
    """Theirs is half of what the third order needs, as the docstring of ours tells."""
    x = start(16)
    assert same(sample_dpmpp_3m_sde, their_dpmpp_3m_sde(x, SIGMAS.tolist(), eta, 2.0), eta=eta)
    assert not same(sample_dpmpp_3m_sde, their_dpmpp_3m_sde(x, SIGMAS.tolist(), eta, 1.0), eta=eta)

"""Markov chains at each noise level, with the score ``(denoised - x) / sigma^2`` as their drift."""

import math

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.noise import NoiseFn
from shared.samplers.common import Callback, denoise_at, in_turn, required, steps


def sample_annealed_langevin(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    steps_per_level: int = 10,
    step_size: float = 0.2,
) -> Tensor:
    """Annealed Langevin dynamics (NCSN, Song & Ermon 2019, arXiv 1907.05600, Algorithm 1).

    At each level ``steps_per_level`` steps of ``x + alpha / 2 score + sqrt(alpha) noise`` with
    ``alpha = step_size sigma^2``, which in terms of the denoised signal is
    ``x + step_size / 2 (denoised - x) + sqrt(step_size) sigma noise``. The paper's epsilon is
    ``step_size`` times its last level squared: 2e-5 = 0.2 * 0.01^2, with 100 steps a level.

    In the step to 0 the last of them is replaced by ``x = denoised``, which removes the noise of
    the last level (Song & Ermon 2020, arXiv 2006.09011, section 3; not in the first paper). It
    reaches the data's distribution as the levels and the steps at each grow; a chain at a small
    sigma moves slowly, so with too few x keeps noise of the levels before.

    ``callback`` is called in the first step at each level.

    Raises:
        UserError: no ``noise``, no step a level, or step_size outside 0 .. 2, above which the chain
            overshoots.
    """
    if steps_per_level < 1 or not 0 < step_size <= 2:
        raise UserError(
            "Langevin dynamics needs steps_per_level of at least 1 and a step_size above 0 and up "
            f"to 2, not {steps_per_level} and {step_size}"
        )
    draw = in_turn(required(noise, "annealed Langevin dynamics"), x)
    for step, sigma, sigma_next in steps(sigmas):
        for i in range(steps_per_level):
            denoised = denoise_at(denoise, x, sigma)
            if callback is not None and i == 0:
                callback(step, x, sigma, denoised)
            if sigma_next == 0 and i == steps_per_level - 1:
                x = denoised
            else:
                x = torch.lerp(x, denoised, step_size / 2)
                x = x.add_(draw(), alpha=math.sqrt(step_size) * sigma)
    return x


def sample_predictor_corrector(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    corrections: int = 1,
    snr: float = 0.16,
) -> Tensor:
    """Predictor-corrector sampling (Song et al. 2020, arXiv 2011.13456, Algorithms 1 and 2).

    The predictor is the reverse diffusion of the variance-exploding SDE (Eq. 46):
    ``x + (sigma^2 - sigma_next^2) score + sqrt(sigma^2 - sigma_next^2) noise``; without the noise,
    hence exactly denoised, in the step to 0. The corrector takes ``corrections`` Langevin steps
    ``x + epsilon score + sqrt(2 epsilon) noise`` at sigma_next, with
    ``epsilon = 2 (snr |noise| / |score|)^2`` (Algorithm 4).

    The norms are each sample's own; the authors' code and diffusers' ScoreSdeVeScheduler average
    them over the batch, by which a sample depends on its neighbours. The authors' code also
    corrects before it predicts; the paper's order is followed.

    The corrector's steps are of finite size, and sized by norms: on Gaussian data of d = c h w
    dimensions it holds the variance at about (1 + 4 / d) / (1 - snr^2) of the right one, 1.03 for
    the default and large d, however many levels there are. A smaller ``snr`` holds it nearer.

    Raises:
        UserError: no ``noise``, fewer than 0 corrections, or snr not above 0.
    """
    if corrections < 0 or not 0 < snr < math.inf:
        raise UserError(
            "the corrector needs corrections of at least 0 and an snr above 0, not "
            f"{corrections} and {snr}"
        )
    draw = in_turn(required(noise, "the predictor-corrector sampler"), x)
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        x = torch.lerp(denoised, x, (sigma_next / sigma) ** 2)
        if sigma_next == 0:
            continue
        x = x.add_(draw(), alpha=math.sqrt(sigma**2 - sigma_next**2))
        for _ in range(corrections):
            score = (denoise_at(denoise, x, sigma_next) - x) / sigma_next**2
            fresh = draw()
            # The floor is met only where the score vanishes altogether.
            ratio = _norm(fresh) / _norm(score).clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
            epsilon = 2 * (snr * ratio).square()  # b 1 1 1
            x = x + epsilon * score + (2 * epsilon).sqrt() * fresh
    return x


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None, None]  # b c h w -> b 1 1 1

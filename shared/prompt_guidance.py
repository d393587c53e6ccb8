"""From what settings say of guidance to a ``DenoiseFn``, alike in both arts."""

from __future__ import annotations

import math
from collections.abc import Callable

from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.guidance import (
    autoguidance,
    classifier_free,
    classifier_free_pp,
    perturbed_denoiser,
    plain,
    step_range,
)
from shared.samplers import SAMPLERS
from shared.schedules import NoiseSchedule, make_sigmas
from shared.settings import SampleSettings

PromptGuidance = Callable[[Conditioning, Conditioning], DenoiseFn]
"""(cond, uncond), with and without the prompt -> the guided ``DenoiseFn``."""


def prompt_guidance(
    denoiser: Denoiser, settings: SampleSettings, noise_schedule: NoiseSchedule
) -> PromptGuidance:
    """Guide by prompts as the settings' guidance scale and :class:`GuidanceSettings` say.

    Classifier-free guidance within the interval, with rescale, plus perturbed attention; or CFG++,
    which takes the eta of a stochastic sampler as 1, of another as 0: exact for those of first
    order.

    Args:
        noise_schedule: that the denoiser was trained on.

    Raises:
        UserError: a sampler, a schedule or steps that there are not, or perturbed attention in a
            network without attention.
    """
    how = settings.guidance
    sigmas = make_sigmas(settings.schedule, settings.steps, noise_schedule)
    first, last = how.steps(settings.steps)
    low, high = step_range(sigmas, first, last)
    sigma_range = (low, math.inf if first == 0 else high)

    if (scale_pp := how.cfg_pp) is not None:
        eta = float(SAMPLERS[settings.sampler].stochastic)
        return lambda cond, uncond: classifier_free_pp(
            denoiser, cond, uncond, scale_pp, sigmas, eta, sigma_range
        )

    # cfg(w) + s (cond - perturbed) is the perturbed estimate taken 1 + s times further away from,
    # towards cfg((w + s) / (1 + s)): of one and the same evaluation of cond.
    push = 1 + how.pag_scale
    scale = (settings.guidance_scale + how.pag_scale) / push
    blind = perturbed_denoiser(denoiser) if how.pag_scale else None

    def guide(cond: Conditioning, uncond: Conditioning) -> DenoiseFn:
        denoise = classifier_free(denoiser, cond, uncond, scale, sigma_range, how.rescale)
        return (
            denoise
            if blind is None
            else autoguidance(denoise, plain(blind, cond), push, sigma_range)
        )

    return guide

"""From what settings say of guidance to a ``DenoiseFn``, alike in both arts."""

from __future__ import annotations

import math
from collections.abc import Callable

from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.errors import UserError
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
from shared.settings import PROMPT_ALONE, SampleSettings
from shared.weaker import WeakGuide

PromptGuidance = Callable[[Conditioning, Conditioning], DenoiseFn]
"""(cond, uncond), with and without the prompt -> the guided ``DenoiseFn``."""


def prompt_guidance(
    denoiser: Denoiser,
    settings: SampleSettings,
    noise_schedule: NoiseSchedule,
    weak: WeakGuide | None = None,
) -> PromptGuidance:
    """Guide by prompts as the settings' guidance scale and :class:`GuidanceSettings` say.

    Classifier-free guidance within the interval, with rescale, plus perturbed attention, plus
    autoguidance; or CFG++, which takes the eta of a stochastic sampler as 1, of another as 0: exact
    for those of first order.

    A student that takes the guidance scale as an input is told it, and takes nothing else.

    Args:
        noise_schedule: that the denoiser was trained on.
        weak: the worse model of autoguidance (:func:`shared.weaker.weak_guide`), if it is asked
            for.

    Raises:
        UserError: a sampler, a schedule or steps that there are not, perturbed attention in a
            network without attention, CFG++ with a sampler that leaves the grid of noise levels, or
            more than a scale for a student that takes one.
    """
    how = settings.guidance
    if denoiser.guidance_dim is not None:
        if how != PROMPT_ALONE or settings.negative_prompt.strip():
            raise UserError(
                f"model {settings.model!r} was distilled to take the guidance scale as an input; "
                "it takes no negative prompt and no guidance beside that scale"
            )
        return lambda cond, uncond: classifier_free(denoiser, cond, uncond, settings.guidance_scale)
    sigmas = make_sigmas(settings.schedule, settings.steps, noise_schedule)
    first, last = how.steps(settings.steps)
    low, high = step_range(sigmas, first, last)
    sigma_range = (low, math.inf if first == 0 else high)

    if (scale_pp := how.cfg_pp) is not None:
        if SAMPLERS[settings.sampler].order is None:
            raise UserError(
                f"CFG++ follows the steps of the sampler; {settings.sampler!r} chooses its own"
            )
        eta = float(SAMPLERS[settings.sampler].stochastic)
        return lambda cond, uncond: classifier_free_pp(
            denoiser, cond, uncond, scale_pp, sigmas, eta, sigma_range
        )

    # cfg(w) + s (cond - perturbed) is the perturbed estimate taken 1 + s times further away from,
    # towards cfg((w + s) / (1 + s)): of one and the same evaluation of cond.
    # The same once more for a worse model, a (cond - weak) with a = its scale - 1.
    outer = 1.0 if weak is None else how.autoguidance_scale
    push = 1 + how.pag_scale / outer
    beside = how.pag_scale + (outer - 1)
    scale = (settings.guidance_scale + beside) / (1 + beside)
    blind = perturbed_denoiser(denoiser) if how.pag_scale else None

    def guide(cond: Conditioning, uncond: Conditioning) -> DenoiseFn:
        denoise = classifier_free(denoiser, cond, uncond, scale, sigma_range, how.rescale)
        if blind is not None:
            denoise = autoguidance(denoise, plain(blind, cond), push, sigma_range)
        if weak is not None:
            denoise = autoguidance(denoise, weak(cond), outer, sigma_range)
        return denoise

    return guide

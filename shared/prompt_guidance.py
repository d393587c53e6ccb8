"""From what settings say of guidance to a ``DenoiseFn``, alike in both arts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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


@dataclass(frozen=True)
class Emphasis:
    """Something that the conditioning tells, followed more than the rest of it.

    A denoiser that learnt one of many things less well than the others loses it among them: what
    guides is the difference that all make together. So the difference that this one makes is added
    once more, ``share (scale - 1) (D(cond) - D(without))``: composition of guidance as in Liu et
    al. 2022 (arXiv 2206.01714), but against all the rest, not against nothing. One more evaluation.

    Attributes:
        share: of what the guidance scale adds to 1.
        without: the conditioning -> the same less that one thing.
    """

    share: float
    without: Callable[[Conditioning], Conditioning]


def prompt_guidance(
    denoiser: Denoiser,
    settings: SampleSettings,
    noise_schedule: NoiseSchedule,
    weak: WeakGuide | None = None,
    emphases: Sequence[Emphasis] = (),
) -> PromptGuidance:
    """Guide by prompts as the settings' guidance scale and :class:`GuidanceSettings` say.

    Classifier-free guidance within the interval, with rescale, plus perturbed attention, plus
    autoguidance; or CFG++, which takes the eta of a stochastic sampler as 1, of another as 0: exact
    for those of first order.

    A student that takes the guidance scale as an input is told it, and takes nothing else.
    CFG++ knows no emphases either.

    Args:
        noise_schedule: that the denoiser was trained on.
        weak: the worse model of autoguidance (:func:`shared.weaker.weak_guide`), if it is asked
            for.
        emphases: off with a guidance scale of 1, as that is.

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

    # cfg(w) + a (cond - worse) is the worse estimate taken 1 + a times further away from, towards
    # cfg((w + a) / (1 + a)): of one and the same evaluation of cond. So on from one worse estimate
    # to the next, the last outermost; what comes after takes those before along.
    worse: list[tuple[float, WeakGuide]] = []
    if how.pag_scale:
        blind = perturbed_denoiser(denoiser)
        worse.append((how.pag_scale, lambda cond: plain(blind, cond)))
    for one in emphases:
        amount = one.share * max(settings.guidance_scale - 1, 0)
        worse.append((amount, partial(_less, denoiser, one)))
    if weak is not None:
        worse.append((how.autoguidance_scale - 1, weak))
    beside = sum(amount for amount, _ in worse)
    scale = (settings.guidance_scale + beside) / (1 + beside)
    pushes = _pushes([amount for amount, _ in worse])

    def guide(cond: Conditioning, uncond: Conditioning) -> DenoiseFn:
        denoise = classifier_free(denoiser, cond, uncond, scale, sigma_range, how.rescale)
        for push, (_, of) in zip(pushes, worse, strict=True):
            denoise = autoguidance(denoise, of(cond), push, sigma_range)
        return denoise

    return guide


def _less(denoiser: Denoiser, emphasis: Emphasis, cond: Conditioning) -> DenoiseFn:
    return plain(denoiser, emphasis.without(cond))


def _pushes(amounts: Sequence[float]) -> list[float]:
    """How far away from each of several worse estimates, so that each counts its amount in all."""
    pushes: list[float] = []
    beyond = 1.0  # what those further out make of it
    for amount in reversed(amounts):
        pushes.insert(0, 1 + amount / beyond)
        beyond *= pushes[0]
    return pushes

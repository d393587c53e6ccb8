"""From a bound denoiser to latents: the part of making a sample that is the same in both arts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.guidance import Guidance
from shared.naming import choose
from shared.noise import NoiseFn, NoiseStream, seeded_noise
from shared.samplers import SAMPLERS, Callback, invert_ddim
from shared.schedules import NoiseSchedule, make_sigmas
from shared.settings import PROMPT_ALONE, SampleSettings

Settings = TypeVar("Settings", bound=SampleSettings)

Walk = Callable[[DenoiseFn, Tensor, Tensor, NoiseFn, Callback | None], Tensor]
"""(denoise, x (b c h w) at sigmas[0], sigmas (n + 1,), noise, callback) -> x0: what takes the place
of the settings' sampler, such as one that goes back and forth."""


@dataclass(frozen=True, eq=False)
class Start:
    """Something that exists and is to be made anew in part (SDEdit, Meng et al. 2021, 2108.01073).

    Attributes:
        latents: (b c h w) of it, or (1 c h w) for all samples.
        strength: the share of the steps that are walked. 0 leaves the latents as they are; 1 is
            sampling from noise alone, in which nothing of them is left.

    Raises:
        UserError: a strength outside 0 .. 1.
    """

    latents: Tensor
    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UserError(f"strength must be from 0 to 1, not {self.strength:g}")


def sampling_mode(guidances: Sequence[Guidance]) -> AbstractContextManager[None]:
    """No gradients are recorded in this block but those that guidances take themselves.

    What is made in ``torch.inference_mode``, which is quicker, can never be differentiated through.
    """
    return torch.no_grad() if guidances else torch.inference_mode()


def walked_sigmas(
    settings: SampleSettings, noise_schedule: NoiseSchedule, start: Start | None = None
) -> Tensor:
    """The noise levels (n + 1,) that are walked down: all of them, or the end of them.

    Raises:
        UserError: a schedule or steps that there are not.
    """
    sigmas = make_sigmas(settings.schedule, settings.steps, noise_schedule)
    skipped = 0 if start is None else settings.steps - round(start.strength * settings.steps)
    return sigmas[skipped:]


def of_source(settings: Settings, prompt: str) -> Settings:
    """The settings of what is inverted: its own prompt, and no guidance, which leads elsewhere."""
    return replace(
        settings, prompt=prompt, negative_prompt="", guidance_scale=1.0, guidance=PROMPT_ALONE
    )


def inverted_noise(
    denoise: DenoiseFn,
    settings: SampleSettings,
    noise_schedule: NoiseSchedule,
    start: Start,
    callback: Callback | None = None,
) -> Tensor:
    """The noise (b c h w) that ``start`` comes from, to ``begin`` with in :func:`sample_latents`.

    DDIM inversion (Song et al. 2020, arXiv 2010.02502, section 4.3) up the levels that will be
    walked down. Sampled from this noise by ``denoise``, the latents come back but for an error that
    falls with the steps; by the denoiser of another prompt, what both prompts leave open comes
    back.

    Args:
        denoise: of what ``start`` is. Guided strongly, it does not lead back.
        callback: called in each step, see :func:`shared.samplers.invert_ddim`.

    Raises:
        UserError: a sampler that draws fresh noise, by which the way down is another one.
    """
    if choose("sampler", settings.sampler, SAMPLERS).stochastic:
        raise UserError(
            f"sampler {settings.sampler!r} adds fresh noise, and so does not lead back to what was "
            "inverted; ddim, dpm++2m and other deterministic ones do"
        )
    sigmas = walked_sigmas(settings, noise_schedule, start)
    if len(sigmas) == 1:
        return torch.zeros_like(start.latents)
    state = invert_ddim(denoise, start.latents, sigmas, callback=callback)
    return (state if start.strength == 1 else state - start.latents) / sigmas[0].item()


def sample_latents(
    denoise: DenoiseFn,
    settings: SampleSettings,
    noise_schedule: NoiseSchedule,
    seeds: Sequence[int],
    shape: Sequence[int],
    device: torch.device,
    *,
    start: Start | None = None,
    begin: Tensor | None = None,
    walk: Walk | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Walk down the settings' noise levels: latents (b c h w), float32.

    Args:
        denoise: the guided denoiser, its conditioning bound.
        settings: sampler, schedule and steps of all samples.
        noise_schedule: that the denoiser was trained on.
        seeds: of each sample (b).
        shape: of one sample's latents, c h w.
        start: begin with this and not with noise alone.
        begin: (b c h w) of unit variance, the noise to begin with, and not that of the seeds.
        walk: to be used and not the settings' sampler.
        callback: see :mod:`shared.samplers`.

    Raises:
        UserError: a sampler, a schedule or steps that there are not.
    """
    sigmas = walked_sigmas(settings, noise_schedule, start)
    noise = seeded_noise(seeds, shape, device) if begin is None else begin  # (b c h w) float32
    if start is None or start.strength == 1:
        x = sigmas[0].item() * noise
    else:
        x = start.latents.to(noise).expand_as(noise)
        if len(sigmas) == 1:
            return x.clone()
        x = x + sigmas[0].item() * noise
    fresh_noise = NoiseStream(seeds, shape, device)
    if walk is not None:
        return walk(denoise, x, sigmas, fresh_noise, callback)
    sample = SAMPLERS[settings.sampler].function
    return sample(denoise, x, sigmas, noise=fresh_noise, callback=callback)

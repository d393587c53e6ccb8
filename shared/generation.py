"""From a bound denoiser to latents: the part of making a sample that is the same in both arts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.guidance import Guidance
from shared.noise import NoiseFn, NoiseStream, seeded_noise
from shared.samplers import SAMPLERS, Callback
from shared.schedules import NoiseSchedule, make_sigmas
from shared.settings import SampleSettings

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
    sigmas = make_sigmas(settings.schedule, settings.steps, noise_schedule)  # (steps + 1,)
    noise = seeded_noise(seeds, shape, device) if begin is None else begin  # (b c h w) float32
    if start is None or start.strength == 1:
        x = sigmas[0].item() * noise
    else:
        sigmas = sigmas[settings.steps - round(start.strength * settings.steps) :]
        x = start.latents.to(noise).expand_as(noise)
        if len(sigmas) == 1:
            return x.clone()
        x = x + sigmas[0].item() * noise
    fresh_noise = NoiseStream(seeds, shape, device)
    if walk is not None:
        return walk(denoise, x, sigmas, fresh_noise, callback)
    sample = SAMPLERS[settings.sampler].function
    return sample(denoise, x, sigmas, noise=fresh_noise, callback=callback)

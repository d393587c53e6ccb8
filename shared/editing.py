"""Filling: sampling a free region of latents so that it fits what is known around it.

Every method is a function from what is known to a :data:`~shared.generation.Walk`, which
:func:`shared.generation.sample_latents` takes in the place of the settings' sampler. Any guidance
bound before acts inside it. What is free begins as noise, or as the ``Start`` that is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, pairwise

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.edit_settings import CONCAT, FillSettings
from shared.errors import UserError
from shared.generation import Walk
from shared.guidance import (
    Guidance,
    Loss,
    ddpm_step,
    gradient,
    keep,
    known_region,
    posterior,
    repaint_path,
    sample_repaint,
)
from shared.naming import choose
from shared.noise import NoiseFn
from shared.samplers import SAMPLERS, Callback, SamplerFn, sample_ddim

LATENT_STD = 1.0  # of the latents, which codecs scale to about unit variance
MEASUREMENT_STD = 0.02  # how exactly pseudo-inverse guidance holds what is known


@dataclass(frozen=True, eq=False)
class Known:
    """What exists already.

    Attributes:
        latents: (b c h w), or (1 c h w) for all samples; what they hold where free does not matter.
        mask: bool, of a shape that broadcasts to that of the latents: true where known.

    Raises:
        UserError: a mask that is not bool or of another shape.
    """

    latents: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool:
            raise UserError("the mask of what is known must be bool")
        try:
            fits = torch.broadcast_shapes(self.mask.shape, self.latents.shape)
        except RuntimeError:
            fits = None
        if fits != self.latents.shape:
            shapes = tuple(self.mask.shape), tuple(self.latents.shape)
            raise UserError(f"a mask of shape {shapes[0]} does not fit latents of {shapes[1]}")

    def at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and mask on x's device, the latents in its dtype."""
        return self.latents.to(x), self.mask.to(x.device)


@dataclass(frozen=True)
class Filling:
    """A method and what one needs to know to choose it.

    Attributes:
        walk: what is known, the sampler, settings -> the walk.
        keeps: whether what is known comes out to the bit.
        told: whether the network itself has to be told what is known.
        summary: one line for people.
        paper: authors, year and arXiv number.
    """

    walk: Callable[[Known, SamplerFn, FillSettings], Walk]
    keeps: bool
    summary: str
    paper: str
    told: bool = False


def fill(known: Known, sampler: str, how: FillSettings, told: bool = False) -> Walk:
    """The walk that fills what is not known.

    Args:
        sampler: a name in :data:`shared.samplers.SAMPLERS`; RePaint and the guidance gradient walk
            by DDPM's steps whatever it is.
        told: whether the network that will be asked is told what is known.

    Raises:
        UserError: a method or a sampler that there is not, or a method that needs a network that
            is told.
    """
    method = choose("filling method", how.method, FILLINGS)
    if method.told and not told:
        others = ", ".join(name for name, other in FILLINGS.items() if not other.told)
        raise UserError(
            f"filling method {how.method!r} needs a network that is told what is known, and this "
            f"model has none; the others are {others}"
        )
    return method.walk(known, choose("sampler", sampler, SAMPLERS).function, how)


def fill_steps(how: FillSettings, steps: int) -> int:
    """How many times the callback is called in a walk of ``steps`` steps.

    Raises:
        UserError: RePaint's jumps do not fit into the steps.
    """
    if how.method != "repaint":
        return steps
    path = repaint_path(steps, how.jump_length, how.jump_count)
    return sum(there > here for here, there in pairwise(path))


def _guided(guide: Guidance, sample: SamplerFn) -> Walk:
    """The sampler on the guided denoiser."""

    def walk(
        denoise: DenoiseFn, x: Tensor, sigmas: Tensor, noise: NoiseFn, callback: Callback | None
    ) -> Tensor:
        return sample(guide(denoise), x, sigmas, noise=noise, callback=callback)

    return walk


def _blend(known: Known, sample: SamplerFn, how: FillSettings) -> Walk:
    """At every level the network sees the known region as it is there, with fresh noise.

    ``x <- mask (known + sigma noise) + (1 - mask) x`` before each evaluation, with any sampler.
    """

    def walk(
        denoise: DenoiseFn, x: Tensor, sigmas: Tensor, noise: NoiseFn, callback: Callback | None
    ) -> Tensor:
        latents, mask = known.at(x)
        # Samplers draw the noise that is called 0, 1, ...; this must not be the same.
        names = count(-1, -1)

        def blended(x: Tensor, sigma: Tensor) -> Tensor:
            there = latents + sigma[:, None, None, None] * noise(next(names)).to(x)
            denoised = denoise(torch.where(mask, there, x), sigma)
            return torch.where(mask, latents, denoised)

        return sample(blended, x, sigmas, noise=noise, callback=callback)

    return walk


def _repaint(known: Known, sample: SamplerFn, how: FillSettings) -> Walk:
    def walk(
        denoise: DenoiseFn, x: Tensor, sigmas: Tensor, noise: NoiseFn, callback: Callback | None
    ) -> Tensor:
        latents, mask = known.at(x)
        return sample_repaint(
            denoise,
            x,
            sigmas,
            noise=noise,
            known=latents,
            mask=mask,
            callback=callback,
            jump_length=how.jump_length,
            jump_count=how.jump_count,
        )

    return walk


def _gradient(known: Known, sample: SamplerFn, how: FillSettings) -> Walk:
    """The squared error in the known region as a guidance gradient, in the paper's DDPM form.

    Near the end, where the denoiser changes little, a step moves the state by ``-2 xi`` times the
    error: a xi of 0.5 takes all of it away.
    """

    def error(denoised: Tensor) -> Tensor:
        latents, mask = known.at(denoised)
        return ((denoised - latents) * mask).square().flatten(1).sum(1)

    def walk(
        denoise: DenoiseFn, x: Tensor, sigmas: Tensor, noise: NoiseFn, callback: Callback | None
    ) -> Tensor:
        # Its step acts on the state after a step, which is known for first-order samplers only.
        guided = gradient(denoise, [Loss(error)], ddpm_step(how.xi, sigmas, eta=1.0))
        return sample_ddim(guided, x, sigmas, noise=noise, callback=callback, eta=1.0)

    return walk


def _posterior(known: Known, sample: SamplerFn, how: FillSettings) -> Walk:
    def guide(denoise: DenoiseFn) -> DenoiseFn:
        linear = keep(known.mask.to(known.latents.device))
        y = linear.forward(known.latents)
        return posterior(denoise, linear, y, noise_std=MEASUREMENT_STD, data_std=LATENT_STD)

    return _guided(guide, sample)


def _consistency(known: Known, sample: SamplerFn, how: FillSettings) -> Walk:
    return _guided(lambda denoise: known_region(denoise, known.latents, known.mask), sample)


def _concat(known: Known, sample: SamplerFn, how: FillSettings) -> Walk:
    """The sampler alone, for the network knows; what it makes of the known region is left out."""

    def walk(
        denoise: DenoiseFn, x: Tensor, sigmas: Tensor, noise: NoiseFn, callback: Callback | None
    ) -> Tensor:
        latents, mask = known.at(x)
        filled = sample(denoise, x, sigmas, noise=noise, callback=callback)
        return torch.where(mask, latents, filled)

    return walk


FILLINGS: dict[str, Filling] = {
    "consistency": Filling(
        walk=_consistency,
        keeps=True,
        summary="data consistency: what is known replaces the estimate, with any sampler",
        paper="Wang et al. 2022, arXiv 2212.00490",
    ),
    "blend": Filling(
        walk=_blend,
        keeps=True,
        summary="latent blend: what is known, with fresh noise, replaces the state at each level",
        paper="Avrahami et al. 2022, arXiv 2206.02779",
    ),
    "repaint": Filling(
        walk=_repaint,
        keeps=True,
        summary="the same by DDPM's steps, going back to noisier levels so that both parts settle",
        paper="Lugmayr et al. 2022, arXiv 2201.09865",
    ),
    "gradient": Filling(
        walk=_gradient,
        keeps=False,
        summary="guidance gradient of the error in what is known, by DDPM's steps; twice the cost",
        paper="Levy et al. 2023, arXiv 2311.00613",
    ),
    "posterior": Filling(
        walk=_posterior,
        keeps=False,
        summary="pseudo-inverse guidance: that gradient as Bayes' rule has it; the same cost",
        paper="Song et al. 2023, ICLR",
    ),
    CONCAT: Filling(
        walk=_concat,
        keeps=True,
        told=True,
        summary="the network itself sees mask and masked latents; it has to be trained for that",
        paper="Rombach et al. 2022, arXiv 2112.10752",
    ),
}

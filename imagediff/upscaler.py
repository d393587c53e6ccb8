"""Super-resolution: a diffusion model of pixels that is told the picture as enlarged by rule.

As in SR3 (Saharia et al. 2021, arXiv 2104.07636), the bicubic enlargement joins the noisy state on
the channels. The state is the *residual*, what the enlargement lacks of the picture (SRDiff, Li et
al. 2021, arXiv 2104.14951), divided by its standard deviation. Squares of ``fold`` times ``fold``
pixels are folded into channels, so that the network is quick.

A model folder holds ``model_index.json``, ``unet/`` and ``scheduler/`` in diffusers' layout, and
``upscaler.json`` with the residuals' standard deviations. The U-Net has 3 * fold^2 channels out,
twice as many in, and a class for each factor; nothing in it attends, so that it takes any size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from imagediff.enlarged_settings import FACTORS, check_factor
from imagediff.sheets import from_pil, to_pil
from imagediff.shrink import enlarge
from imagediff.upscale_settings import (
    DEFAULT_SAMPLER,
    DEFAULT_SCHEDULE,
    DEFAULT_STEPS,
    UpscaleSettings,
)
from shared.checkpoints import load_denoiser, model_hash, save_component, write_scheduler
from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.devices import dtype_name, resolve_device, resolve_dtype
from shared.errors import DivergenceError, UserError
from shared.generation import sample_latents
from shared.layout import MODEL_INDEX, read_json
from shared.models import find_model
from shared.naming import choose
from shared.parameterization import parameterization_from_config
from shared.pipelines import for_sampling
from shared.provenance import version
from shared.samplers import SAMPLERS, Callback
from shared.schedules import NoiseSchedule, make_sigmas, schedule_from_config
from shared.settings import valid_unicode
from shared.unet import UNet
from shared.weights import write_json
from shared.windows import in_one_piece, windowed

PIPELINE = "DuotoneUpscalePipeline"
SCALES = "upscaler.json"
OVERLAP = 8  # neighbouring windows share at least this part of one: 16 of 128 pixels
AT_ONCE = 4  # windows computed in one call


@dataclass(frozen=True)
class Upscaler:
    """An upscaling model, loaded: ``Upscaler.load()(picture, 2)``.

    Attributes:
        denoiser: of folded residuals of unit variance; its schedule is ``noise_schedule``.
        residual_std: for each of ``FACTORS``, of pixels in [-1, 1].
        fold: side in pixels of the squares that are folded into channels.
        window: side in pixels of what the network sees at once; larger pictures are made of
            overlapping windows that are denoised together.
    """

    name: str
    hash: str
    denoiser: Denoiser
    noise_schedule: NoiseSchedule
    residual_std: tuple[float, ...]
    fold: int
    window: int
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def load(
        cls, model: str | Path = "builtin", device: str = "auto", dtype: str = "auto"
    ) -> Upscaler:
        """Load an upscaler by name or from a folder.

        Raises:
            UserError: no such model or device, or a folder that is no whole upscaler.
        """
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        found = find_model(model, "upscaler")
        denoiser = load_denoiser(found.folder, where, precision)
        stds = read_json(found.folder / SCALES).get("residual_std")
        if not isinstance(stds, list) or not all(isinstance(std, float) for std in stds):
            raise UserError(f"{found.folder / SCALES}: residual_std must be a list of numbers")
        upscaler = _around(for_sampling(denoiser), tuple(stds))
        return replace(
            upscaler, name=found.name, hash=model_hash(found.folder), device=where, dtype=precision
        )

    def __call__(
        self,
        picture: Image.Image,
        factor: int,
        *,
        steps: int = DEFAULT_STEPS,
        sampler: str = DEFAULT_SAMPLER,
        schedule: str = DEFAULT_SCHEDULE,
        seed: int = 0,
        callback: Callback | None = None,
    ) -> Image.Image:
        """The picture (RGB, any size) ``factor`` times larger.

        Args:
            factor: one of ``FACTORS``.
            steps, sampler, schedule, seed: as for any sample.
            callback: called as (step, x, sigma, denoised) in each step.

        Raises:
            UserError: a factor, sampler, schedule or number of steps that there is not, or a result
                that is too large.
        """
        settings = self.plan(
            picture.size,
            factor,
            steps=steps,
            sampler=sampler,
            schedule=schedule,
            seed=seed,
        )
        return self.enlarge(picture, settings, callback)

    def plan(
        self,
        size: tuple[int, int],
        factor: int,
        *,
        steps: int = DEFAULT_STEPS,
        sampler: str = DEFAULT_SAMPLER,
        schedule: str = DEFAULT_SCHEDULE,
        seed: int = 0,
        prompt: str = "",
        source: str = "",
        source_hash: str = "",
    ) -> UpscaleSettings:
        """The settings of a picture of ``size`` (width, height) made larger, checked.

        Raises:
            UserError: as a call.
        """
        check_factor(factor, size)
        width, height = size
        settings = UpscaleSettings(
            prompt=valid_unicode(prompt),
            negative_prompt="",
            seed=seed,
            steps=steps,
            guidance_scale=1.0,
            sampler=sampler,
            schedule=schedule,
            size=(width * factor, height * factor),
            model=self.name,
            model_hash=self.hash,
            device=self.device.type,
            dtype=dtype_name(self.dtype),
            version=version(),
            torch_version=str(torch.__version__),
            source=valid_unicode(source),
            source_hash=source_hash,
            factor=factor,
        )
        choose("sampler", sampler, SAMPLERS)
        make_sigmas(schedule, steps, self.noise_schedule)
        return settings

    @torch.no_grad()
    def enlarge(
        self, picture: Image.Image, settings: UpscaleSettings, callback: Callback | None = None
    ) -> Image.Image:
        """The picture (RGB) made larger as the settings say."""
        which = FACTORS.index(settings.factor)
        width, height = settings.size
        enlarged = from_pil(enlarge(picture, settings.factor))  # 1 3 h w
        # Of odd sizes a folded square lacks pixels; no factor of 2 or 4 has such with fold 2.
        beyond = (0, -width % self.fold, 0, -height % self.fold)
        folded = self.fold_pixels(F.pad(enlarged, beyond, mode="replicate")).to(self.device)
        residual = sample_latents(
            self._denoise_fn(folded, which),
            settings,
            self.noise_schedule,
            [settings.seed],
            folded.shape[1:],
            self.device,
            callback=callback,
        )
        residual = F.pixel_shuffle(residual.cpu(), self.fold)[..., :height, :width]
        made = enlarged + residual * self.residual_std[which]
        if not made.isfinite().all():
            raise DivergenceError("the numbers overflowed; float32 helps")
        return to_pil(made)[0]

    def fold_pixels(self, pixels: Tensor) -> Tensor:
        """(b 3 h w) -> (b 3*fold^2 h/fold w/fold)"""
        return F.pixel_unshuffle(pixels, self.fold)

    def _denoise_fn(self, folded: Tensor, which: int) -> DenoiseFn:
        """The denoiser of a picture's residual, by windows where it is large.

        Args:
            folded: (1 c h w) the enlarged picture.
            which: place of the factor in ``FACTORS``.
        """
        factor = torch.tensor([[which]], device=folded.device)
        height, width = folded.shape[2:]
        side = self.window // self.fold
        rows, columns = (
            length if length <= in_one_piece(side) else side for length in (height, width)
        )

        def at(top: int, lefts: Sequence[int]) -> DenoiseFn:
            seen = [folded[..., top : top + rows, left : left + columns] for left in lefts]
            concat = torch.cat(seen).contiguous(memory_format=torch.channels_last)
            cond = Conditioning(vector=factor.expand(len(lefts), 1), concat=concat)
            return lambda x, sigma: self.denoiser(x, sigma, cond)

        def row(tops: Sequence[int]) -> DenoiseFn:
            share = 0 if columns == width else side // OVERLAP
            return windowed(
                lambda lefts: at(tops[0], lefts), width, columns, share, at_once=AT_ONCE
            )

        share = 0 if rows == height else side // OVERLAP
        return windowed(row, height, rows, share, axis=-2, at_once=1)

    def with_denoiser(self, denoiser: Denoiser) -> Upscaler:
        """The same with another denoiser, on that one's device."""
        weight = next(denoiser.parameters())
        return replace(self, denoiser=denoiser, device=weight.device, dtype=weight.dtype)


def build_upscaler(
    unet: Mapping[str, Any], scheduler: Mapping[str, Any], residual_std: Sequence[float]
) -> Upscaler:
    """A new upscaler, its weights drawn by torch's own random numbers.

    Raises:
        UserError: a config is at fault.
    """
    schedule = schedule_from_config(scheduler)
    parameterization = parameterization_from_config(scheduler, schedule)
    denoiser = Denoiser(UNet.from_config(unet), parameterization, schedule)
    return _around(denoiser, tuple(residual_std))


def save_upscaler(upscaler: Upscaler, scheduler: Mapping[str, Any], folder: Path) -> None:
    """Write the model folder."""
    save_component(upscaler.denoiser.network, folder / "unet")
    write_scheduler(folder, scheduler)
    write_json(folder / SCALES, {"residual_std": list(upscaler.residual_std)})
    scheduler_class = read_json(folder / "scheduler" / "scheduler_config.json")["_class_name"]
    write_json(
        folder / MODEL_INDEX,
        {
            "_class_name": PIPELINE,
            "scheduler": ["diffusers", scheduler_class],
            "unet": ["diffusers", "UNet2DConditionModel"],
        },
    )


def _around(denoiser: Denoiser, residual_std: tuple[float, ...]) -> Upscaler:
    """An upscaler of a denoiser.

    Raises:
        UserError: its network is not one of an upscaler.
    """
    network = denoiser.network
    assert isinstance(network, UNet) and denoiser.schedule is not None
    hyper = network.hyper
    fold = isqrt(hyper.out_channels // 3)
    channels = 3 * fold**2
    if (
        (hyper.in_channels, hyper.out_channels) != (2 * channels, channels)
        or hyper.num_class_embeds != len(FACTORS)
        or hyper.context_dim is not None
        or len(residual_std) != len(FACTORS)
    ):
        raise UserError(
            "the U-Net of an upscaler has 3, 12, 27, ... channels out and twice as many in, "
            f"{len(FACTORS)} classes and as many residual_std, and no attention; this one has "
            f"{hyper.out_channels} out, {hyper.in_channels} in, {hyper.num_class_embeds} classes, "
            f"{len(residual_std)} residual_std"
        )
    side = network.config.get("sample_size") or 32
    weight = next(network.parameters())
    return Upscaler(
        name="",
        hash="",
        denoiser=denoiser,
        noise_schedule=denoiser.schedule,
        residual_std=residual_std,
        fold=fold,
        window=side * fold,
        device=weight.device,
        dtype=weight.dtype,
    )

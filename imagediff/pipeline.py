"""The way of one picture: prompt -> conditioning -> guidance -> sampler -> latents -> picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from imagediff.adapter import AdapterInputs, load_inputs, tell
from imagediff.codec import ImageCodec
from imagediff.layout_settings import Layout
from imagediff.settings import DEFAULT_GUIDANCE_SCALE, Settings
from imagediff.sheets import to_pil
from shared.checkpoints import (
    load_adapted,
    load_denoiser,
    load_student,
    load_vae,
    model_hash,
    read_config,
)
from shared.conditioning import Conditioning, concatenate
from shared.denoiser import DenoiseFn, Denoiser
from shared.devices import dtype_name, resolve_device, resolve_dtype
from shared.editing import Known
from shared.errors import DivergenceError, UserError
from shared.generation import sample_latents, sampling_mode
from shared.guidance import Guidance, compose
from shared.models import find_model
from shared.naming import choose
from shared.pipelines import batches, encode_prompts, for_sampling, prompt_remarks
from shared.prompt_guidance import prompt_guidance
from shared.provenance import version
from shared.samplers import SAMPLERS, Callback
from shared.schedules import NoiseSchedule, make_sigmas
from shared.settings import (
    DEFAULT_SAMPLER,
    DEFAULT_SCHEDULE,
    PROMPT_ALONE,
    GuidanceSettings,
    check_count,
    valid_unicode,
)
from shared.text import TextEncoder
from shared.weaker import ConditioningBy, checked_weaker, weak_guide
from shared.windows import windowed_plane

WRAP = 4  # latents of the opposite side that a tile is decoded with
LARGEST = 8  # largest side that is taken, in multiples of the side the model was trained at


@dataclass(frozen=True)
class ImagePipeline:
    """A text-to-image model, loaded: ``ImagePipeline.load("builtin")("a red apple")``."""

    name: str
    folder: Path
    hash: str  # of the weights and configs
    denoiser: Denoiser
    noise_schedule: NoiseSchedule  # that the denoiser was trained on
    codec: ImageCodec
    text_encoder: TextEncoder
    native_size: tuple[int, int]  # width and height in pixels that it was trained at
    size_multiple: int  # of pixels: each level of the network halves the latents
    device: torch.device
    dtype: torch.dtype
    student: bool = False  # the denoiser is the student's that the model carries
    inputs: AdapterInputs | None = None  # of the adapter, if the denoiser is the adapter's

    @classmethod
    def load(
        cls,
        model: str | Path = "builtin",
        device: str = "auto",
        dtype: str = "auto",
        student: bool = False,
    ) -> ImagePipeline:
        """Load a model by name (``duotone models`` lists them) or from a folder.

        Args:
            model: a name, or a folder in diffusers' layout.
            device: "auto", "cpu", "cuda" or "mps".
            dtype: "auto", "float32", "bfloat16" or "float16".
            student: take the student for few steps that the model carries (``student/``).

        Raises:
            UserError: no such model, student or device, or a folder that is no whole text-to-image
                model.
        """
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        found = find_model(model)
        denoiser = (load_student if student else load_denoiser)(found.folder, where, precision)
        if denoiser.schedule is None:
            raise UserError(f"model {found.name!r} has no list of trained noise levels")
        codec = ImageCodec(for_sampling(load_vae(found.folder / "vae", where, precision)))
        unet = read_config(found.folder / "unet")
        sides = unet.get("sample_size") or 64  # of the latents
        height, width = (sides, sides) if isinstance(sides, int) else sides
        levels = len(unet.get("block_out_channels") or range(4))
        return cls(
            name=found.name,
            folder=found.folder,
            hash=model_hash(found.folder),
            denoiser=for_sampling(denoiser),
            noise_schedule=denoiser.schedule,
            codec=codec,
            text_encoder=TextEncoder.load(found.folder, where, precision),
            native_size=(width * codec.factor, height * codec.factor),
            size_multiple=codec.factor * 2 ** (levels - 1),
            device=where,
            dtype=precision,
            student=student,
        )

    @cached_property
    def adapted(self) -> ImagePipeline:
        """The same with the adapter that the model carries: it takes layouts, and what is known.

        Raises:
            UserError: the model carries none.
        """
        inputs = load_inputs(self.folder, self.device, self.dtype)
        denoiser = for_sampling(load_adapted(self.folder, self.device, self.dtype))
        return replace(self, denoiser=denoiser, inputs=inputs.requires_grad_(False), student=False)

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        count: int = 1,
        seed: int = 0,
        steps: int = 25,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
        sampler: str = DEFAULT_SAMPLER,
        schedule: str = DEFAULT_SCHEDULE,
        size: tuple[int, int] | None = None,
        tile: bool = False,
        layout: Layout = (),
        guidance: GuidanceSettings = PROMPT_ALONE,
        callback: Callback | None = None,
        guidances: Sequence[Guidance] = (),
    ) -> list[Image.Image]:
        """Make ``count`` pictures of each prompt, with the seeds seed, seed + 1, ...

        Args:
            prompt: what to draw; a sequence of prompts gives ``count`` pictures of each, in order.
            negative_prompt: what to move away from.
            steps: of the sampler, 1 to 10000.
            guidance_scale: how strongly the prompt is followed; 1 is off.
            sampler: a name in :data:`shared.samplers.SAMPLERS`.
            schedule: a name in :data:`shared.schedules.SCHEDULES`: the spacing of noise levels.
            size: width and height in pixels; None for the size the model was trained at. What is
                larger is made of overlapping windows that are denoised together.
            tile: whether the picture goes on at its other side, as a seamless texture does.
            layout: what is to be where; it needs a pipeline that is :attr:`adapted`.
            guidance: more about it than its scale.
            callback: called as (step, x, sigma, denoised) in each step of each batch.
            guidances: more that steers, see :meth:`generate`.

        Returns:
            The pictures; each is the one made alone with its prompt and seed.

        Raises:
            UserError: a value that the model or the sampler does not take.
        """
        plan = self.plan(
            prompt,
            negative_prompt=negative_prompt,
            count=count,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            schedule=schedule,
            size=size,
            tile=tile,
            layout=layout,
            guidance=guidance,
        )
        return list(self.generate(plan, callback, guidances=guidances))

    def plan(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        count: int = 1,
        seed: int = 0,
        steps: int = 25,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
        sampler: str = DEFAULT_SAMPLER,
        schedule: str = DEFAULT_SCHEDULE,
        size: tuple[int, int] | None = None,
        tile: bool = False,
        layout: Layout = (),
        guidance: GuidanceSettings = PROMPT_ALONE,
    ) -> list[Settings]:
        """The settings of each picture that a call with these arguments makes, checked.

        Raises:
            UserError: a value that the model or the sampler does not take.
        """
        check_count(count)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        plan = [
            Settings(
                prompt=valid_unicode(text),
                negative_prompt=valid_unicode(negative_prompt),
                seed=one_seed,
                steps=steps,
                guidance_scale=float(guidance_scale),
                sampler=sampler,
                schedule=schedule,
                size=size or self.native_size,
                tile=tile,
                layout=layout,
                model=self.name,
                model_hash=self.hash,
                device=self.device.type,
                dtype=dtype_name(self.dtype),
                version=version(),
                torch_version=str(torch.__version__),
                guidance=checked_weaker(guidance, "image", self.folder),
                student=self.student,
            )
            for text in prompts
            for one_seed in range(seed, seed + count)
        ]
        choose("sampler", sampler, SAMPLERS)
        make_sigmas(schedule, steps, self.noise_schedule)
        self._check_size(*(size or self.native_size))
        return plan

    def generate(
        self,
        plan: Sequence[Settings],
        callback: Callback | None = None,
        *,
        guidances: Sequence[Guidance] = (),
    ) -> Iterator[Image.Image]:
        """Make the pictures of a plan, in its order.

        ``guidances`` go around the denoiser that the prompt guides, the first innermost; each may
        take gradients through it. They get the latents of a whole batch (see :meth:`batches`).
        """
        for batch in self.batches(plan):
            yield from self._sample(batch, callback, guidances)

    def batches(self, plan: Sequence[Settings]) -> Iterator[list[Settings]]:
        """What is computed at once; on a CPU each picture alone."""
        return batches(plan, self.device)

    def remarks(self, prompt: str) -> list[str]:
        """What to tell a user about a prompt, a line each: words never seen, an end cut off."""
        return prompt_remarks(self.name, self.folder, self.text_encoder, prompt)

    def denoise_fn(self, batch: Sequence[Settings], known: Known | None = None) -> DenoiseFn:
        """The denoiser guided by the prompts of settings that differ in prompt and seed only.

        Works on their latents together, (b c h w), by windows where those are large. Conditionings
        made under ``torch.inference_mode`` cannot be differentiated through.

        Args:
            known: what the network is told of the picture; the pipeline must be :attr:`adapted`.

        Raises:
            UserError: there is a layout, or something known, and the pipeline is not adapted.
        """
        prompts = [settings.prompt for settings in batch]
        uncond = encode_prompts(self.text_encoder, [settings.negative_prompt for settings in batch])
        if self.inputs is not None:
            cond = encode_prompts(self.text_encoder, prompts)
            return self._told(batch, cond, uncond, known)
        if batch[0].layout or known is not None:
            raise UserError(
                f"the network of model {self.name!r} takes no layout; an adapted pipeline's does"
            )
        return self.guided(batch[0], lambda encoder: encode_prompts(encoder, prompts), uncond)

    def guided(
        self, settings: Settings, cond_by: ConditioningBy, uncond: Conditioning
    ) -> DenoiseFn:
        """The denoiser guided by conditionings, with and without a prompt, as settings say."""
        cond = cond_by(self.text_encoder)
        weak = weak_guide(settings.guidance, "image", self.device, self.dtype, cond_by)
        guide = prompt_guidance(self.denoiser, settings, self.noise_schedule, weak)

        @cache
        def of(windows: int) -> DenoiseFn:
            return guide(concatenate([cond] * windows), concatenate([uncond] * windows))

        batch = 1 if cond.context is None else len(cond.context)
        return self._windowed(lambda x, sigma: of(len(x) // batch)(x, sigma), settings)

    def _windowed(self, denoise: DenoiseFn, settings: Settings) -> DenoiseFn:
        """Over the latents of the settings' size, by windows of the model's own where need be."""
        _, height, width = self.latent_shape(settings.size)
        _, *native = self.latent_shape(self.native_size)
        return windowed_plane(denoise, (height, width), (native[0], native[1]), wrap=settings.tile)

    def _told(
        self,
        batch: Sequence[Settings],
        cond: Conditioning,
        uncond: Conditioning,
        known: Known | None,
    ) -> DenoiseFn:
        """:meth:`guided` with the adapter's further input channels.

        Guidance leads away from what knows neither prompt nor layout; what is known of the picture
        is known with and without them.
        """
        assert self.inputs is not None
        settings, inputs = batch[0], self.inputs
        if settings.guidance.autoguidance is not None:
            raise UserError("autoguidance knows neither layouts nor --method concat; leave one out")
        told = tell(settings, self.latent_shape(settings.size), inputs, self.text_encoder, known)
        with torch.no_grad():
            channels = torch.cat([inputs(told), inputs(replace(told, said=0 * told.said))], 1)
        guide = prompt_guidance(self.denoiser, settings, self.noise_schedule)
        channels = channels.to(self.device, torch.float32)
        split = (self.codec.channels, inputs.channels, inputs.channels)

        def denoise(joined: Tensor, sigma: Tensor) -> Tensor:
            x, plane, plane_without = joined.split(split, 1)
            windows = len(x) // len(batch)
            denoised = guide(
                replace(concatenate([cond] * windows), concat=plane),
                replace(concatenate([uncond] * windows), concat=plane_without),
            )(x, sigma)
            return torch.cat([denoised, plane, plane_without], 1)

        # The channels go along with the state, so that each window has its own part of them.
        by_windows = self._windowed(denoise, settings)

        def along(x: Tensor, sigma: Tensor) -> Tensor:
            plane = channels.expand(len(x), -1, -1, -1).to(x)
            return by_windows(torch.cat([x, plane], 1), sigma)[:, : x.shape[1]]

        return along

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """c h w of the latents of a picture of this width and height in pixels."""
        width, height = size
        return self.codec.channels, height // self.codec.factor, width // self.codec.factor

    def _sample(
        self,
        batch: list[Settings],
        callback: Callback | None,
        guidances: Sequence[Guidance] = (),
    ) -> list[Image.Image]:
        common = batch[0]  # all but prompts and seeds
        with sampling_mode(guidances):
            latents = sample_latents(
                compose(self.denoise_fn(batch), *guidances),
                common,
                self.noise_schedule,
                [settings.seed for settings in batch],
                self.latent_shape(common.size),
                self.device,
                callback=callback,
            )
            return self.decode(latents, wrap=common.tile)

    @torch.no_grad()
    def decode(self, latents: Tensor, wrap: bool = False) -> list[Image.Image]:
        """Latents (b c h w) as pictures; with ``wrap``, each side is decoded beside its opposite.

        Raises:
            UserError: there are infinite numbers among them.
        """
        margin = [min(WRAP, side) if wrap else 0 for side in latents.shape[2:]]
        beyond = (margin[1], margin[1], margin[0], margin[0])
        images = self.codec.decode(F.pad(latents, beyond, mode="circular") if wrap else latents)
        top, left = (side * self.codec.factor for side in margin)
        height, width = (side * self.codec.factor for side in latents.shape[2:])
        images = images[..., top : top + height, left : left + width]  # (b 3 h w) in [-1, 1]
        if not images.isfinite().all():
            raise DivergenceError("the numbers overflowed; a lower guidance scale or float32 helps")
        return to_pil(images)

    def _check_size(self, width: int, height: int) -> None:
        multiple = self.size_multiple
        largest = LARGEST * max(self.native_size)
        if any(side % multiple or not multiple <= side <= largest for side in (width, height)):
            raise UserError(
                f"size {width}x{height} does not suit model {self.name!r}: each side must be a "
                f"multiple of {multiple} from {multiple} to {largest} "
                f"(it was trained at {'x'.join(map(str, self.native_size))})"
            )

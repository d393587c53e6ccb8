"""The way of one clip: prompt -> conditioning -> guidance -> sampler -> latents -> sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from audiodiff import long_clips
from audiodiff.clip import Clip
from audiodiff.codec import MusicCodec
from audiodiff.controls import Controls, check_controls
from audiodiff.finish import finish
from audiodiff.guided_windows import guided_windows
from audiodiff.loops import circle, decode_circle
from audiodiff.settings import (
    DEFAULT_GUIDANCE_SCALE,
    DEFAULT_LOUDNESS,
    MusicSettings,
    check_wishes,
)
from audiodiff.sketch import Sketch
from audiodiff.steering import steering
from audiodiff.told import check_channels, check_length, emphases, lessened, stacked, told
from audiodiff.wishes import loop_seconds, read_wishes, wishes_of
from shared.checkpoints import load_denoiser, load_student, model_hash, read_config
from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.devices import dtype_name, resolve_device, resolve_dtype
from shared.errors import DivergenceError, UserError
from shared.generation import sample_latents, sampling_mode
from shared.guidance import Guidance, autoguidance, compose
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
from shared.weaker import checked_weaker, weak_guide
from shared.windows import in_one_piece

SHORTEST = 16  # latent frames that are sampled at least; a shorter clip is their beginning


@dataclass(frozen=True)
class MusicPipeline:
    """A text-to-music model, loaded: ``MusicPipeline.load("builtin")("a slow waltz")``."""

    name: str
    folder: Path
    hash: str  # of the weights and configs
    denoiser: Denoiser
    noise_schedule: NoiseSchedule  # that the denoiser was trained on
    codec: MusicCodec
    text_encoder: TextEncoder
    window: int  # latent frames that it was trained at
    frame_multiple: int  # of latent frames: each level of the network halves them
    device: torch.device
    dtype: torch.dtype
    student: bool = False  # the denoiser is the student's that the model carries

    @classmethod
    def load(
        cls,
        model: str | Path = "builtin",
        device: str = "auto",
        dtype: str = "auto",
        student: bool = False,
    ) -> MusicPipeline:
        """Load a model by name (``duotone models`` lists them) or from a folder.

        Args:
            model: a name, or a folder in diffusers' layout with ``vocoder`` and ``controls.json``.
            device: "auto", "cpu", "cuda" or "mps".
            dtype: "auto", "float32", "bfloat16" or "float16".
            student: take the student for few steps that the model carries (``student/``).

        Raises:
            UserError: no such model, student or device, or a folder that is no whole text-to-music
                model.
        """
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        found = find_model(model, "music")
        check_controls(found.folder)
        denoiser = (load_student if student else load_denoiser)(found.folder, where, precision)
        if denoiser.schedule is None:
            raise UserError(f"model {found.name!r} has no list of trained noise levels")
        codec = MusicCodec.load(found.folder, where, precision)
        for_sampling(codec.vae)
        unet = read_config(found.folder / "unet")
        sides = unet.get("sample_size") or 64  # of the latents
        check_channels(found.name, unet, codec)
        return cls(
            name=found.name,
            folder=found.folder,
            hash=model_hash(found.folder),
            denoiser=for_sampling(denoiser),
            noise_schedule=denoiser.schedule,
            codec=codec,
            text_encoder=TextEncoder.load(found.folder, where, precision),
            window=sides if isinstance(sides, int) else sides[1],
            frame_multiple=2 ** (len(unet.get("block_out_channels") or range(4)) - 1),
            device=where,
            dtype=precision,
            student=student,
        )

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        seconds: float = 6.0,
        bpm: float | None = None,
        key: str | None = None,
        meter: int | None = None,
        loop: int | None = None,
        negative_prompt: str = "",
        count: int = 1,
        seed: int = 0,
        steps: int = 25,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
        sampler: str = DEFAULT_SAMPLER,
        schedule: str = DEFAULT_SCHEDULE,
        sample_rate: int | None = None,
        loudness: float = DEFAULT_LOUDNESS,
        guidance: GuidanceSettings = PROMPT_ALONE,
        sketch: Sketch | None = None,
        controls: Controls | None = None,
        callback: Callback | None = None,
        guidances: Sequence[Guidance] = (),
    ) -> list[Clip]:
        """Make ``count`` clips of each prompt, with the seeds seed, seed + 1, ...

        Args:
            prompt: what to play; a sequence of prompts gives ``count`` clips of each, in order.
            seconds: length, 0.5 to 600. What is longer than the model's own window is made of
                overlapping windows that are denoised together.
            bpm: beats a minute; the first beat is the first sample. None leaves it to the prompt.
            key: such as "A minor"; None leaves it to the prompt.
            meter: beats a bar; None leaves it to the prompt.
            loop: bars of a clip whose end goes on at its beginning; its length follows from them.
            negative_prompt: what to move away from.
            steps: of the sampler, 1 to 10000.
            guidance_scale: how strongly the prompt is followed; 1 is off.
            sampler: a name in :data:`shared.samplers.SAMPLERS`.
            schedule: a name in :data:`shared.schedules.SCHEDULES`: the spacing of noise levels.
            sample_rate: of the clips in Hz; None for the model's own.
            loudness: of the clips in LUFS.
            guidance: more about it than its scale.
            sketch: a tune, chords, a rhythm, curves to keep; see :mod:`audiodiff.inputs`.
            controls: what to follow moment by moment, instead of all that prompt, options and
                sketch tell the control channels; no shorter than the clip.
            callback: called as (step, x, sigma, denoised) in each step of each batch.
            guidances: more that steers, see :meth:`generate`.

        Returns:
            The clips; each is the one made alone with its prompt and seed.

        Raises:
            UserError: a value that the model or the sampler does not take.
        """
        plan = self.plan(
            prompt,
            seconds=seconds,
            bpm=bpm,
            key=key,
            meter=meter,
            loop=loop,
            negative_prompt=negative_prompt,
            count=count,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            schedule=schedule,
            sample_rate=sample_rate,
            loudness=loudness,
            guidance=guidance,
            sketch=sketch,
        )
        given = controls and [controls] * len(plan)
        return list(self.generate(plan, callback, given, guidances=guidances))

    def plan(
        self,
        prompt: str | Sequence[str],
        *,
        seconds: float = 6.0,
        bpm: float | None = None,
        key: str | None = None,
        meter: int | None = None,
        loop: int | None = None,
        negative_prompt: str = "",
        count: int = 1,
        seed: int = 0,
        steps: int = 25,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
        sampler: str = DEFAULT_SAMPLER,
        schedule: str = DEFAULT_SCHEDULE,
        sample_rate: int | None = None,
        loudness: float = DEFAULT_LOUDNESS,
        guidance: GuidanceSettings = PROMPT_ALONE,
        sketch: Sketch | None = None,
    ) -> list[MusicSettings]:
        """The settings of each clip that a call with these arguments makes, checked.

        Raises:
            UserError: a value that the model or the sampler does not take.
        """
        check_count(count)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        check_wishes(bpm, key, meter, loop)
        own_rate = self.codec.front_end.sample_rate
        plan = [
            MusicSettings(
                prompt=valid_unicode(text),
                negative_prompt=valid_unicode(negative_prompt),
                seed=one_seed,
                steps=steps,
                guidance_scale=float(guidance_scale),
                sampler=sampler,
                schedule=schedule,
                seconds=float(seconds if loop is None else loop_seconds(text, bpm, meter, loop)),
                bpm=None if bpm is None else float(bpm),
                key=key,
                meter=meter,
                loop=loop,
                sample_rate=own_rate if sample_rate is None else sample_rate,
                loudness=float(loudness),
                sketch=sketch,
                model=self.name,
                model_hash=self.hash,
                device=self.device.type,
                dtype=dtype_name(self.dtype),
                version=version(),
                torch_version=str(torch.__version__),
                guidance=checked_weaker(guidance, "music", self.folder),
                student=self.student,
            )
            for text in prompts
            for one_seed in range(seed, seed + count)
        ]
        choose("sampler", sampler, SAMPLERS)
        make_sigmas(schedule, steps, self.noise_schedule)
        return plan

    def generate(
        self,
        plan: Sequence[MusicSettings],
        callback: Callback | None = None,
        controls: Sequence[Controls | None] | None = None,
        *,
        guidances: Sequence[Guidance] = (),
    ) -> Iterator[Clip]:
        """Make the clips of a plan, in its order.

        ``controls``, one for each clip, replace what prompt and options state; None does not.
        ``guidances`` go around the denoiser that prompt and controls guide, the first innermost;
        each may take gradients through it. They get the whole latents, of all windows, of a batch
        (see :meth:`batches`).
        """
        given = list(controls or [None] * len(plan))
        if len(given) != len(plan):
            raise UserError(f"{len(given)} controls do not suit {len(plan)} clips")
        for own, settings in zip(given, plan, strict=True):
            check_length(own, self._needed_frames(settings.seconds))
        done = 0
        for batch in self.batches(plan):
            yield from self._sample(batch, given[done : done + len(batch)], callback, guidances)
            done += len(batch)

    def batches(self, plan: Sequence[MusicSettings]) -> Iterator[list[MusicSettings]]:
        """What is computed at once; on a CPU each clip alone."""
        return batches(plan, self.device)

    def remarks(
        self,
        prompt: str,
        bpm: float | None = None,
        key: str | None = None,
        meter: int | None = None,
        loop: int | None = None,
    ) -> list[str]:
        """What to tell a user about a prompt, a line each.

        Words never seen, an end cut off, and where the options do not say what the prompt says.
        """
        if not prompt.strip():
            return []
        wishes = read_wishes(prompt, bpm, key, meter, loop)
        about = prompt_remarks(self.name, self.folder, self.text_encoder, wishes.text)
        return [*wishes.notes, *about]

    def latent_frames(self, seconds: float) -> int:
        """Latent frames that are sampled for a clip; it is the beginning of them."""
        needed = max(self._needed_frames(seconds), SHORTEST)
        if needed > in_one_piece(self.window):
            return needed
        return -(-needed // self.frame_multiple) * self.frame_multiple

    def _needed_frames(self, seconds: float) -> int:
        samples = round(seconds * self.codec.front_end.sample_rate)
        return -(-samples // self.codec.samples_per_frame)

    def _sample(
        self,
        batch: list[MusicSettings],
        controls: Sequence[Controls | None],
        callback: Callback | None,
        guidances: Sequence[Guidance] = (),
    ) -> list[Clip]:
        common = batch[0]  # all but prompts and seeds
        looped = None if common.loop is None else circle(common.seconds, self.codec)
        frames = self.latent_frames(common.seconds) if looped is None else looped.frames
        around = (*steering(common.sketch, self.codec, frames), *guidances)
        with sampling_mode(around):
            latents = sample_latents(
                compose(self.denoise_fn(batch, frames, controls), *around),
                common,
                self.noise_schedule,
                [settings.seed for settings in batch],
                self.latent_shape(frames),
                self.device,
                callback=callback,
            )
            return [
                self._clip(one, latents[i : i + 1], bool(guidances) or controls[i] is not None)
                for i, one in enumerate(batch)
            ]

    def denoise_fn(
        self,
        batch: Sequence[MusicSettings],
        frames: int,
        controls: Sequence[Controls | None] | None = None,
    ) -> DenoiseFn:
        """The denoiser guided by prompts and controls of settings that differ in prompt and seed.

        Works on their latents together, (b z rows frames), by windows where those are long.
        Conditionings made under ``torch.inference_mode`` cannot be differentiated through.

        Args:
            controls: one for each, in place of what its prompt and options state; None is that.
        """
        everything = told(batch, frames, controls)
        denoise = self._denoise_fn(batch, everything, frames)
        for weight, fewer in lessened(batch, everything):
            denoise = autoguidance(denoise, self._denoise_fn(batch, fewer, frames), weight)
        return denoise

    def _denoise_fn(
        self, batch: Sequence[MusicSettings], controls: Sequence[Controls], frames: int
    ) -> DenoiseFn:
        """The denoiser guided by prompts, with these controls."""
        concat = stacked(controls, self.codec.rows, frames).to(self.device)
        prompts = [wishes_of(one).text for one in batch]
        cond = self._encode(prompts, concat)
        # Nothing is known there, so that guidance is towards the controls as well.
        negatives = [settings.negative_prompt for settings in batch]
        uncond = self._encode(negatives, torch.zeros_like(concat))
        one, by = batch[0], partial(encode_prompts, prompts=prompts)
        weak = weak_guide(one.guidance, "music", self.device, self.dtype, by)
        guide = prompt_guidance(self.denoiser, one, self.noise_schedule, weak, emphases(controls))
        return guided_windows(guide, cond, uncond, self.window, loop=one.loop is not None)

    def latent_shape(self, frames: int) -> tuple[int, int, int]:
        """z rows t of ``frames`` latent frames."""
        return self.codec.channels, self.codec.rows, frames

    def _encode(self, prompts: list[str], concat: torch.Tensor) -> Conditioning:
        return replace(encode_prompts(self.text_encoder, prompts), concat=concat)

    def _clip(self, settings: MusicSettings, latents: torch.Tensor, steered: bool) -> Clip:
        """One clip of its latents (1 z rows t)."""
        if settings.loop is not None:
            made = decode_circle(self.codec, latents, circle(settings.seconds, self.codec).samples)
        else:
            needed = max(self._needed_frames(settings.seconds), SHORTEST)
            made = long_clips.decode(self.codec, latents[..., :needed])
        if not made.isfinite().all():
            raise DivergenceError("the numbers overflowed; a lower guidance scale or float32 helps")
        samples = made[0].float().cpu().numpy()  # (2 s)
        samples = finish(samples, self.codec.front_end.sample_rate, settings)
        return Clip(samples, settings.sample_rate, settings, steered)

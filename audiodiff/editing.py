"""Making a part of a clip anew: continuation, infill, regeneration, transition, another style.

The five tasks of Levy et al. 2023 (arXiv 2311.00613) and restyling (SDEdit, 2108.01073) are one
thing here: a clip in which a part is free, perhaps with a draft of what it begins from. The model
works on that part and on what it hears on both sides, whatever the length of the file; all other
samples are the file's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiodiff import long_clips
from audiodiff.audio_file import resample
from audiodiff.controls import Controls, unknown
from audiodiff.edit_settings import Edit, EditSettings
from audiodiff.finish import EDGE_SECONDS, faded_edge
from audiodiff.joins import joined
from audiodiff.labels import SAMPLE_RATE, SAMPLES_PER_FRAME
from audiodiff.loudness import LUFS, loudness
from audiodiff.pipeline import SHORTEST, MusicPipeline
from audiodiff.sound_file import Sound
from audiodiff.transition_controls import transition_controls
from audiodiff.transitions import Meeting, draft, meet
from shared.editing import Known, fill
from shared.errors import DivergenceError
from shared.generation import Start, Walk, inverted_noise, of_source, sample_latents
from shared.guidance import Guidance, compose
from shared.pipelines import batches
from shared.samplers import Callback
from shared.schedules import make_sigmas

CONTEXT = 16  # latent frames that are heard on either side at least, as far as there are
HEARD_SECONDS = 3.0  # on either side, to which the loudness of what is made is matched
MOST_GAIN_DB = 12.0  # that is given to it or taken
PEAK = 10 ** (-0.5 / 20)  # of what is made, unless the clip is louder


@dataclass(frozen=True, eq=False)
class Job:
    """An edit, prepared.

    Attributes:
        sound: the result but for its free part, which holds the draft, or what it was, or silence.
        start, end: the free part, in samples.
        drafted: whether the model begins from what the free part holds, and not from noise.
        strength: the share of steps that are walked from a draft.
        meeting: how two tracks meet there.
    """

    sound: Sound
    start: int
    end: int
    drafted: bool = False
    strength: float = 1.0
    meeting: Meeting | None = None

    @property
    def joins(self) -> list[int]:
        """The samples where free meets kept."""
        return [at for at in (self.start, self.end) if 0 < at < self.sound.length]


@dataclass(frozen=True)
class Region:
    """What the model works on: ``frames`` latent frames from sample ``start`` of the file on.

    Attributes:
        start: in samples of the file.
        frames: latent frames.
        first, last: those of them that are made, ``last`` not included; the others are known.
        end: the first frame after the end of the clip.
    """

    start: int
    frames: int
    first: int
    last: int
    end: int

    def known(self) -> Tensor:
        """(frames) bool."""
        places = torch.arange(self.frames)
        return ((places < self.first) | (places >= self.last)) & (places < self.end)


def continuation(sound: Sound, edit: Edit, other: Sound | None) -> Job:
    """Seconds are added after the clip, or before it.

    Where the clip fades at that end so as not to click, as clips of this package do, the fade's few
    milliseconds are made anew as well: music that goes on does not dip there.
    """
    added = round(edit.added * sound.sample_rate)
    whole = sound.extended(added, edit.before)
    faded = faded_edge(sound.samples, sound.sample_rate, edit.before)
    if edit.before:
        return Job(whole, 0, added + faded)
    return Job(whole, sound.length - faded, sound.length + added)


def infill(sound: Sound, edit: Edit, other: Sound | None) -> Job:
    """A span is made anew from nothing."""
    return Job(sound, *_span(sound, edit))


def regeneration(sound: Sound, edit: Edit, other: Sound | None) -> Job:
    """A span is made anew from noise and itself."""
    return Job(sound, *_span(sound, edit), drafted=True, strength=math.nan)


def restyling(sound: Sound, edit: Edit, other: Sound | None) -> Job:
    """A span, or all, is walked back to some noise and made anew from there."""
    return Job(sound, *_span(sound, edit), drafted=True, strength=edit.strength)


def transition(sound: Sound, edit: Edit, other: Sound | None) -> Job:
    """The end of one clip and the beginning of the other become the way from one to the other."""
    assert other is not None
    rate = sound.sample_rate
    meeting = meet(sound.samples, other.samples, rate, edit.overlap)
    start, enter = (round(seconds * rate) for seconds in (meeting.leave, meeting.enter))
    between = draft(sound.samples, other.samples, rate, meeting)
    values = np.concatenate(
        [sound.values[:, :start], sound.as_values(between), other.values[:, enter:]], axis=1
    )
    whole = Sound(values, rate, sound.subtype)
    end = start + between.shape[1]
    return Job(whole, start, end, drafted=True, strength=math.nan, meeting=meeting)


TASKS: Mapping[str, Callable[[Sound, Edit, Sound | None], Job]] = {
    "extend": continuation,
    "inpaint": infill,
    "vary": regeneration,
    "blend": transition,
    "restyle": restyling,
}


Place = Callable[[Job, np.ndarray], Sound]
"""What was prepared and its free part (c n) as it was made -> the clip."""


def by_method(settings: EditSettings) -> Callable[[Known], Walk]:
    """The walk that the settings' method makes of what is known."""
    return lambda known: fill(known, settings.sampler, settings.how())


def region_of(job: Job, pipeline: MusicPipeline) -> Region:
    """The part of the clip that the model needs to hear and make.

    The free part begins with a latent frame, so that none is half known; and those beside it are
    made as well, for their spectra reach into it.
    """
    per_frame = SAMPLES_PER_FRAME * job.sound.sample_rate / SAMPLE_RATE  # samples of the file
    inside = math.ceil((job.end - job.start) / per_frame - 1e-9)
    context = max(CONTEXT, (pipeline.window - inside) // 2)
    left = min(context, int(job.start / per_frame))
    start = round(job.start - left * per_frame)
    right = min(context, int((job.sound.length - job.end) / per_frame))
    frames = left + inside + right
    seconds = max(frames, SHORTEST) * SAMPLES_PER_FRAME / SAMPLE_RATE
    return Region(
        start=start,
        frames=pipeline.latent_frames(seconds),
        first=max(left - 1, 0),
        last=left + inside + min(right, 1),
        end=frames,
    )


def edit_clip(
    pipeline: MusicPipeline,
    job: Job,
    plan: Sequence[EditSettings],
    controls: Controls | None = None,
    *,
    guidances: Sequence[Guidance] = (),
    walk: Callable[[Known], Walk] | None = None,
    place: Place | None = None,
    callback: Callback | None = None,
) -> Iterator[Sound]:
    """Make the edits of a plan, which differ in seed only, in its order.

    Args:
        controls: of the region's frames; None for what is known of a transition.
        guidances: more that steers, the first innermost.
        walk: fills what is free beside what is known, in place of the plan's method.
        place: puts what was made into the clip; by default :func:`placed`.

    Raises:
        DivergenceError: the numbers overflowed.
    """
    region = region_of(job, pipeline)
    with torch.no_grad():
        hearing, gain = heard(job, region, pipeline)
        latents = long_clips.encode(pipeline.codec, hearing)
    mask = region.known()
    controls = controls or _told(job, region)
    known = Known(latents, mask.expand(1, 1, 1, -1)) if mask.any() else None
    for batch in batches(plan, pipeline.device):
        common = batch[0]
        strength = job.strength
        if math.isnan(strength):
            strength = regenerated_steps(pipeline, common) / common.steps
        # Not inference_mode: some methods take gradients through the denoiser.
        with torch.no_grad():
            heard_too = [controls] * len(batch)
            denoise = pipeline.denoise_fn(batch, region.frames, heard_too)
            start = Start(latents, strength) if job.drafted else None
            begin = None
            if common.invert is not None and start is not None:
                sources = [of_source(settings, common.invert) for settings in batch]
                source = pipeline.denoise_fn(sources, region.frames, heard_too)
                schedule = pipeline.noise_schedule
                begin = inverted_noise(source, common, schedule, start, callback)
            made = sample_latents(
                compose(denoise, *guidances),
                common,
                pipeline.noise_schedule,
                [settings.seed for settings in batch],
                pipeline.latent_shape(region.frames),
                pipeline.device,
                start=start,
                begin=begin,
                walk=None if known is None else (walk or by_method(common))(known),
                callback=callback,
            )
            sounds = [
                (place or placed)(job, played(job, region, pipeline, one[None], gain))
                for one in made
            ]
        yield from sounds


def walked_steps(pipeline: MusicPipeline, job: Job, settings: EditSettings) -> int:
    """The sampling steps that an edit walks."""
    if not job.drafted:
        return settings.steps
    if math.isnan(job.strength):
        return regenerated_steps(pipeline, settings)
    return round(job.strength * settings.steps)


def regenerated_steps(pipeline: MusicPipeline, settings: EditSettings) -> int:
    """The steps left from where noise has the share k: ``k * noise + (1 - k) * x0``.

    That is ``x0 + sigma * noise`` with sigma = k / (1 - k), but for its size.
    """
    sigmas = make_sigmas(settings.schedule, settings.steps, pipeline.noise_schedule)
    level = settings.noise / (1 - settings.noise)
    return min(int((sigmas[:-1] <= level).sum()) + 1, settings.steps)


def _told(job: Job, region: Region) -> Controls:
    """What the model is told of the region's frames beside the words."""
    if job.meeting is None:
        return unknown(region.frames)
    start = (region.start - job.start) / job.sound.sample_rate
    return transition_controls(job.meeting, start, region.frames)


def _span(sound: Sound, edit: Edit) -> tuple[int, int]:
    if edit.span is None:
        return 0, sound.length
    start, end = (round(second * sound.sample_rate) for second in edit.span)
    return start, min(end, sound.length)


def heard(job: Job, region: Region, pipeline: MusicPipeline) -> tuple[Tensor, float]:
    """The region as the model hears music, (1 2 s), and the gain that made it so loud."""
    rate = job.sound.sample_rate
    count = round(region.frames * SAMPLES_PER_FRAME * rate / SAMPLE_RATE)
    piece = job.sound.samples[:, region.start : region.start + count]
    level = loudness(piece, rate)
    gain = 10 ** ((LUFS - level) / 20) if np.isfinite(level) else 1.0
    here = resample(piece * np.float32(gain), rate, SAMPLE_RATE)
    length = region.frames * SAMPLES_PER_FRAME
    here = np.pad(here, ((0, 0), (0, max(0, length - here.shape[1]))))[:, :length]
    both = np.broadcast_to(here, (2, length)).astype(np.float32)
    return torch.from_numpy(both)[None].to(pipeline.device), gain


def played(
    job: Job, region: Region, pipeline: MusicPipeline, latents: Tensor, gain: float
) -> np.ndarray:
    """The free part, (c n) with the clip's channels, decoded of latents (1 z rows t) of the region.

    Raises:
        DivergenceError: the numbers overflowed.
    """
    # Decoded alone, the frames at the edges would not know their neighbours.
    first, last = max(region.first - 4, 0), min(region.last + 4, region.frames)
    first, last = min(first, max(0, last - SHORTEST)), max(last, min(SHORTEST, region.frames))
    decoded = long_clips.decode(pipeline.codec, latents[..., first:last])[0]
    if not decoded.isfinite().all():
        raise DivergenceError("the numbers overflowed; a lower guidance scale or float32 helps")
    rate = job.sound.sample_rate
    samples = resample(decoded.float().cpu().numpy(), SAMPLE_RATE, rate) / gain
    per_frame = SAMPLES_PER_FRAME * rate / SAMPLE_RATE
    start = job.start - region.start - round(first * per_frame)
    made = samples[:, start : start + job.end - job.start]
    short = job.end - job.start - made.shape[1]
    made = np.pad(made, ((0, 0), (0, max(0, short))))
    return made.mean(axis=0, keepdims=True) if len(job.sound.values) == 1 else made


def placed(job: Job, made: np.ndarray) -> Sound:
    """The clip with its free part as it was made (c n): as loud as what is around it, joined."""
    sound = job.sound
    made = _matched(job, made)
    made = joined(sound.samples, job.start, made, job.start > 0, job.end < sound.length)
    return sound.with_part(job.start, _edged(job, made))


def _matched(job: Job, made: np.ndarray) -> np.ndarray:
    """What was made (c n), as loud as what it is to stand for or what lies around it."""
    rate = job.sound.sample_rate
    if job.drafted:
        wanted = loudness(job.sound.samples[:, job.start : job.end], rate)
    else:
        reach = round(HEARD_SECONDS * rate)
        sides = (
            job.sound.samples[:, max(0, job.start - reach) : job.start],
            job.sound.samples[:, job.end : job.end + reach],
        )
        levels = [loudness(side, rate) for side in sides if side.shape[1] > rate // 10]
        audible = [level for level in levels if np.isfinite(level)]
        wanted = float(np.mean(audible)) if audible else -np.inf
    own = loudness(made, rate)
    if np.isfinite(wanted) and np.isfinite(own):
        change = float(np.clip(wanted - own, -MOST_GAIN_DB, MOST_GAIN_DB))
        made = made * 10 ** (change / 20)
    most = max(PEAK, float(np.abs(job.sound.samples).max()))
    peak = float(np.abs(made).max(initial=0))
    return made * (most / peak) if peak > most else made


def _edged(job: Job, made: np.ndarray) -> np.ndarray:
    """With the ends that are the clip's own faded, so that they do not click."""
    count = min(round(EDGE_SECONDS * job.sound.sample_rate), made.shape[1])
    ramp = np.sin(np.linspace(0, np.pi / 2, count)) ** 2
    if job.start == 0:
        made[:, :count] *= ramp
    if job.end == job.sound.length:
        made[:, made.shape[1] - count :] *= ramp[::-1]
    return made

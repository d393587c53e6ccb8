"""Series of pictures: from one to another, along a time line, and the files they go into."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter

from imagediff.movie_settings import AnimationSettings, BlendSettings, Moment, Script
from imagediff.picture_file import exif_of
from imagediff.pipeline import ImagePipeline
from imagediff.png import PARAMETERS, RECORD
from imagediff.settings import DEFAULT_GUIDANCE_SCALE, parse_size
from imagediff.sheets import from_pil
from shared import provenance
from shared.conditioning import Conditioning
from shared.errors import UserError
from shared.files import whole_file
from shared.generation import Start, sample_latents
from shared.interpolation import slerp
from shared.noise import seeded_noise
from shared.pipelines import encode_prompts
from shared.samplers import Callback
from shared.settings import (
    DEFAULT_SAMPLER,
    DEFAULT_SCHEDULE,
    PROMPT_ALONE,
    GuidanceSettings,
    SampleSettings,
)
from shared.text import TextEncoder

QUALITY = 16  # of MP4: x264's rate factor, 0 (lossless) to 51
SOUND_BITS = 192_000  # a second of an MP4's AAC track


@dataclass(frozen=True, eq=False)
class Track:
    """The sound of a movie: samples (2 s) in [-1, 1] at ``sample_rate`` Hz, one AAC knows."""

    samples: np.ndarray
    sample_rate: int


@torch.inference_mode()
def blend(
    pipeline: ImagePipeline,
    settings: BlendSettings,
    first: Image.Image,
    second: Image.Image,
    callback: Callback | None = None,
) -> Iterator[Image.Image]:
    """Pictures (RGB, of the settings' size) from ``first`` to ``second``.

    Latents and prompts are interpolated on the sphere. The latents between would decode to two
    pictures laid over each other: so each is noised and denoised (SDEdit) with a strength that
    rises to the settings' in the middle and is 0 at the ends, which are the codec's reconstructions
    of the two pictures. One noise serves all.
    """

    def encode(picture: Image.Image) -> torch.Tensor:
        scaled = picture.resize(settings.size, Image.Resampling.LANCZOS)
        return pipeline.codec.encode(from_pil(scaled).to(pipeline.device))

    latents = encode(first), encode(second)
    texts = cache(partial(_contexts, first=settings.prompt, second=settings.other_prompt))
    uncond = encode_prompts(pipeline.text_encoder, [settings.negative_prompt])
    for frame in range(settings.frames):
        share = frame / (settings.frames - 1)
        made = sample_latents(
            pipeline.guided(settings, partial(_between, texts, share), uncond),
            settings,
            pipeline.noise_schedule,
            [settings.seed],
            pipeline.latent_shape(settings.size),
            pipeline.device,
            start=Start(slerp(*latents, share), blend_strength(settings.strength, share)),
            callback=callback,
        )
        yield pipeline.decode(made)[0]


def blend_strength(strength: float, share: float) -> float:
    """How far a picture at ``share`` of the way is made anew: 0 at both ends."""
    return strength * max(math.sin(math.pi * share), 0.0)


def animation(
    pipeline: ImagePipeline,
    script: Script,
    *,
    negative_prompt: str = "",
    steps: int = 25,
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
    sampler: str = DEFAULT_SAMPLER,
    schedule: str = DEFAULT_SCHEDULE,
    guidance: GuidanceSettings = PROMPT_ALONE,
) -> AnimationSettings:
    """The settings of the pictures along a script's time line, checked.

    Raises:
        UserError: a value that the model or the sampler does not take.
    """
    begin = script.keyframes[0]
    (settings,) = pipeline.plan(
        begin.prompt,
        negative_prompt=negative_prompt,
        seed=begin.seed,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        schedule=schedule,
        guidance=guidance,
        size=None if script.size is None else parse_size(script.size),
    )
    text = TypeAdapter(Script).dump_json(script).decode()
    return AnimationSettings(**vars(settings), task="animate", script=text)


@torch.inference_mode()
def animate(
    pipeline: ImagePipeline,
    settings: AnimationSettings,
    moments: Sequence[Moment],
    callback: Callback | None = None,
) -> Iterator[Image.Image]:
    """The pictures of moments; at a keyframe it is the one that its prompt and seed make alone.

    Between, noise and prompt are interpolated on the sphere, so that the noise stays noise.
    """
    shape = pipeline.latent_shape(settings.size)
    uncond = encode_prompts(pipeline.text_encoder, [settings.negative_prompt])
    for moment in moments:
        texts = partial(_contexts, first=moment.first.prompt, second=moment.second.prompt)
        ends = seeded_noise([moment.first.seed, moment.second.seed], shape, pipeline.device)
        made = sample_latents(
            pipeline.guided(settings, partial(_between, texts, moment.share), uncond),
            settings,
            pipeline.noise_schedule,
            [moment.first.seed],
            shape,
            pipeline.device,
            begin=slerp(ends[:1], ends[1:], moment.share),
            callback=callback,
        )
        yield pipeline.decode(made)[0]


_Texts = Callable[[TextEncoder], tuple[torch.Tensor, torch.Tensor]]


def _between(texts: _Texts, share: float, text_encoder: TextEncoder) -> Conditioning:
    return Conditioning(context=slerp(*texts(text_encoder), share))


def _contexts(
    text_encoder: TextEncoder, first: str, second: str
) -> tuple[torch.Tensor, torch.Tensor]:
    both = encode_prompts(text_encoder, [first, second]).context
    assert both is not None
    return both[:1], both[1:]


def save_movie(
    frames: Sequence[Image.Image],
    path: Path,
    fps: float,
    settings: SampleSettings,
    overwrite: bool = False,
    sound: Track | None = None,
) -> None:
    """Write pictures of one size that follow each other as a .mp4, .gif or .webp file.

    GIF keeps time in hundredths of a second and 256 colours a picture; MP4 (H.264) is made even in
    width and height by repeating the last column and row. Of these, only MP4 has ``sound``.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is false, it cannot be written, or it cannot
            have sound.
    """
    record = provenance.to_json(settings)
    suffix = path.suffix.lower()
    if sound is not None and suffix != ".mp4":
        raise UserError(f"{suffix} files have no sound; .mp4 files do")
    with whole_file(path, overwrite) as file:
        if suffix == ".mp4":
            _write_mp4(frames, file, fps, record, sound)
            return
        told = {"exif": exif_of({RECORD: record, PARAMETERS: settings.parameters()})}
        frames[0].save(
            file,
            format=suffix[1:].upper(),
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 / fps),
            loop=0,
            **(told if suffix == ".webp" else {"comment": record.encode()}),
            **({"lossless": True} if suffix == ".webp" else {}),
        )


def _write_mp4(
    frames: Sequence[Image.Image],
    file: BinaryIO,
    fps: float,
    record: str,
    sound: Track | None = None,
) -> None:
    width, height = (side + side % 2 for side in frames[0].size)
    with av.open(file, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = record
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # One thread: with more, the bytes would depend on the machine. No macroblock tree: with
        # AVX-512, x264's came out otherwise once in two thousand files, on a busy machine.
        stream.options = {"crf": str(QUALITY), "threads": "1", "mbtree": "0"}
        # Every stream of a file is announced before anything is written.
        track = sound and container.add_stream("aac", rate=sound.sample_rate, layout="stereo")
        for frame in frames:
            pixels = np.asarray(frame.convert("RGB"))
            room = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
            picture = av.VideoFrame.from_ndarray(np.pad(pixels, room, "edge"), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound is not None and track is not None:
            track.bit_rate = SOUND_BITS
            samples = np.ascontiguousarray(sound.samples, np.float32)
            heard = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            heard.sample_rate, heard.pts = sound.sample_rate, 0
            container.mux(track.encode(heard))
            container.mux(track.encode(None))


def movie_text(path: Path) -> dict[str, str]:
    """What a .mp4 file says of what made it, as a picture's text chunks would.

    Raises:
        UserError: no such file, or none that can be read.
    """
    try:
        with av.open(path) as container:
            comment = container.metadata.get("comment", "")
        return {RECORD: comment} if isinstance(json.loads(comment), dict) else {}
    except FileNotFoundError:
        raise UserError(f"there is no file {str(path)!r}") from None
    except OSError as error:  # av's errors are of this kind
        raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except ValueError:
        return {}

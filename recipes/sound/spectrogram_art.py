"""A picture that can be heard: guidance makes a clip's spectrogram look like it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from audiodiff.codec import MusicCodec
from recipes import studio
from shared.guidance import Guidance

LOWEST, HIGHEST = 200.0, 12_000.0  # Hz: where the picture's bottom and top lie
DARK, BRIGHT = -2.5, 2.5  # normalised log levels
STEP = 1.0  # see shared.guidance.normalised_step


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("picture", nargs="?", type=Path, help="what is bright in it sounds")
    options.add_argument("--prompt", default="a cold metallic synth pad")
    options.add_argument("--seconds", type=float, default=5.5)
    args = studio.read(options, argv)
    seconds = 1.5 if args.quick else args.seconds
    clip_path, picture_path = paths = studio.files(args, "heard.wav", "spectrogram_art.png")

    from audiodiff.plot import draw_spectrogram, stack
    from audiodiff.sound_curves import band_hz
    from imagediff.picture_file import open_picture
    from imagediff.pixels import to_rgb

    shown = a_word() if args.picture is None else to_rgb(open_picture(args.picture)).convert("L")
    pipeline = studio.music(args.music_model)
    codec = pipeline.codec
    factor = codec.samples_per_frame // codec.front_end.hop_length
    width = round(seconds * codec.front_end.sample_rate / codec.front_end.hop_length)
    target = laid_out(shown, band_hz(codec.front_end).numpy(), width)
    room = pipeline.latent_frames(seconds) * factor - width
    wanted = torch.from_numpy(np.pad(target, ((0, 0), (0, room)))) * (BRIGHT - DARK) + DARK

    with studio.watched(args.steps) as tick:
        (clip,) = pipeline(
            args.prompt, seconds=seconds, seed=args.seed, steps=args.steps,
            guidances=[towards(codec, wanted)],
            callback=tick,
        )  # fmt: skip
    told = "its spectrogram was guided to a picture"
    studio.save_sound(clip_path, clip.samples, clip.sample_rate, told, [clip.settings])
    heard = draw_spectrogram(clip.samples, clip.sample_rate, f"the sound, of {args.prompt}")
    page = Image.new("RGB", heard.size, "white")
    page.paste(shown.convert("RGB").resize((heard.width - 68, heard.height - 48)), (52, 24))
    studio.save_picture(picture_path, stack([page, heard]), "shown, and heard", colours=64)
    return studio.finish(paths, {"likeness, r": likeness(clip.samples, target, codec.front_end)})


def towards(codec: MusicCodec, wanted: Tensor) -> Guidance:
    """Guidance towards a spectrogram's normalised log levels (f t)."""
    from shared.guidance import Loss, gradient, normalised_step

    loss = Loss(unlike(codec, wanted))
    return lambda denoise: gradient(denoise, [loss], normalised_step(STEP), through_denoiser=False)


def unlike(codec: MusicCodec, wanted: Tensor) -> Callable[[Tensor], Tensor]:
    """How far latents (b z rows t) are from those levels (f t), as a function of them: (b,)."""
    from audiodiff.long_clips import decode_mel

    def loss(latents: Tensor) -> Tensor:
        levels = decode_mel(codec, latents, keep=False)[:, 0]
        return (levels - wanted.to(levels)).square().mean((1, 2))

    return loss


def a_word() -> Image.Image:
    """What is heard if no picture is given."""
    picture = Image.new("L", (360, 120), 0)
    ImageDraw.Draw(picture).text((180, 60), "DUO", 255, ImageFont.load_default(110), "mm")
    return picture


def laid_out(picture: Image.Image, bands: np.ndarray, width: int) -> np.ndarray:
    """The picture's light, 0 to 1, at each band's pitch and moment: (bands, width)."""
    height = 4 * len(bands)
    light = np.asarray(picture.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    places = np.log(np.maximum(bands, 1) / LOWEST) / np.log(HIGHEST / LOWEST)
    rows = ((1 - places) * (height - 1)).round().astype(int)
    inside = (places >= 0) & (places <= 1)
    return np.where(inside[:, None], light[rows.clip(0, height - 1)], 0)


def likeness(samples: np.ndarray, target: np.ndarray, front_end) -> float:
    """Pearson's r of the levels of a clip (2 s) with what was to be seen."""
    from audiodiff.spectrogram import waveform_to_mel

    levels = waveform_to_mel(torch.from_numpy(samples)[None], front_end)[0, 0].numpy()
    seen = target.sum(axis=1) > 0
    return float(np.corrcoef(levels[seen, : target.shape[1]].ravel(), target[seen].ravel())[0, 1])


if __name__ == "__main__":
    studio.run(main)

"""From one sound to another by steps between; the first and the last are the sounds themselves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from recipes import studio

ENDS = ("classical piano in C major, 90 bpm", "cinematic strings in C major, 90 bpm")
STRENGTH = 0.6  # of the walk in the middle: what lies between two latents is no sound yet


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("ends", nargs="*", default=list(ENDS), help="two prompts or sound files")
    options.add_argument("--count", type=int, default=6, help="of sounds, both ends included")
    options.add_argument("--seconds", type=float, default=3.0, help="of each")
    args = studio.read(options, argv)
    if len(args.ends) != 2 or args.count < 3:
        options.error("two ENDS are needed, and a --count of 3 or more")
    count, seconds = (3, 1.5) if args.quick else (args.count, args.seconds)
    names = [f"morph-{number}.wav" for number in range(1, count + 1)]
    paths = studio.files(args, *names, "morph.wav", "morph.png")

    from audiodiff import long_clips
    from audiodiff.finish import finish
    from shared.generation import Start, sample_latents
    from shared.interpolation import slerp

    pipeline = studio.music(args.music_model)
    rate, frames = pipeline.codec.front_end.sample_rate, pipeline.latent_frames(seconds)
    plan = [  # of two seeds, lest the ends be alike by chance
        pipeline.plan(end, seconds=seconds, seed=args.seed + i, steps=args.steps)[0]
        for i, end in enumerate(args.ends)
    ]
    with studio.watched(args.steps * count) as tick, torch.inference_mode():
        ends = [
            from_file(Path(one.prompt), rate, round(seconds * rate))
            if Path(one.prompt).is_file()
            else next(iter(pipeline.generate([one], tick))).samples
            for one in plan
        ]
        room = frames * pipeline.codec.samples_per_frame - ends[0].shape[1]
        waves = torch.from_numpy(np.pad(np.stack(ends), ((0, 0), (0, 0), (0, room))))
        latents = long_clips.encode(pipeline.codec, waves.to(pipeline.device))
        denoise = [pipeline.denoise_fn([one], frames) for one in plan]
        sounds = [ends[0]]
        for share in np.linspace(0, 1, count)[1:-1].tolist():
            start = Start(
                slerp(latents[:1], latents[1:], share), STRENGTH * math.sin(math.pi * share)
            )
            made = sample_latents(
                # Two denoisers make one: what both prompts say of the sound, by their shares.
                lambda x, sigma, s=share: torch.lerp(denoise[0](x, sigma), denoise[1](x, sigma), s),
                plan[0], pipeline.noise_schedule, [args.seed], pipeline.latent_shape(frames),
                pipeline.device, start=start, callback=tick,
            )  # fmt: skip
            played = long_clips.decode(pipeline.codec, made)[0].cpu().numpy()
            sounds.append(finish(played, rate, plan[0]))
    sounds.append(ends[1])
    captions = [f"{100 * i // (count - 1)} % of the way" for i in range(count)]
    shown = list(zip(captions, sounds, strict=True))
    for path, (caption, sound) in zip(paths, shown, strict=False):
        studio.save_sound(path, sound, rate, f"{caption} from the first to the second", plan)
    whole = np.concatenate(sounds, axis=1)
    studio.save_sound(paths[-2], whole, rate, "all the way from the first to the second", plan)
    studio.save_spectrograms(paths[-1], shown, rate, columns=3)
    return studio.finish(paths, apart(sounds))


def from_file(path: Path, rate: int, length: int) -> np.ndarray:
    """A file's sound (2 length), as loud as what the model makes."""
    from audiodiff.audio_file import read_audio
    from audiodiff.loudness import normalize

    samples = normalize(read_audio(path, rate)[0][:2, :length], rate)
    samples = np.pad(samples, ((0, 0), (0, length - samples.shape[1])))
    return np.ascontiguousarray(np.broadcast_to(samples, (2, length)), np.float32)


def apart(sounds: list[np.ndarray]) -> studio.Figures:
    """How far each sound is from both ends."""
    from audiodiff.losses import log_mel_distance
    from audiodiff.spectrogram import FrontEnd

    waves = [torch.from_numpy(sound)[None] for sound in sounds]
    return {
        f"sound {i + 1}: distance to the {name}, nat": log_mel_distance(w, end, FrontEnd()).item()
        for i, w in enumerate(waves)
        for name, end in (("first", waves[0]), ("last", waves[-1]))
    }


if __name__ == "__main__":
    studio.run(main)

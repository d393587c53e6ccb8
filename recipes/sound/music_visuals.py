"""Pictures drawn to music: on each beat of a clip comes the next; an MP4 with the clip in it."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import numpy as np

from recipes import studio

PROMPT = "driving techno with synth bass and drums"
SEEN = (
    "a planet on a black background",
    "a disco ball on a purple background",
    "a lightning bolt on a blue background",
    "a star on a black background",
)
BPM = 120.0


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music", "image")
    options.add_argument("clip", nargs="?", type=Path, help="a sound file")
    options.add_argument("--see", nargs="+", default=list(SEEN), help="prompts, one a beat")
    options.add_argument("--fps", type=float, default=8.0)
    args = studio.read(options, argv)
    seconds, fps = (1.2, 6.0) if args.quick else (6.0, args.fps)
    names = [] if args.clip else ["music.wav"]
    *made, movie, picture = paths = studio.files(args, *names, "visuals.mp4", "music_visuals.png")

    from audiodiff.audio_file import read_audio
    from imagediff.movie_settings import Keyframe, Script, moments
    from imagediff.movies import Track, animate, animation, save_movie
    from imagediff.sheets import captioned_sheet

    if args.clip is None:
        (clip,) = studio.music(args.music_model)(
            PROMPT, seconds=seconds, bpm=BPM, seed=args.seed, steps=args.steps
        )
        clip.save(made[0], overwrite=True)
    samples, rate = read_audio(args.clip or made[0], 44100)
    beats = beats_of(samples, None if args.clip else BPM)
    # A picture is reached a moment after its beat and stays until the next: the eye sees the hit.
    prompts = list(islice(cycle(args.see), len(beats)))
    keyframes = [
        Keyframe(at=at, prompt=prompt, seed=args.seed + number, ease="out")
        for number, (at, prompt) in enumerate(zip(beats, prompts, strict=True))
    ]
    script = Script(keyframes=tuple(keyframes), fps=fps)
    line = moments(script)
    pipeline = studio.pictures(args.image_model)
    settings = animation(pipeline, script, steps=args.steps)
    with studio.watched(args.steps * len(line)) as tick:
        frames = list(animate(pipeline, settings, line, tick))
    sound = Track(np.broadcast_to(samples, (2, samples.shape[1])), rate)
    save_movie(frames, movie, fps, settings, overwrite=True, sound=sound)
    some = np.linspace(0, len(frames) - 1, min(24, len(frames))).astype(int)
    captions = [f"{i / fps:.2f} s" for i in some]
    sheet = captioned_sheet([frames[i] for i in some], captions)
    studio.save_picture(picture, sheet, "moments of a movie", [settings])
    return studio.finish(paths, measured(frames, beats, fps))


def beats_of(samples: np.ndarray, bpm: float | None) -> list[float]:
    """When something is to be seen: at the start, on each beat, and at the end; seconds."""
    from audiodiff.tempo import onset_strength, onset_tempo, steady_beats

    onsets, end = onset_strength(samples), samples.shape[1] / 44100
    tempo = bpm or onset_tempo(onsets) or BPM
    beats = [float(beat) for beat in steady_beats(onsets, tempo) if 0.1 < beat < end - 0.1]
    return [0.0, *(round(beat, 3) for beat in beats), round(end, 3)]


def measured(frames: list, beats: list[float], fps: float) -> studio.Figures:
    """How much more a picture changes in the third of a beat after it than in the last third."""
    pixels = np.stack([np.asarray(frame, float) for frame in frames])
    change = np.abs(np.diff(pixels, axis=0)).mean((1, 2, 3))
    times = (np.arange(len(change)) + 0.5) / fps
    place = np.interp(times, beats, np.arange(len(beats))) % 1
    early, late = change[place < 1 / 3], change[place >= 2 / 3]
    ratio = float(early.mean() / max(late.mean(), 1e-9))
    return {"change after a beat over change before one": ratio}


if __name__ == "__main__":
    studio.run(main)

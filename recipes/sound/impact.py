"""An impact of three layers, a deep, a hard and a long one, each in its band, as one hit."""

from __future__ import annotations

import numpy as np

from recipes import studio

# Name, prompt, the band of frequencies that is kept (Hz), and how loud (dB).
LAYERS = (
    ("low", "a big cinematic drum hit", (25.0, 150.0), 0.0),
    ("body", "a single gunshot", (150.0, 4000.0), -3.0),
    ("tail", "a crash cymbal", (4000.0, 18000.0), -9.0),
)
SECONDS = 3.0


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    args = studio.read(options, argv)
    seconds = 1.5 if args.quick else SECONDS
    names = [f"layer-{name}.wav" for name, *_ in LAYERS]
    paths = studio.files(args, "impact.wav", *names, "impact.png")

    from audiodiff.one_shots import one_shot

    pipeline = studio.music(args.music_model)
    rate = pipeline.codec.front_end.sample_rate
    prompts = [prompt for _, prompt, _, _ in LAYERS]
    with studio.watched(args.steps * len(LAYERS)) as tick:
        clips = pipeline(prompts, seconds=seconds, seed=args.seed, steps=args.steps, callback=tick)
    layers = []
    for clip, path, (_, _, band, level) in zip(clips, paths[1:], LAYERS, strict=False):
        clip.save(path, overwrite=True)
        hit = one_shot(band_of(one_shot(clip.samples, rate), band, rate), rate)
        layers.append(10 ** (level / 20) * hit)  # all begin at once
    whole = np.zeros((2, max(layer.shape[1] for layer in layers)), np.float32)
    for layer in layers:
        whole[:, : layer.shape[1]] += layer
    whole *= 0.9 / np.abs(whole).max()
    made_of = [clip.settings for clip in clips]
    studio.save_sound(paths[0], whole, rate, "one hit of three layers", made_of)
    shown = [*zip(prompts, layers, strict=True), ("the impact", whole)]
    studio.save_spectrograms(paths[-1], shown, rate, columns=2)
    return studio.finish(paths, measured(whole, rate))


def band_of(samples: np.ndarray, band: tuple[float, float], rate: int) -> np.ndarray:
    """What of a sound (c s) lies within a band of frequencies."""
    from scipy.signal import butter, sosfilt

    sos = butter(4, band, btype="bandpass", fs=rate, output="sos")
    return np.asarray(sosfilt(sos, samples, axis=1), np.float32)


def measured(whole: np.ndarray, rate: int) -> studio.Figures:
    """When each band is first near its loudest, and the shares of the energy in the bands."""
    from audiodiff.one_shots import onset

    bands = {name: band_of(whole, band, rate) for name, _, band, _ in LAYERS}
    energy = {name: float(np.square(samples).sum()) for name, samples in bands.items()}
    begins = {f"{name}: begins, s": onset(samples, rate) / rate for name, samples in bands.items()}
    total = max(sum(energy.values()), 1e-9)
    return begins | {f"{name}: share of energy": one / total for name, one in energy.items()}


if __name__ == "__main__":
    studio.run(main)

import warnings

import numpy as np
import pytest

from audiodiff.loudness import FLOOR_DB, LUFS, loudness, loudness_curve, normalize

RATE = 44100
CEILING = 10 ** (-1 / 20)


def tone(seconds: float, peak: float, frequency: float = 997.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    wave = peak * np.sin(2 * np.pi * frequency * time)
    return np.stack([wave, wave]).astype(np.float32)


def test_known_loudness():
    # EBU Tech 3341, case 1: a stereo sine of 1 kHz at -23 dBFS is -23 LUFS (0.1 allowed).
    assert loudness(tone(20, 10 ** (-23 / 20)), RATE) == pytest.approx(-23.0, abs=0.1)
    assert loudness(tone(20, 10 ** (-33 / 20)), RATE) == pytest.approx(-33.0, abs=0.1)


def test_short_clips_and_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loudness(np.zeros((2, RATE), np.float32), RATE) == -np.inf
        assert loudness(np.zeros((2, 0), np.float32), RATE) == -np.inf
        # Half of the block of 0.4 s is silence: 3 dB less.
        half = loudness(tone(0.2, 0.1), RATE)
        assert half == pytest.approx(loudness(tone(4, 0.1), RATE) - 3.01, abs=0.1)


@pytest.mark.parametrize("peak", [0.001, 0.05, 1.0, 8.0])
def test_normalize_reaches_its_level(peak):
    clip = normalize(tone(3, peak), RATE)
    assert loudness(clip, RATE) == pytest.approx(LUFS, abs=0.05)
    assert clip.dtype == np.float32


def test_peaks_are_turned_down_without_clipping():
    rng = np.random.default_rng(0)
    clicks = np.zeros((2, 4 * RATE), np.float32)
    for at in rng.integers(2000, 4 * RATE - 2000, 12):
        clicks[:, at : at + 400] += np.float32(0.9) * np.hanning(400).astype(np.float32)
    quiet = 0.001 * rng.standard_normal(clicks.shape).astype(np.float32)
    clip = normalize(clicks + quiet, RATE)
    assert np.abs(clip).max() <= CEILING + 1e-6
    assert np.abs(clip).max() > 0.85 * CEILING
    assert (np.abs(clip) >= CEILING - 1e-6).sum() < 50  # no flat tops
    assert loudness(clip, RATE) > -22


def test_quiet_samples_far_from_peaks_only_get_the_gain():
    clip = tone(4, 0.02)
    clip[:, RATE] = 1.0
    out = normalize(clip, RATE)
    gain = out[0, 3 * RATE : 4 * RATE] @ clip[0, 3 * RATE : 4 * RATE]
    gain /= clip[0, 3 * RATE : 4 * RATE] @ clip[0, 3 * RATE : 4 * RATE]
    assert gain > 2
    away = np.abs(np.arange(4 * RATE) - RATE) > 0.011 * RATE
    assert np.allclose(out[:, away], gain * clip[:, away], atol=1e-5)
    assert np.abs(out).max() <= CEILING + 1e-6


def test_normalize_keeps_stereo():
    clip = tone(2, 0.5)
    clip[1] *= np.float32(0.25)
    clip[:, RATE : RATE + 50] = np.array([[4.0], [1.0]])
    out = normalize(clip, RATE)
    assert np.allclose(out[1], out[0] * 0.25, atol=1e-6)


def test_silence_stays_silence():
    silence = np.zeros((2, RATE), np.float32)
    assert np.array_equal(normalize(silence, RATE), silence)
    assert np.array_equal(normalize(silence[:, :0], RATE), silence[:, :0])


def test_curve_of_known_levels():
    frames = np.repeat([1.0, 0.1, 0.0, 1e-7], 4096)
    clip = np.stack([frames, -frames]).astype(np.float32)  # opposite channels do not cancel
    assert loudness_curve(clip) == pytest.approx([0.0, -20.0, FLOOR_DB, FLOOR_DB], abs=1e-4)
    one_sided = clip * np.array([[1.0], [0.0]], np.float32)
    assert loudness_curve(one_sided)[:2] == pytest.approx([-3.0103, -23.0103], abs=1e-3)


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (1, 1), (4096, 1), (4097, 2), (262144, 64)]
)
def test_curve_has_a_value_a_latent_frame(samples, frames):
    curve = loudness_curve(np.full((2, samples), 0.5, np.float32))
    assert (curve.shape, curve.dtype) == ((frames,), np.float32)
    assert curve == pytest.approx([-6.0206] * frames, abs=1e-3)  # a last short frame as well

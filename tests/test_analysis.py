"""What a recording tells of itself, and its picture."""

import numpy as np
import pytest

from audiodiff.analysis import analyse, middle_part
from audiodiff.key import chroma, estimate_key
from audiodiff.plot import (
    HEIGHT,
    HIGHEST,
    LOWEST,
    WIDTH,
    draw_spectrogram,
    log_spectrogram,
    stack,
    tick_step,
)

RATE = 22050
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}


def tone(pitch: float, seconds: float, rate: int = RATE) -> np.ndarray:
    """A MIDI pitch with three overtones that dies away, (s)."""
    time = np.arange(round(seconds * rate)) / rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    partials = [np.sin(2 * np.pi * k * frequency * time) / k**2 for k in (1, 2, 3, 4)]
    return sum(partials, np.zeros_like(time)) * np.exp(-3 * time)


def cadence(tonic: int, mode: str) -> np.ndarray:
    """I IV V I with the scale over it, in stereo (2, s)."""
    scale = SCALES[mode]
    played = []
    for degree in (0, 3, 4, 0):
        triad = [scale[(degree + step) % 7] + 12 * ((degree + step) // 7) for step in (0, 2, 4)]
        played.append(sum(tone(57 + tonic - 9 + pitch, 0.7) for pitch in triad))
    played += [tone(69 + tonic - 9 + pitch, 0.2) for pitch in (*scale, 12)]
    played += [tone(69 + tonic - 9, 0.8)]
    samples = np.concatenate(played)
    return np.stack([samples, samples]) / 8


@pytest.mark.parametrize("mode", SCALES)
@pytest.mark.parametrize("tonic", range(12))
def test_the_key_of_a_cadence_is_found(tonic: int, mode: str) -> None:
    key = estimate_key(cadence(tonic, mode), RATE)
    assert key is not None and (key.tonic, key.mode) == (tonic, mode)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_chroma_knows_its_pitch_at_any_rate(rate: int) -> None:
    for pitch in (38, 48, 60, 73, 90):
        heard = chroma(np.stack([tone(pitch, 1, rate)] * 2), rate)
        row = heard[0 if pitch < 52 else 1]  # the bass, and what lies above
        assert row.argmax() == pitch % 12 and row.mean() == pytest.approx(1)


def test_analysis_measures_and_guesses() -> None:
    clicks = np.zeros(RATE * 8)
    for beat in range(16):  # 120 beats a minute
        clicks[beat * RATE // 2 :][:2205] += tone(45 + 3 * (beat % 2), 0.1)
    analysis = analyse(np.stack([clicks, clicks]).astype(np.float32), RATE)
    assert (analysis.seconds, analysis.sample_rate, analysis.channels) == (8.0, RATE, 2)
    assert analysis.tempo == pytest.approx(120, rel=0.02)
    assert analysis.loudness is not None and -40 < analysis.loudness < 0
    louder = analyse(np.stack([clicks, clicks]).astype(np.float32) * 2, RATE)
    assert louder.loudness == pytest.approx(analysis.loudness + 6.02, abs=0.1)
    lines = analysis.lines()
    assert lines["duration"] == "8.000 s" and lines["tempo"].startswith("about 1")


def test_silence_has_neither_loudness_nor_tempo_nor_key() -> None:
    analysis = analyse(np.zeros((1, RATE), np.float32), RATE)
    assert (analysis.loudness, analysis.tempo, analysis.key) == (None, None, None)
    lines = analysis.lines()
    assert lines["loudness"] == "silent" and lines["key"] == "none found"


def test_long_recordings_are_heard_in_their_middle() -> None:
    ramp = np.arange(100.0)[None]
    assert middle_part(ramp, 10, 2).tolist() == [list(range(40, 60))]
    assert middle_part(ramp, 10, 20) is not None and middle_part(ramp, 10, 20).shape == (1, 100)


def test_a_spectrogram_shows_each_pitch_at_its_place() -> None:
    time = np.arange(44100 * 2) / 44100
    samples = np.sin(2 * np.pi * 1000 * time) * (time < 1)
    levels = log_spectrogram(np.stack([samples, samples]), 44100)
    assert levels.shape == (HEIGHT, WIDTH) and levels.min() >= 0 and levels.max() <= 1
    row = round((HEIGHT - 1) * np.log(HIGHEST / 1000) / np.log(HIGHEST / LOWEST))
    assert abs(int(levels[:, WIDTH // 4].argmax()) - row) <= 1
    assert levels[:, WIDTH // 4].max() > 0.95 and levels[:, -WIDTH // 4].max() == 0


def test_pictures_have_axes_and_stack() -> None:
    time = np.arange(RATE) / RATE
    loud = np.sin(2 * np.pi * 440 * time)[None]
    plain, told = draw_spectrogram(loud, RATE), draw_spectrogram(loud, RATE, "a sine at 440 Hz")
    silent = draw_spectrogram(loud * 0, RATE)
    assert told.size[0] == plain.size[0] and told.size[1] > plain.size[1]
    assert plain.getpixel((0, 0)) == (255, 255, 255)
    assert plain.tobytes() != silent.tobytes()
    sheet = stack([plain, told])
    assert sheet.size == (plain.width, plain.height + told.height)
    assert sheet.crop((0, 0, *plain.size)).tobytes() == plain.tobytes()


@pytest.mark.parametrize(
    "seconds, step", [(0.5, 0.05), (6, 1), (10, 1), (11, 2), (60, 10), (600, 100)]
)
def test_ticks_are_round(seconds: float, step: float) -> None:
    assert tick_step(seconds) == pytest.approx(step)

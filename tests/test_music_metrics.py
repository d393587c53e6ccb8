"""The measures of music, on sounds whose melody, chords, beats, tempo and levels are known."""

from dataclasses import replace

import numpy as np
import pytest

from audiodiff import metrics
from audiodiff.labels import FRAME_SECONDS, SAMPLE_RATE, Labels
from audiodiff.loudness import loudness_curve
from audiodiff.metrics import Heard, hear, rank, transpositions
from audiodiff.tempo import (
    FASTEST,
    ONSET_RATE,
    SLOWEST,
    onset_strength,
    onset_tempo,
    same_tempo,
    spectra,
    tempo,
)
from shared.statistics import bootstrap_interval

SECONDS = 64 * FRAME_SECONDS
SAMPLES = 64 * 4096
TIMES = np.arange(SAMPLES) / SAMPLE_RATE


def tone(pitch: float, start: float = 0.0, end: float = SECONDS, level: float = 0.2) -> np.ndarray:
    """A sine of a MIDI pitch, in both channels (2 s)."""
    wave = level * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * TIMES)
    wave *= (start <= TIMES) & (end > TIMES)
    return np.stack([wave, wave]).astype(np.float32)


def clicks(times: np.ndarray, seed: int = 0) -> np.ndarray:
    """Bursts of noise of 20 ms that fade, (2 s)."""
    rng = np.random.default_rng(seed)
    wave = np.zeros(SAMPLES)
    for start in np.round(np.asarray(times) * SAMPLE_RATE).astype(int):
        burst = rng.normal(size=900) * np.exp(-np.arange(900) / 200)
        wave[start : start + 900] += burst[: max(0, SAMPLES - start)]
    return np.stack([wave, wave]).astype(np.float32)


MELODY = tuple(
    (0.5 * i, 0.5 * i + 0.45, pitch)
    for i, pitch in enumerate((60, 64, 67, 72, 71, 69, 65, 62, 66, 70, 61))
)


def melody_sound(up: int = 0) -> np.ndarray:
    return np.sum([tone(pitch + up, start, end) for start, end, pitch in MELODY], axis=0)


def test_spectra_are_of_the_moments_asked_for_and_add_channels_as_powers() -> None:
    n_fft = 1024
    wave = np.zeros((2, 8192), dtype=np.float32)
    wave[:, 4000:4200] = np.random.default_rng(0).normal(size=200)
    heard = spectra(wave, n_fft, np.array([1000, 4100, 8192 - 100])).sum(axis=1)
    assert heard[1] > 0
    assert heard[0] == heard[2] == 0
    opposed = spectra(wave * [[1], [-1]], n_fft, np.array([4100]))
    np.testing.assert_allclose(opposed, spectra(wave, n_fft, np.array([4100])))
    # A sine of amplitude 1 in the middle of a bin: half the window's sum.
    sine = np.sin(2 * np.pi * 32 * np.arange(4096) / n_fft)[None]
    assert spectra(sine, n_fft, np.array([2048]))[0, 32] == pytest.approx(n_fft / 4, rel=1e-4)


def test_a_melody_of_sines_is_heard() -> None:
    labels = Labels(melody=MELODY)
    heard = hear(melody_sound())
    assert metrics.melody_top1(heard, labels) == pytest.approx(1, abs=0.03)
    assert metrics.melody_rank(heard, labels) == 1
    low_bass = hear(melody_sound() + tone(38, level=0.6))
    assert metrics.melody_top1(low_bass, labels) == metrics.melody_top1(heard, labels)
    for up in (1, 2, 5, 7, 11):
        wrong = hear(melody_sound(up))
        assert (metrics.melody_top1(wrong, labels) or 0) < 0.1
        assert (metrics.melody_rank(wrong, labels) or 0) > 1


def test_rests_are_not_asked_for_and_silence_is_no_c() -> None:
    assert metrics.melody_top1(hear(melody_sound()), Labels()) is None
    assert metrics.melody_rank(hear(melody_sound()), Labels()) is None
    silence = hear(np.zeros((2, SAMPLES), dtype=np.float32))
    assert metrics.melody_top1(silence, Labels(melody=((0.0, 5.0, 60),))) == 0
    assert metrics.melody_rank(silence, Labels(melody=((0.0, 5.0, 60),))) == 12
    half = Labels(melody=((0.0, SECONDS / 2, 60),))
    assert metrics.melody_top1(hear(tone(60, end=SECONDS / 2)), half) == 1


CHORDS = Labels(
    chords=("C", "Am7", "F", "G7", "C", "Ab", "Bb"),
    beats=tuple(np.arange(7) * 0.85),
    tempo=60 / 0.85,
)
CHORD_PITCHES = (
    (60, 64, 67),
    (57, 60, 64, 67),
    (53, 57, 60),
    (55, 59, 62, 65),
    (60, 64, 67),
    (56, 60, 63),
    (58, 62, 65),
)


def chord_sound() -> np.ndarray:
    tones = [
        tone(pitch, 0.85 * i, 0.85 * (i + 1))
        for i, pitches in enumerate(CHORD_PITCHES)
        for pitch in pitches
    ]
    return np.sum(tones, axis=0)


def test_chords_are_heard_at_their_beats() -> None:
    heard = hear(chord_sound())
    assert metrics.chord_rank(heard, CHORDS) == 1
    other_way = replace(CHORDS, chords=("Eb", "F#m", "B", "E", "C#m", "A", "E"))
    assert (metrics.chord_rank(heard, other_way) or 0) > 1
    assert metrics.chord_rank(heard, Labels()) is None
    assert metrics.chord_rank(heard, replace(CHORDS, beats=())) is None


def test_chord_templates() -> None:
    labels = Labels(chords=("C", "Am7"), beats=(-0.1, 1.0), tempo=60.0)
    templates = metrics.chord_templates(labels, 64)
    times = (np.arange(64) + 0.5) * FRAME_SECONDS
    np.testing.assert_allclose(
        templates[times < 1].sum(axis=0)[[0, 4, 7]], (times < 1).sum() / 3, 1e-5
    )
    second = (times >= 1) & (times < 2.1)  # it lasts as long as the beat before it
    np.testing.assert_allclose(templates[second][:, [9, 0, 4, 7]], 0.25)
    assert not templates[times >= 2.1].any()


def test_a_scale_is_ranked_among_its_transpositions() -> None:
    chromatic = range(60, 67)
    scale = hear(np.sum([tone(p, i * 0.8, i * 0.8 + 0.8) for i, p in enumerate(chromatic)], 0))
    assert metrics.scale_fit(scale, "C major") == pytest.approx(4 / 7, abs=0.08)
    notes = (60, 62, 64, 65, 67, 69, 71)
    heard = hear(np.sum([tone(p, i * 0.8, i * 0.8 + 0.8) for i, p in enumerate(notes)], axis=0))
    assert metrics.scale_fit(heard, "C major") == pytest.approx(1, abs=0.05)
    assert metrics.scale_rank(heard, "C major") == metrics.scale_rank(heard, "A minor") == 1
    assert metrics.scale_rank(heard, "F# major") >= 9
    assert metrics.scale_rank(heard, "G major") <= 3
    silence = hear(np.zeros((2, SAMPLES), dtype=np.float32))
    assert metrics.scale_rank(silence, "C major") == 12
    assert metrics.scale_fit(silence, "C major") == 0


@pytest.mark.parametrize("bpm", [63, 84, 97, 110, 128, 140, 174])
def test_the_tempo_of_clicks(bpm: float) -> None:
    found = tempo(clicks(np.arange(0.13, SECONDS, 60 / bpm)))
    assert same_tempo(found, bpm, octaves=True, tolerance=0.02)
    if 80 < bpm < 150:
        assert same_tempo(found, bpm, octaves=False, tolerance=0.02)


def test_tempo_knows_other_rates_and_finds_none_in_nothing() -> None:
    beats = clicks(np.arange(0, SECONDS, 0.5))
    assert same_tempo(tempo(beats[:, ::2], SAMPLE_RATE // 2), 120, octaves=False, tolerance=0.02)
    assert tempo(np.zeros((2, SAMPLES), dtype=np.float32)) is None
    assert onset_tempo(np.ones(600)) is None
    assert onset_tempo(np.zeros(0)) is None
    rng = np.random.default_rng(0)
    noise = tempo(rng.normal(size=(2, SAMPLES)).astype(np.float32))
    assert noise is None or SLOWEST <= noise <= FASTEST


def test_same_tempo() -> None:
    assert same_tempo(103.9, 100, octaves=False)
    assert not same_tempo(105, 100, octaves=False)
    assert not same_tempo(50, 100, octaves=False)
    for estimate in (100 / 3, 50, 100, 200, 300):
        assert same_tempo(estimate, 100, octaves=True)
    assert not same_tempo(140, 100, octaves=True)
    assert not same_tempo(None, 100, octaves=True)


def test_onsets_are_at_their_times() -> None:
    times = np.array([0.5, 1.2, 3.03, 4.8])
    onsets = onset_strength(clicks(times))
    assert len(onsets) == int(SECONDS * ONSET_RATE) + 1
    peaks = [round(time * ONSET_RATE) + np.arange(-3, 4) for time in times]
    for peak, time in zip(peaks, times, strict=True):
        assert abs(peak[onsets[peak].argmax()] / ONSET_RATE - time) <= 0.02
    assert onsets[np.concatenate(peaks)].sum() > 0.95 * onsets.sum()


@pytest.mark.parametrize("bpm", [70, 100, 133, 160])
def test_beats_are_found_in_phase_and_missed_out_of_it(bpm: float) -> None:
    period = 60 / bpm
    beats = np.arange(0.21, SECONDS, period)
    labels = Labels(beats=tuple(beats), tempo=float(bpm))
    assert metrics.beat_phase_rank(hear(clicks(beats)), labels) == 1
    for sixteenths in (4, 8, 12):
        late = hear(clicks(beats[:-1] + period * sixteenths / 16))
        assert (metrics.beat_phase_rank(late, labels) or 0) > 3


def test_where_all_phases_are_alike_the_rank_is_the_last() -> None:
    labels = Labels(beats=tuple(np.arange(0, 5.9, 0.5)), tempo=120.0)
    silence = hear(np.zeros((2, SAMPLES), dtype=np.float32))
    assert metrics.beat_phase_rank(silence, labels) == 16
    assert metrics.beat_phase_rank(silence, Labels()) is None


def test_tempo_right() -> None:
    heard = hear(clicks(np.arange(0, SECONDS, 0.5)))
    assert metrics.tempo_right(heard, Labels(tempo=120.0), octaves=False)
    assert not metrics.tempo_right(heard, Labels(tempo=60.0), octaves=False)
    assert metrics.tempo_right(heard, Labels(tempo=60.0), octaves=True)
    assert metrics.tempo_right(heard, Labels(), octaves=True) is None


def test_dynamics_of_a_ramp() -> None:
    ramp = tone(60, level=0.5) * np.geomspace(0.01, 1, SAMPLES)
    rising = Labels(dynamics=tuple(np.linspace(-50, -10, 64)))
    falling = Labels(dynamics=tuple(np.linspace(-10, -50, 64)))
    flat = hear(tone(60))
    assert metrics.dynamics_r(hear(ramp), rising) == pytest.approx(1, abs=1e-3)
    assert metrics.dynamics_r(hear(ramp), falling) == pytest.approx(-1, abs=1e-3)
    assert abs(metrics.dynamics_r(replace_levels(flat, np.full(64, -20.0)), rising) or 0) == 0
    assert metrics.dynamics_r(hear(ramp), Labels(dynamics=(-20.0,) * 64)) is None
    assert metrics.dynamics_r(hear(ramp), Labels()) is None


def replace_levels(heard: Heard, levels: np.ndarray) -> Heard:
    return replace(heard, levels=levels)


def test_dynamics_do_not_mind_gain_or_fast_changes() -> None:
    rng = np.random.default_rng(0)
    slow = np.sin(np.arange(64) / 6) * 10 - 30
    wanted = Labels(dynamics=tuple(slow))
    silent = hear(np.zeros((2, SAMPLES), dtype=np.float32))
    rough = replace_levels(silent, slow + 20 + 6 * (-1.0) ** np.arange(64))
    assert metrics.dynamics_r(rough, wanted) == pytest.approx(1, abs=0.02)
    noise = replace_levels(silent, rng.normal(size=64))
    assert abs(metrics.dynamics_r(noise, wanted) or 0) < 0.5


@pytest.mark.parametrize("drift", [-6.0, 0.0, 1.5, 12.0])
def test_stereo_drift_of_panned_noise(drift: float) -> None:
    noise = np.random.default_rng(0).normal(size=(2, SAMPLES)) * 0.1
    moved = noise * [[10 ** (drift / 20)], [1]]
    assert metrics.stereo_drift_db(noise, moved) == pytest.approx(abs(drift), abs=1e-6)
    assert metrics.stereo_drift_by_band_db(noise, moved) == pytest.approx(abs(drift), abs=1e-3)


def test_a_collapsed_mix_drifts_in_its_bands() -> None:
    apart = tone(48) * [[1], [0.1]] + tone(84) * [[0.1], [1]]
    collapsed = np.broadcast_to(apart.mean(axis=0), apart.shape)
    assert metrics.stereo_drift_db(apart, collapsed) < 0.1
    assert metrics.stereo_drift_by_band_db(apart, collapsed) == pytest.approx(20, abs=0.2)


def test_ranks_and_their_extremes() -> None:
    assert rank(np.array([3.0, 1, 2])) == 1
    assert rank(np.array([0.0, 1, 2])) == 3
    assert rank(np.array([1.0, 1, 0])) == 2  # a tie counts against it
    rng = np.random.default_rng(0)
    wanted = rng.random((20, 12))
    for up in range(12):
        assert transpositions(np.roll(wanted, up, axis=1), wanted).argmax() == up


def test_heard_is_in_latent_frames() -> None:
    noise = np.random.default_rng(0).normal(size=(2, SAMPLES - 100)).astype(np.float32)
    heard = hear(noise)
    assert heard.melody.shape == heard.chords.shape == (64, 12)
    np.testing.assert_allclose(heard.melody.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(heard.levels, loudness_curve(noise))


def test_every_pitch_class_weighs_the_same_in_noise() -> None:
    noise = np.random.default_rng(0).normal(size=(2, SAMPLES)).astype(np.float32)
    heard = hear(noise)
    for chroma in (heard.melody, heard.chords):
        assert np.abs(chroma.mean(axis=0) * 12 - 1).max() < 0.2


def test_the_bootstrap_agrees_with_theory() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = bootstrap_interval(lambda chosen: float(values[chosen].mean()), len(values))
    assert interval is not None
    half = 1.96 * values.std() / 20
    expected = (values.mean() - half, values.mean() + half)
    assert interval == pytest.approx(expected, abs=0.05)
    assert bootstrap_interval(lambda chosen: 0.0, 1) is None

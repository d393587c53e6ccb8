"""Controls out of recordings: the tune of a voice or an instrument, beats, loudness, timbre.

librosa does the listening; importing it takes two seconds, so it waits until it is needed.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from audiodiff.audio_file import read_audio
from audiodiff.labels import FRAME_SECONDS, SAMPLE_RATE
from audiodiff.loudness import loudness_curve
from audiodiff.tempo import ONSET_RATE, onset_strength
from shared.errors import UserError

PITCH_RATE = 22050  # Hz; nobody sings higher than half of that
PITCH_HOP = 256
LOWEST, HIGHEST = 65.4, 2093.0  # Hz, C2 to C7
SHORTEST_NOTE = 0.08  # seconds
WOBBLE = 9  # pitch frames, 0.1 s: what a note's pitch is smoothed over
SURE = 0.1  # pYIN's mean probability of a pitch in a note; noise that passes for one has less
SILENT_DB = -60.0  # a recording that is never louder than this is silent


def read_heard(path: Path, option: str, what: str) -> np.ndarray:
    """A recording (c s) at 44.1 kHz that is not silent.

    Raises:
        UserError: it cannot be read, or is silent; says ``what`` was to be taken from it.
    """
    try:
        samples, _ = read_audio(path, SAMPLE_RATE)
    except UserError as error:
        raise UserError(f"{option}: {error}") from None
    if loudness_curve(samples).max() <= SILENT_DB:
        raise UserError(f"{option}: {str(path)!r} is silent; there is no {what} in it")
    return samples


def tune(path: Path, option: str) -> tuple[tuple[float, float, int], ...]:
    """The notes (start, end, MIDI pitch) that one voice or instrument sings or plays.

    Pitch by probabilistic YIN (Mauch & Dixon 2014, "pYIN: A fundamental frequency estimator using
    probabilistic threshold distributions"), brought to the nearest semitones of the recording's
    own tuning.

    Raises:
        UserError: no recording, a silent one, or nothing with a pitch in it.
    """
    samples = read_heard(path, option, "tune")
    import librosa
    from scipy.ndimage import median_filter

    mono = librosa.resample(samples.mean(axis=0), orig_sr=SAMPLE_RATE, target_sr=PITCH_RATE)
    frequency, voiced, sure = librosa.pyin(
        mono, fmin=LOWEST, fmax=HIGHEST, sr=PITCH_RATE, hop_length=PITCH_HOP, fill_na=np.nan
    )
    voiced &= np.isfinite(frequency)
    if not voiced.any():
        raise UserError(f"{option}: no pitch was found in {str(path)!r}; a single voice is needed")
    pitches = librosa.hz_to_midi(frequency[voiced])
    # A circular mean of how far all pitches are from semitones.
    tuning = np.angle(np.exp(2j * np.pi * pitches).mean()) / (2 * np.pi)
    rounded = np.full(len(frequency), -1)
    rounded[voiced] = np.round(pitches - tuning).astype(int)
    steps = median_filter(rounded, WOBBLE, mode="nearest")
    edges = np.flatnonzero(np.diff(steps)) + 1
    hop = PITCH_HOP / PITCH_RATE
    notes = [
        (round(first * hop, 3), round(last * hop, 3), int(steps[first]))
        for first, last in pairwise([0, *edges.tolist(), len(steps)])
        if steps[first] >= 0
        and (last - first) * hop >= SHORTEST_NOTE
        and sure[first:last].mean() >= SURE
    ]
    if not notes:
        raise UserError(f"{option}: no note is held in {str(path)!r}; a single voice is needed")
    return tuple(notes)


def beats(path: Path, option: str, bpm: float | None) -> tuple[tuple[float, ...], float]:
    """The times of a recording's beats, and its length in seconds.

    Ellis 2007, "Beat tracking by dynamic programming", as librosa has it, on this project's onset
    strength.

    Args:
        bpm: the tempo if it is known.

    Raises:
        UserError: no recording, a silent one, or nothing that beats in it.
    """
    samples = read_heard(path, option, "beat")
    found = track_beats(onset_strength(samples), bpm)
    if len(found) < 3:
        raise UserError(f"{option}: no beat was found in {str(path)!r}")
    return tuple(round(float(time), 3) for time in found), samples.shape[1] / SAMPLE_RATE


def track_beats(onsets: np.ndarray, bpm: float | None) -> np.ndarray:
    """Times of beats (n,) in an onset strength (t,) of `audiodiff.tempo`, at a tempo if known."""
    import librosa

    from audiodiff.tempo import onset_tempo

    tempo = onset_tempo(onsets) if bpm is None else bpm
    if tempo is None or not onsets.any():
        return np.zeros(0)
    _, times = librosa.beat.beat_track(
        onset_envelope=onsets, sr=ONSET_RATE, hop_length=1, bpm=tempo, units="time", trim=False
    )
    return np.asarray(times)


def bar_begins(path: Path, times: tuple[float, ...], meter: int) -> int:
    """Which of a recording's first ``meter`` beats begins a bar."""
    from audiodiff.bars import first_downbeat
    from audiodiff.metrics import hear

    samples, _ = read_audio(path, SAMPLE_RATE)
    return first_downbeat(samples, hear(samples).chords, times, meter)


def strokes(path: Path) -> tuple[float, ...]:
    """The times at which something begins in a recording, seconds."""
    import librosa

    samples, _ = read_audio(path, SAMPLE_RATE)
    found = librosa.onset.onset_detect(
        onset_envelope=onset_strength(samples), sr=ONSET_RATE, hop_length=1, units="time"
    )
    return tuple(round(float(time), 3) for time in found)


def levels(path: Path, option: str) -> tuple[tuple[float, float], ...]:
    """A recording's loudness curve as points (seconds, dB), one a latent frame.

    Raises:
        UserError: no recording, or a silent one.
    """
    curve = loudness_curve(read_heard(path, option, "loudness"))
    return tuple(
        (round((frame + 0.5) * FRAME_SECONDS, 3), round(float(level), 1))
        for frame, level in enumerate(curve)
    )

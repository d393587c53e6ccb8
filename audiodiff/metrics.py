"""Does audio hold what its labels say? Melody, chords, scale, beats, tempo, dynamics, stereo.

Only measures that real renders pass and wrong labels fail. Most are ranks: the labels are also
laid on transposed or shifted, and the right place should score best; so no threshold is needed.

`hear` takes from a clip once what all of them need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import signal

from audiodiff.labels import FRAME_SECONDS, SAMPLE_RATE, SAMPLES_PER_FRAME, Labels
from audiodiff.loudness import loudness_curve
from audiodiff.tempo import (
    EDGE,
    ONSET_RATE,
    blurred,
    onset_strength,
    onset_tempo,
    same_tempo,
    spectra,
)
from audiodiff.theory import parse_chord, parse_key

WINDOW = 8192  # samples a chroma spectrum: 5.4 Hz apart, a third of a semitone at C4
SPECTRA_PER_FRAME = 2
MELODY_RANGE = range(60, 84)  # MIDI pitches: from C4 on, so that the bass does not decide
HARMONICS = 5  # that speak for a pitch of the melody
HARMONIC_DECAY = 0.9  # of their weight, from each to the next
CHORD_RANGE = (45 - 0.5, 92.5)  # whole octaves, so that all classes have the same chance
SPREAD = 0.25  # of a chord's pitch over the bins round it, semitones
SLACK = 0.01  # seconds by which a note may miss a frame's ends and still fill it
PHASES = 16  # parts of a beat
SMOOTHING = 11  # latent frames, about a second: Savitzky and Golay 1964
SMOOTHING_DEGREE = 1
QUIETEST = -60.0  # dB; it makes no difference how far below something lies
SILENT = 1e-10  # power below which a channel counts as silent


@dataclass(frozen=True)
class Heard:
    """What the measures need of a clip.

    Attributes:
        melody: salience of the pitch classes from C4 to B5 in each latent frame (t 12).
        chords: energy of the pitch classes from A2 to Ab6 (t 12); a frame's sum is 1 or 0.
        onsets: onset strength (n,), `ONSET_RATE` a second.
        levels: of each latent frame (t,), dB.
    """

    melody: np.ndarray
    chords: np.ndarray
    onsets: np.ndarray
    levels: np.ndarray


def hear(samples: np.ndarray) -> Heard:
    """Listen to a clip (c s) at 44.1 kHz."""
    frames = -(-samples.shape[1] // SAMPLES_PER_FRAME)
    step = SAMPLES_PER_FRAME / SPECTRA_PER_FRAME
    centres = (np.arange(frames * SPECTRA_PER_FRAME) + 0.5) * step
    magnitude = spectra(samples, WINDOW, centres)
    return Heard(
        melody=_per_frame(_melody_salience(magnitude)),
        chords=_per_frame(magnitude**2 @ _pitch_bins().T),
        onsets=onset_strength(samples),
        levels=loudness_curve(samples),
    )


@lru_cache
def _pitches() -> np.ndarray:
    """MIDI pitch of each bin of a spectrum, (WINDOW / 2 + 1,)."""
    frequencies = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    frequencies[0] = 1e-3
    return 69 + 12 * np.log2(frequencies / 440)


def _melody_salience(magnitude: np.ndarray) -> np.ndarray:
    """How much each pitch class stands out as a tone with its harmonics: (t 12).

    A pitch's salience is the weighted sum of the roots of its harmonics' magnitudes (Salamon &
    Gomez 2012, "Melody extraction from polyphonic music signals", equation 4, in short); a
    class has that of its most salient pitch.
    """
    steps = [round(12 * np.log2(number)) for number in range(1, HARMONICS + 1)]
    lowest, count = MELODY_RANGE.start, len(MELODY_RANGE)
    edges = np.searchsorted(_pitches(), np.arange(lowest, MELODY_RANGE.stop + steps[-1] + 1) - 0.5)
    tones = np.sqrt(np.maximum.reduceat(magnitude, edges, axis=1)[:, :-1])
    salience = np.zeros((len(magnitude), count), dtype=np.float32)
    for number, step in enumerate(steps):
        salience += HARMONIC_DECAY**number * tones[:, step : step + count]
    classes = np.zeros((len(magnitude), 12), dtype=np.float32)
    for number, pitch in enumerate(MELODY_RANGE):
        of_class = classes[:, pitch % 12]
        np.maximum(of_class, salience[:, number], out=of_class)
    return classes


@lru_cache
def _pitch_bins() -> np.ndarray:
    """Share of each bin of a spectrum in each pitch class: (12, WINDOW / 2 + 1)."""
    pitches = _pitches()
    away = (pitches - np.arange(12)[:, None] + 6) % 12 - 6
    # Bins lie closer the higher the pitch; every semitone shall weigh the same.
    shares = np.exp(-0.5 * (away / SPREAD) ** 2) * 2 ** (-pitches / 12)
    shares[:, (pitches < CHORD_RANGE[0]) | (pitches > CHORD_RANGE[1])] = 0
    return shares.astype(np.float32)


def _per_frame(folded: np.ndarray) -> np.ndarray:
    """Pitch classes of spectra (n 12) -> their mean in each latent frame (t 12), sum 1 or 0."""
    folded = folded.reshape(-1, SPECTRA_PER_FRAME, 12).mean(axis=1)
    total = folded.sum(axis=1, keepdims=True)
    return np.divide(folded, total, out=np.zeros_like(folded), where=total > 0)


def _frame_times(frames: int) -> np.ndarray:
    return (np.arange(frames) + 0.5) * FRAME_SECONDS


def melody_classes(labels: Labels, frames: int) -> np.ndarray:
    """Pitch class of the melody in each latent frame that one note fills (t,); else -1."""
    starts = np.arange(frames) * FRAME_SECONDS
    classes = np.full(frames, -1)
    for start, end, pitch in labels.melody:
        filled = (starts >= start - SLACK) & (starts + FRAME_SECONDS <= end + SLACK)
        classes[filled] = pitch % 12
    return classes


def chord_templates(labels: Labels, frames: int) -> np.ndarray:
    """Weights of the pitch classes of the chord in the middle of each latent frame, (t 12).

    Each frame's sum to 1, or 0 where no chord is known.
    """
    templates = np.zeros((frames, 12), dtype=np.float32)
    if not labels.chords or not labels.beats:
        return templates
    rows = []
    for name in labels.chords:
        row = np.zeros(12, dtype=np.float32)
        row[list(parse_chord(name).pitch_classes)] = 1
        rows.append(row / row.sum())
    beats = np.array(labels.beats[: len(rows)])
    times = _frame_times(frames)
    place = np.searchsorted(beats, times, side="right") - 1
    known = (place >= 0) & (times < beats[-1] + _period(labels))
    templates[known] = np.stack(rows)[place[known]]
    return templates


def _period(labels: Labels) -> float:
    """Seconds a beat; from the beats themselves where there are two."""
    if len(labels.beats) > 1:
        return float(np.median(np.diff(labels.beats)))
    return 60 / (labels.tempo or 120)


def rank(scores: np.ndarray) -> int:
    """1 if the first score is the highest; a tie counts against it."""
    return int((scores >= scores[0]).sum())


def transpositions(chroma: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How well a chroma (t 12) fits what is wanted (t 12) moved up by 0 to 11 semitones: (12,)."""
    frames = min(len(chroma), len(wanted))
    together = chroma[:frames].T @ wanted[:frames]  # (12 12): heard, wanted
    return np.array([np.trace(np.roll(together, step, axis=1)) for step in range(12)])


def melody_top1(heard: Heard, labels: Labels) -> float | None:
    """Share of the melody's frames whose strongest pitch class is the melody's."""
    classes = melody_classes(labels, len(heard.melody))
    sounding = classes >= 0
    if not sounding.any():
        return None
    right = heard.melody.argmax(axis=1) == classes
    return float((right & heard.melody.any(axis=1))[sounding].mean())


def melody_rank(heard: Heard, labels: Labels) -> int | None:
    """Rank of the melody where it is among its 12 transpositions; 1 is best."""
    classes = melody_classes(labels, len(heard.melody))
    if (classes < 0).all():
        return None
    wanted = (classes[:, None] == np.arange(12)).astype(np.float32)
    return rank(transpositions(heard.melody, wanted))


def chord_rank(heard: Heard, labels: Labels) -> int | None:
    """Rank of the chords where they are among their 12 transpositions; 1 is best."""
    templates = chord_templates(labels, len(heard.chords))
    return rank(transpositions(heard.chords, templates)) if templates.any() else None


def scale_fit(heard: Heard, key: str) -> float:
    """Share of the energy from A2 to Ab6 on a key's scale; louder frames count more."""
    return float(_scales(heard, key)[0])


def scale_rank(heard: Heard, key: str) -> int:
    """Rank of a key's scale among its 12 transpositions by the energy on its notes; 1 is best."""
    return rank(_scales(heard, key))


def _scales(heard: Heard, key: str) -> np.ndarray:
    weights = 10 ** (np.asarray(heard.levels, dtype=np.float64) / 20)
    total = weights @ heard.chords[: len(weights)]
    scale = np.zeros(12)
    scale[list(parse_key(key).pitch_classes)] = 1
    shares = transpositions(total[None], scale[None])
    return shares / total.sum() if total.any() else np.zeros(12)


def beat_phase_rank(heard: Heard, labels: Labels) -> int | None:
    """Rank of the beats where they are among 16 shifts of them over a beat, by onset strength."""
    period = _period(labels)
    first, end = EDGE / ONSET_RATE, len(heard.onsets) / ONSET_RATE
    beats = np.array([beat for beat in labels.beats if first <= beat < end])
    if len(beats) < 2:
        return None
    times = beats + np.arange(PHASES)[:, None] * period / PHASES
    inside = (times >= first) & (times < end)
    strength = np.interp(times * ONSET_RATE, np.arange(len(heard.onsets)), blurred(heard.onsets))
    return rank((strength * inside).sum(axis=1) / np.maximum(inside.sum(axis=1), 1))


def tempo_right(heard: Heard, labels: Labels, octaves: bool) -> bool | None:
    """Whether the tempo is the labels' within 4 %, or an octave of it."""
    if labels.tempo is None:
        return None
    return same_tempo(onset_tempo(heard.onsets), labels.tempo, octaves)


def smooth_levels(levels: np.ndarray | Sequence[float]) -> np.ndarray:
    """A loudness curve (t,) in dB without what is faster than about a second (Savitzky-Golay)."""
    return smoothed(np.maximum(np.asarray(levels, dtype=np.float64), QUIETEST))


def smoothed(curve: np.ndarray) -> np.ndarray:
    """A curve (t,) of latent frames without what is faster than about a second."""
    if len(curve) < SMOOTHING:
        return curve
    return np.asarray(signal.savgol_filter(curve, SMOOTHING, SMOOTHING_DEGREE))


def smooth_pair(heard: Heard, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Loudness as heard and as wanted, each smoothed, over the frames that both have."""
    frames = min(len(heard.levels), len(labels.dynamics))
    return smooth_levels(heard.levels[:frames]), smooth_levels(labels.dynamics[:frames])


def dynamics_r(heard: Heard, labels: Labels) -> float | None:
    """Pearson's r between the clip's smoothed loudness curve and the labels'.

    The "micro" correlation of Music ControlNet, arXiv 2311.07069, section 4.3. 0 where the clip's
    loudness never changes; None where the labels' never does.
    """
    return correlation(*smooth_pair(heard, labels))


def correlation(found: np.ndarray, wanted: np.ndarray) -> float | None:
    """Pearson's r; 0 if ``found`` is constant, None if ``wanted`` is or has under three values."""
    if len(wanted) < 3 or np.ptp(wanted) < 1e-6:
        return None
    if np.ptp(found) < 1e-6:
        return 0.0
    return float(np.corrcoef(found, wanted)[0, 1])


def stereo_drift_db(first: np.ndarray, second: np.ndarray) -> float:
    """How far the balance of left and right differs between two clips (2 s), dB."""
    return abs(_balance_db(first) - _balance_db(second))


def _balance_db(samples: np.ndarray) -> float:
    left, right = np.maximum((samples.astype(np.float64) ** 2).mean(axis=1), SILENT)
    return float(10 * np.log10(left / right))


def stereo_drift_by_band_db(first: np.ndarray, second: np.ndarray) -> float:
    """The same in octave bands, averaged by the first clip's energy there.

    Instruments lie in different bands and places, so that a mix that collapsed into the middle
    shows here even if left and right were equally loud before.
    """
    before, after = (_octave_powers(samples) for samples in (first, second))
    drift = np.abs(10 * np.log10(before[0] / before[1]) - 10 * np.log10(after[0] / after[1]))
    energy = before.sum(axis=0)
    return float((drift * energy).sum() / energy.sum())


def _octave_powers(samples: np.ndarray) -> np.ndarray:
    """Power of each channel in the octaves from 43 Hz to 22 kHz, (2 9)."""
    power = np.abs(np.fft.rfft(samples.astype(np.float64), axis=1)) ** 2 / samples.shape[1] ** 2
    frequencies = np.fft.rfftfreq(samples.shape[1], 1 / SAMPLE_RATE)
    edges = SAMPLE_RATE / 2 * 2.0 ** np.arange(-9, 1)
    bands = [(frequencies > low) & (frequencies <= high) for low, high in _pairs(edges)]
    return np.maximum(np.stack([power[:, band].sum(axis=1) for band in bands], axis=1), SILENT)


def _pairs(values: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(values[:-1].tolist(), values[1:].tolist(), strict=True))

"""How well a clip holds what it was given: the field's measures, and one number to compare by.

Beats are tracked at the tempo that was asked for (:func:`audiodiff.tempo.steady_beats`); tempo and
key are heard without knowing it. The definitions of melody accuracy, dynamics r and beat F1 are
those of Music ControlNet (Wu et al. 2023, arXiv 2311.07069, section 4.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from audiodiff import metrics
from audiodiff.audio_file import resample
from audiodiff.bars import first_downbeat
from audiodiff.chord_heard import chords_heard, overlap
from audiodiff.curves import values_at
from audiodiff.key import estimate_key
from audiodiff.labels import FRAME_SECONDS, SAMPLE_RATE, Labels
from audiodiff.loudness import loudness
from audiodiff.metrics import Heard, hear
from audiodiff.sketch import Curve, Rhythm, Sketch
from audiodiff.tempo import (
    ONSET_RATE,
    onset_strength,
    onset_tempo,
    same_tempo,
    steady_beats,
)
from audiodiff.theory import Key, nearest_diatonic
from audiodiff.wishes import wishes_of

if TYPE_CHECKING:
    from audiodiff.settings import MusicSettings

Kept = Mapping[str, Mapping[str, float | str | bool]]
"""Control -> measure -> what was found."""

BEAT_WINDOW = 0.07  # seconds by which a beat may be missed
STROKE_WINDOW = 0.05  # likewise a stroke, as MIREX has it for onsets
TEMPO_WITHIN = 0.02  # share
AGAIN = 0.9  # F1 of a loop's beats in its second round against those in the first
MAIN = {
    "melody": "accuracy",
    "chords": "overlap",
    "rhythm": "beat_f1",
    "dynamics": "r",
    "tempo": "kept",
    "key": "kept",
    "loop": "kept",
    "like": "similarity",
    "brightness": "r",
    "stereo_width": "r",
    "noisiness": "r",
    "onset_density": "r",
}
"""The measure, 1 at best, by which clips are compared."""


def kept(samples: np.ndarray, sample_rate: int, settings: MusicSettings) -> Kept:
    """How well a clip (2 s) holds the tempo, key and sketch of its settings; {} if none was given.

    A measure that the control does not allow, such as the correlation with a level line, is left
    out.
    """
    wishes, sketch = wishes_of(settings), settings.sketch
    if wishes.tempo is None and wishes.key is None and sketch is None:
        return {}
    here = resample(samples, sample_rate, SAMPLE_RATE)
    heard = hear(here)
    found: dict[str, dict[str, float | str | bool]] = {}
    tempo = wishes.tempo
    if sketch is not None:
        if tempo is None and sketch.rhythm is not None:
            tempo = sketch.rhythm.tempo
        found |= sketch_kept(here, heard, sketch)
        if sketch.dynamics is not None:
            level = loudness(here, SAMPLE_RATE)
            found["loudness"] = {"asked": settings.loudness, "heard": round(level, 1)}
    if tempo is not None:
        found["tempo"] = _tempo_kept(heard, tempo)
        if settings.loop is not None:
            found["loop"] = loop_kept(samples, sample_rate, settings, tempo)
    if wishes.key is not None:
        found["key"] = key_kept(here, wishes.key)
    return {name: {key: _plain(v) for key, v in one.items()} for name, one in found.items()}


def score(found: Kept) -> float:
    """The mean of the main measures, the higher the better; 0 where nothing was given."""
    values = [
        min(max(float(one[MAIN[name]]), 0.0), 1.0)
        for name, one in found.items()
        if name in MAIN and MAIN[name] in one
    ]
    return sum(values) / len(values) if values else 0.0


def sketch_kept(
    samples: np.ndarray, heard: Heard, sketch: Sketch
) -> dict[str, dict[str, float | str | bool]]:
    """What is kept of each part of a sketch by a clip (2 s) at 44.1 kHz, within the part's span."""
    found: dict[str, dict[str, float | str | bool | None]] = {}
    frames = len(heard.levels)
    if sketch.melody is not None:
        labels = Labels(melody=sketch.melody.heard())
        found["melody"] = {
            "accuracy": metrics.melody_top1(heard, labels),
            "accuracy_chroma": chroma_accuracy(samples, labels),
        }
    if sketch.chords is not None:
        wanted = sketch.chords.heard()
        found["chords"] = {"overlap": overlap(chords_heard(heard.chords), wanted)}
    if sketch.rhythm is not None:
        found["rhythm"] = rhythm_kept(samples, heard, sketch.rhythm)
    if sketch.dynamics is not None:
        found["dynamics"] = dynamics_kept(heard, sketch.dynamics)
    for name, curve in (
        ("brightness", sketch.brightness),
        ("stereo_width", sketch.stereo_width),
        ("noisiness", sketch.noisiness),
        ("onset_density", sketch.onset_density),
    ):
        if curve is not None:
            from audiodiff.sound_curves import measured

            found[name] = curve_kept(measured(samples, name)[:frames], curve)
    if sketch.like is not None:
        from audiodiff.inputs.timbre import similarity, timbre_of

        found["like"] = {"similarity": similarity(timbre_of(samples), sketch.like)}
    return {
        name: {key: value for key, value in one.items() if value is not None}
        for name, one in found.items()
    }


def chroma_accuracy(samples: np.ndarray, labels: Labels) -> float | None:
    """Music ControlNet's melody accuracy of a clip (c s) at 44.1 kHz.

    The share of frames in which the strongest of 12 pitch classes is the melody's: 22.05 kHz, a hop
    of 256, above 261.2 Hz. Frames between notes are left out; None if there are no notes.
    """
    import librosa
    from scipy import signal

    if not labels.melody:
        return None
    mono = resample(samples.mean(axis=0, keepdims=True), SAMPLE_RATE, 22050)[0]
    high_pass = signal.butter(2, 261.2, "highpass", fs=22050, output="sos")
    above = np.asarray(signal.sosfilt(high_pass, mono))
    chroma = librosa.feature.chroma_stft(y=above, sr=22050, hop_length=256, tuning=0.0)
    times = np.arange(chroma.shape[1]) * 256 / 22050
    wanted = np.full(len(times), -1)
    for start, end, pitch in labels.melody:
        wanted[(times >= start) & (times < end)] = pitch % 12
    right = (chroma.argmax(axis=0) == wanted) & chroma.any(axis=0)
    return float(right[wanted >= 0].mean()) if (wanted >= 0).any() else None


def rhythm_kept(
    samples: np.ndarray, heard: Heard, rhythm: Rhythm
) -> dict[str, float | str | bool | None]:
    """F1 of beats and downbeats at 70 ms and of strokes at 50 ms (mir_eval), within the span.

    The beats that are found begin bars as :func:`audiodiff.bars.first_downbeat` has it.
    """
    import librosa
    import mir_eval

    end = len(heard.onsets) / ONSET_RATE

    def inside(times: np.ndarray) -> np.ndarray:
        return np.array([t for t in times if 0 <= t < end and rhythm.covers(float(t))])

    wanted = inside(np.array(rhythm.beats))
    beats = steady_beats(heard.onsets, rhythm.tempo)
    found = inside(beats)
    result: dict[str, float | str | bool | None] = {
        "beat_f1": float(mir_eval.beat.f_measure(wanted, found, BEAT_WINDOW))
        if len(wanted)
        else None
    }
    bars = inside(np.array(rhythm.downbeats))
    if len(bars) and len(beats) > rhythm.meter:
        first = first_downbeat(samples, heard.chords, beats.tolist(), rhythm.meter)
        found = inside(beats[first :: rhythm.meter])
        result["downbeat_f1"] = float(mir_eval.beat.f_measure(bars, found, BEAT_WINDOW))
    strokes = inside(np.array(rhythm.strokes))
    if len(strokes):
        onsets = librosa.onset.onset_detect(
            onset_envelope=heard.onsets, sr=ONSET_RATE, hop_length=1, units="time"
        )
        result["stroke_f1"] = float(
            mir_eval.onset.f_measure(strokes, inside(np.asarray(onsets)), STROKE_WINDOW)[0]
        )
    return result


def dynamics_kept(heard: Heard, curve: Curve) -> dict[str, float | str | bool | None]:
    """Pearson's r of the smoothed levels, and how far they are apart, dB, and at one loudness."""
    wanted = values_at(curve, len(heard.levels))
    inside = _covered(curve, len(wanted))
    found, asked = (metrics.smooth_levels(levels)[inside] for levels in (heard.levels, wanted))
    error = found - asked
    return {
        "r": metrics.correlation(found, asked),
        "error_db": float(np.abs(error).mean()),
        "shape_error_db": float(np.abs(error - np.median(error)).mean()),
    }


def loop_kept(
    samples: np.ndarray, sample_rate: int, settings: MusicSettings, tempo: float
) -> dict[str, float | str | bool]:
    """Whether a loop (2 s) is one: its length, its wrap, and what is heard when it plays on.

    Beats are tracked over three rounds at once, lest the tracker's own ends count; in two that
    follow each other, as long as the bars should be, they are to come at the same places.
    """
    import mir_eval

    from audiodiff.inputs.audio import track_beats
    from audiodiff.joins import flux_at_joins

    played = resample(np.tile(samples, 3), sample_rate, SAMPLE_RATE)
    round_s = samples.shape[1] / sample_rate
    onsets = onset_strength(played)
    heard = onset_tempo(onsets)
    beats = track_beats(onsets, tempo)
    again = 0.0
    if len(beats) > 3:
        start = (beats[1] + beats[2]) / 2  # between beats, so that none is near an end
        first, second = (
            beats[(beats >= begin) & (beats < begin + settings.seconds)] - begin
            for begin in (start, start + settings.seconds)
        )
        again = float(mir_eval.beat.f_measure(first, second, BEAT_WINDOW))
    same = same_tempo(heard, tempo, octaves=True, tolerance=TEMPO_WITHIN)
    return {
        "length_error": samples.shape[1] - round(settings.seconds * sample_rate),
        "flux_at_wrap": flux_at_joins(played, [round(round_s * SAMPLE_RATE)])[0],
        "tempo_twice": "none" if heard is None else round(heard, 1),
        "beats_again": again,
        "kept": same and again >= AGAIN,
    }


def curve_kept(found: np.ndarray, curve: Curve) -> dict[str, float | str | bool | None]:
    """Pearson's r of a smoothed curve (t,) with the one asked for, and their mean distance."""
    wanted = values_at(curve, len(found))
    inside = _covered(curve, len(wanted))
    smooth = metrics.smoothed(found)[inside]
    return {
        "r": metrics.correlation(smooth, wanted[inside]),
        "error": float(np.abs(smooth - wanted[inside]).mean()),
        "heard": float(smooth.mean()),
        "asked": float(wanted[inside].mean()),
    }


def key_kept(samples: np.ndarray, key: Key) -> dict[str, float | str | bool]:
    """The key that is heard, and whether it is the one asked for or has its scale."""
    heard = estimate_key(samples, SAMPLE_RATE)
    same = heard is not None and {*heard.pitch_classes} == {*nearest_diatonic(key).pitch_classes}
    name = "none" if heard is None else heard.name
    return {"asked": key.name, "heard": name, "kept": same}


def _tempo_kept(heard: Heard, tempo: float) -> dict[str, float | str | bool]:
    found = onset_tempo(heard.onsets)
    return {
        "asked": tempo,
        "heard": "none" if found is None else round(found, 1),
        "kept": same_tempo(found, tempo, octaves=True, tolerance=TEMPO_WITHIN),
    }


def _covered(curve: Curve, frames: int) -> np.ndarray:
    middles = (np.arange(frames) + 0.5) * FRAME_SECONDS
    return np.array([curve.covers(float(time)) for time in middles])


def _plain(value: float | str | bool) -> float | str | bool:
    return round(float(value), 4) if isinstance(value, float) else value


def told(found: Kept) -> list[str]:
    """What is kept, a line a control, as people read it."""
    lines = []
    for name, one in found.items():
        values = ", ".join(
            f"{key.replace('_', ' ')} {value:.3g}"
            if isinstance(value, float)
            else f"{key} {'yes' if value is True else 'no' if value is False else value}"
            for key, value in one.items()
        )
        lines.append(f"{name.replace('_', ' ')}: {values}")
    return lines

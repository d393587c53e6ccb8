"""Which major and minor chords a recording plays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audiodiff.labels import FRAME_SECONDS
from audiodiff.theory import PITCH_CLASSES, QUALITIES, parse_chord

STAYS = 0.95  # probability that the next latent frame has the same chord
SHARPNESS = 10.0  # of a frame's likeness to chords, made into probabilities
TEMPLATES = tuple((root, kind) for kind in ("maj", "min") for root in range(12))
_STEPS = {"maj": (0, 4, 7), "min": (0, 3, 7)}

Spans = Sequence[tuple[float, float, str]]


def chords_heard(chroma: np.ndarray) -> list[tuple[float, float, str]]:
    """The chords of a chroma of latent frames (t 12): start, end and name in mir_eval's notation.

    Likeness to the 24 major and minor triads, smoothed over time by Viterbi's algorithm (Sheh &
    Ellis 2003, "Chord segmentation and recognition using EM-trained hidden Markov models", with
    templates in place of training).
    """
    import librosa

    templates = np.zeros((len(TEMPLATES), 12))
    for row, (root, kind) in zip(templates, TEMPLATES, strict=True):
        row[[(root + step) % 12 for step in _STEPS[kind]]] = 1 / np.sqrt(3)
    size = np.linalg.norm(chroma, axis=1, keepdims=True)
    likeness = templates @ (chroma / np.maximum(size, 1e-9)).T  # (24 t)
    odds = np.exp(SHARPNESS * (likeness - likeness.max(axis=0)))
    stay = librosa.sequence.transition_loop(len(TEMPLATES), STAYS)
    states = librosa.sequence.viterbi_discriminative(odds / odds.sum(axis=0), stay)
    found: list[tuple[float, float, str]] = []
    for frame, (state, sounds) in enumerate(zip(states, size[:, 0] > 0, strict=True)):
        root, kind = TEMPLATES[state]
        name = f"{PITCH_CLASSES[root]}:{kind}" if sounds else "N"
        start = frame * FRAME_SECONDS
        if found and found[-1][2] == name:
            start = found.pop()[0]
        found.append((start, (frame + 1) * FRAME_SECONDS, name))
    return found


def overlap(found: Spans, wanted: Spans) -> float | None:
    """The share of the time of wanted chords in which the right one is heard, as major or minor.

    The "majmin" score of MIREX as mir_eval has it: of chords with a third (and a fifth) only root
    and third count, others are left out. None where no such chord is wanted.

    Args:
        found: of :func:`chords_heard`.
        wanted: with names of `audiodiff.theory`.
    """
    import mir_eval

    total = right = 0.0
    for start, end, name in wanted:
        theirs = majmin(name)
        if theirs is None:
            continue
        parts = [
            (min(end, stop) - max(start, begin), heard)
            for begin, stop, heard in found
            if min(end, stop) > max(start, begin)
        ]
        if not parts:
            continue
        scores = mir_eval.chord.majmin([theirs] * len(parts), [heard for _, heard in parts])
        lengths = np.array([length for length, _ in parts])
        total += lengths.sum()
        right += float((lengths * np.maximum(scores, 0)).sum())
    return right / total if total else None


def majmin(name: str) -> str | None:
    """ "Am7/G" -> "A:min"; None for a chord that is neither major nor minor."""
    chord = parse_chord(name)
    steps = QUALITIES[chord.quality]
    kind = "maj" if {4, 7} <= {*steps} else "min" if {3, 7} <= {*steps} else None
    return None if kind is None else f"{PITCH_CLASSES[chord.root]}:{kind}"

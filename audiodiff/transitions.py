"""How one track leads to another: beats on beats, from tempo to tempo and from key to key.

In the overlap the beats of both fall together. Their pace glides from that of the first to that of
the second, each stretched beat by beat to keep it, and where the keys differ a chord that both
know, and the second's dominant, lead over. All else of either track stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from audiodiff.audio_file import resample
from audiodiff.ground import Ground, listen
from audiodiff.labels import SAMPLE_RATE
from audiodiff.theory import PITCH_CLASSES, Key

HEARD_SECONDS = 15.0  # of the end of the one and of the beginning of the other
MOST_RATIO = 1.25  # of two tempi that are led from one to the other; beyond, they stay as they are
SAME = 0.01  # share by which a beat may be off in length and is not stretched, only resampled
SEAM = 0.01  # seconds over which one stretched beat is faded into the next
_TRIADS = {"": (0, 4, 7), "m": (0, 3, 7)}


@dataclass(frozen=True)
class Meeting:
    """Where and how two tracks meet; times in seconds.

    Attributes:
        first, second: what was heard of the end of the one and the beginning of the other.
        leave: of the first track, when the transition begins.
        enter: of the second track, when it ends.
        marks: of the transition, when its beats are, its beginning and its end included.
        before, after: the same moments of the first track, and of the second.
        chords: that lead from key to key; empty where the keys agree or are not known.
    """

    first: Ground
    second: Ground
    leave: float
    enter: float
    marks: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    chords: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.marks[-1]

    @property
    def on_beats(self) -> bool:
        """Whether the beats of both fall together."""
        return len(self.marks) > 2

    def told(self) -> list[str]:
        """What to tell of it, a line each."""
        lines = [f"the first clip ends with {self.first.told()}; the second begins with "
                 f"{self.second.told()}"]  # fmt: skip
        if self.on_beats:
            lines.append(
                f"the transition lasts {len(self.marks) - 1} beats from {self.leave:.2f} s on, "
                f"{self.seconds:.2f} s, beats on beats"
            )
        else:
            lines.append("their beats do not go together; the transition does not heed them")
        if self.chords:
            lines.append(f"it leads from key to key by {' '.join(self.chords)}")
        return lines


def meet(before: np.ndarray, after: np.ndarray, sample_rate: int, overlap: float) -> Meeting:
    """Where two tracks (c s) meet that are to overlap by about so many seconds.

    The whole beats next to that: less than one at the end of the first track, and at the beginning
    of the second, falls away where it would be silent.
    """
    end, length = (samples.shape[1] / sample_rate for samples in (before, after))
    reach = max(HEARD_SECONDS, 2 * overlap)
    start = max(0.0, end - reach)
    tail = before[:, round(start * sample_rate) :]
    first = listen(resample(tail, sample_rate, SAMPLE_RATE), start=start)
    head = after[:, : round(reach * sample_rate)]
    second = listen(resample(head, sample_rate, SAMPLE_RATE))
    chords = way(first.key, second.key)
    plain = Meeting(
        first, second, end - overlap, overlap, (0.0, overlap), (end - overlap, end),
        (0.0, overlap), chords,
    )  # fmt: skip
    if first.grid is None or second.grid is None or first.tempo is None or second.tempo is None:
        return plain
    # A tempo may be taken for its half or double: the nearest counts.
    ratio = min((second.tempo * factor / first.tempo for factor in (0.5, 1, 2)), key=_away)
    pace = ratio * first.tempo / second.tempo  # beats counted, to a beat heard, of the second
    count = round(overlap * first.tempo * math.sqrt(ratio) / 60)
    if _away(ratio) > math.log(MOST_RATIO) or count < 2:
        return plain
    last = math.floor(first.grid.beat(end) + 1e-6)
    lead = [first.grid.seconds(last - count + i) for i in range(count + 1)]
    opening = math.ceil(second.grid.beat(0.0) - 1e-6)
    follow = [second.grid.seconds(opening + i / pace) for i in range(count + 1)]
    if lead[0] < 0 or follow[-1] > length:
        return plain
    gaps = np.geomspace(lead[1] - lead[0], follow[-1] - follow[-2], count)
    marks = (0.0, *np.cumsum(gaps).tolist())
    return Meeting(
        first, second, lead[0], follow[-1], marks, tuple(lead), tuple(follow), chords
    )  # fmt: skip


def draft(before: np.ndarray, after: np.ndarray, sample_rate: int, meeting: Meeting) -> np.ndarray:
    """The transition's samples (c n): the first track fades into the second at even power."""
    length = round(meeting.seconds * sample_rate)
    lead = warped(before, sample_rate, meeting.before, meeting.marks)
    follow = warped(after, sample_rate, meeting.after, meeting.marks)
    fade = np.linspace(0, np.pi / 2, length)
    return (np.cos(fade) * lead[:, :length] + np.sin(fade) * follow[:, :length]).astype(np.float32)


def warped(
    samples: np.ndarray, sample_rate: int, marks: Sequence[float], wanted: Sequence[float]
) -> np.ndarray:
    """The part of (c s) between marks, in seconds, with its marks at the wanted times: (c n)."""
    seam = round(SEAM * sample_rate)
    length = round(wanted[-1] * sample_rate)
    made = np.zeros((len(samples), length + seam))
    for (start, end), (begin, finish) in zip(pairwise(marks), pairwise(wanted), strict=True):
        first, last = (round(time * sample_rate) for time in (begin, finish))
        count = last - first + seam  # a little longer, to fade into the next
        rate = (end - start) / (finish - begin)
        here = round(start * sample_rate)
        piece = samples[:, max(0, here) : here + round(count * rate)]
        played = stretched(piece, rate, count)
        if first:
            ramp = np.linspace(0, 1, seam)
            made[:, first : first + seam] *= 1 - ramp
            played[:, :seam] *= ramp
        made[:, first : first + count] += played
    return made[:, :length]


def stretched(samples: np.ndarray, rate: float, count: int) -> np.ndarray:
    """Samples (c n) played ``rate`` times as quickly at the same pitch: (c count).

    What is not there is silent.
    """
    if abs(rate - 1) > SAME and samples.shape[1] > 1:
        import librosa

        played = librosa.effects.time_stretch(np.ascontiguousarray(samples, np.float32), rate=rate)
    else:
        played = samples
    return np.pad(played, ((0, 0), (0, max(0, count - played.shape[1]))))[:, :count].astype(float)


def way(first: Key | None, second: Key | None) -> tuple[str, ...]:
    """Chords that lead from one key to another: the tonic, one that both have, the dominant.

    Nothing where the keys have the same notes, or one is not known.
    """
    if first is None or second is None:
        return ()
    if {*first.pitch_classes} == {*second.pitch_classes}:
        return ()
    # From the second's point of view: its supertonic and subdominant prepare a dominant best.
    common = [name for name in _triads(second, (2, 5, 9, 0, 4, 7)) if name in _triads(first)]
    dominant = PITCH_CLASSES[(second.tonic + 7) % 12]
    names = [_tonic(first), *common[:1], dominant]
    return tuple(dict.fromkeys(name for name in names if name != _tonic(second)))


def _triads(key: Key, order: Sequence[int] = range(12)) -> list[str]:
    """The major and minor triads of a key, by how far their roots lie above its tonic."""
    roots = [(key.tonic + step) % 12 for step in order]
    return [
        PITCH_CLASSES[root] + kind
        for root in roots
        for kind, steps in _TRIADS.items()
        if all((root + step) % 12 in key.pitch_classes for step in steps)
    ]


def _tonic(key: Key) -> str:
    minor = (key.tonic + 4) % 12 not in key.pitch_classes
    return PITCH_CLASSES[key.tonic] + ("m" if minor else "")


def _away(ratio: float) -> float:
    return abs(math.log(ratio))

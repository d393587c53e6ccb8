"""What is known of a clip: the words and numbers that a caption states and controls are made of.

Labels lie in the columns of a corpus's ``metadata.jsonl``, one object a clip. Whatever is not known
is None or empty, so a folder of anyone's own clips with captions only has labels too.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from shared.errors import UserError

if TYPE_CHECKING:
    from audiodiff.score import Score

SAMPLE_RATE = 44100  # Hz
SAMPLES_PER_FRAME = 4096  # of one latent frame, and of one entry of ``Labels.dynamics``
FRAME_SECONDS = SAMPLES_PER_FRAME / SAMPLE_RATE
KINDS = ("music", "sound")


@dataclass(frozen=True)
class Labels:
    """What is known of a clip; None or empty stands for unknown.

    Times are seconds from the start of the clip.

    Attributes:
        kind: "music" or "sound" (a single sound or a texture).
        style: such as "bossa nova".
        mood: such as "calm".
        instruments: families in natural words, such as ("piano", "drums").
        tempo: beats a minute.
        meter: beats a bar.
        key: such as "A minor".
        chords: one a beat, such as "Am7/G"; ``chords[i]`` sounds from ``beats[i]`` on.
        melody: start, end and MIDI pitch of each note.
        beats: their times. The first is the beat that goes on at 0, so it may be negative.
        downbeats: those that begin a bar, likewise.
        dynamics: level in dB of each latent frame (4096 samples at 44.1 kHz), see
            `audiodiff.loudness.loudness_curve`.
        duration: of the clip, seconds.
    """

    kind: str | None = None
    style: str | None = None
    mood: str | None = None
    instruments: tuple[str, ...] = ()
    tempo: float | None = None
    meter: int | None = None
    key: str | None = None
    chords: tuple[str, ...] = ()
    melody: tuple[tuple[float, float, int], ...] = ()
    beats: tuple[float, ...] = ()
    downbeats: tuple[float, ...] = ()
    dynamics: tuple[float, ...] = ()
    duration: float | None = None

    def window(self, start_s: float, seconds: float) -> "Labels":
        """The labels of the part from ``start_s`` on that is ``seconds`` long.

        Times count from the new start. Notes are cut where the window cuts them; the beat and the
        bar that go on at the start stay, with times at or below 0. ``dynamics`` starts with the
        frame that is nearest.
        """
        end = start_s + seconds
        if self.duration is not None:
            end = max(start_s, min(end, self.duration))
        beats = _spanning(self.beats, start_s, end)
        downbeats = _spanning(self.downbeats, start_s, end)
        first = round(start_s / FRAME_SECONDS)
        # Not ceil alone: 262144 samples are 64 frames although 5.944.. s / FRAME_SECONDS is not 64.
        frames = math.ceil(round((end - start_s) / FRAME_SECONDS, 6))
        return Labels(
            kind=self.kind,
            style=self.style,
            mood=self.mood,
            instruments=self.instruments,
            tempo=self.tempo,
            meter=self.meter,
            key=self.key,
            chords=self.chords[beats.start : beats.stop],
            melody=tuple(
                (max(note_start, start_s) - start_s, min(note_end, end) - start_s, pitch)
                for note_start, note_end, pitch in self.melody
                if note_end > start_s and note_start < end
            ),
            beats=tuple(self.beats[i] - start_s for i in beats),
            downbeats=tuple(self.downbeats[i] - start_s for i in downbeats),
            dynamics=self.dynamics[first : first + frames],
            duration=end - start_s,
        )


def _spanning(times: Sequence[float], start: float, end: float) -> range:
    """Indices of the ascending ``times`` before ``end``, from the last one not after ``start``."""
    before = sum(time <= start for time in times)
    return range(max(before - 1, 0), sum(time < end for time in times))


def labels_from_score(
    score: "Score", dynamics: Sequence[float] = (), duration: float | None = None
) -> Labels:
    """The labels of a clip that starts with ``score``'s first beat.

    Drums alone have neither key nor chords.

    Args:
        score: what is played.
        dynamics: level of each latent frame of the rendered clip, dB.
        duration: of the clip, seconds; what the score holds after it is left out. The score's own
            length by default.
    """
    length = score.seconds if duration is None else duration
    beat = 60 / score.tempo
    whole = Labels(
        kind="music",
        style=score.style,
        mood=score.mood,
        instruments=tuple(score.instruments),
        tempo=float(score.tempo),
        meter=score.meter,
        key=score.key.name if score.pitched else None,
        chords=tuple(chord.name for chord in score.chords) if score.pitched else (),
        melody=tuple(
            (_time(note.start * beat), _time((note.start + note.duration) * beat), note.pitch)
            for note in score.melody
        ),
        beats=tuple(_time(i * beat) for i in range(score.beats)),
        downbeats=tuple(_time(i * beat) for i in range(0, score.beats, score.meter)),
        dynamics=tuple(round(float(level), 2) for level in dynamics),
        duration=float(length),
    )
    return whole.window(0.0, length)


def _time(seconds: float) -> float:
    return round(seconds, 5)  # half a sample; keeps the metadata short


def to_json(labels: Labels) -> dict[str, Any]:
    """The labels as an object of a JSON file; `from_json` gives exactly the same labels back."""
    return asdict(labels)


def from_json(row: Mapping[str, Any]) -> Labels:
    """Read labels from a JSON object; columns missing are unknown, and others are left out.

    Raises:
        UserError: a column holds something of another kind than the label of its name.
    """
    found = {}
    for field in fields(Labels):
        value = row.get(field.name)
        if value is None:
            continue
        try:
            found[field.name] = _READERS[field.name](value)
        except (TypeError, ValueError, OverflowError):
            raise UserError(
                f"the column {field.name} holds {value!r:.60}; {_WANTED[field.name]} is needed"
            ) from None
    return Labels(**found)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _kind(value: Any) -> str:
    if value not in KINDS:
        raise ValueError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _positive(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError
    return number


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _meter(value: Any) -> int:
    if _whole(value) < 1:
        raise ValueError
    return value


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(_number(item) for item in _list(value))


def _times(value: Any) -> tuple[float, ...]:
    times = _numbers(value)
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise ValueError
    return times


def _melody(value: Any) -> tuple[tuple[float, float, int], ...]:
    notes = []
    for item in _list(value):
        start, end, pitch = _list(item)
        notes.append((_number(start), _number(end), _whole(pitch)))
        if not 0 <= pitch <= 127:
            raise ValueError
    return tuple(notes)


_READERS = {
    "kind": _kind,
    "style": _text,
    "mood": _text,
    "instruments": _texts,
    "tempo": _positive,
    "meter": _meter,
    "key": _text,
    "chords": _texts,
    "melody": _melody,
    "beats": _times,
    "downbeats": _times,
    "dynamics": _numbers,
    "duration": _positive,
}
_WANTED = {
    "kind": " or ".join(KINDS),
    "style": "a text",
    "mood": "a text",
    "instruments": "a list of texts",
    "tempo": "a number of beats a minute",
    "meter": "a number of beats a bar",
    "key": "a text",
    "chords": "a list of texts, one a beat",
    "melody": "a list of [start, end, MIDI pitch]",
    "beats": "a list of ascending times",
    "downbeats": "a list of ascending times",
    "dynamics": "a list of numbers",
    "duration": "a number of seconds",
}

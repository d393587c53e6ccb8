"""Captioned clips: composed and rendered music, the folders it is kept in, and anyone's own folder.

A corpus is a folder as Hugging Face's ``audiofolder`` loader knows it: audio files, and a
``metadata.jsonl`` whose lines hold ``file_name``, ``text`` (a caption), ``texts`` (all captions)
and the columns of `audiodiff.labels.Labels`.
"""

import hashlib
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from audiodiff.audio_file import read_audio, to_16_bit, write_audio
from audiodiff.captions import captions
from audiodiff.compose import clip
from audiodiff.labels import SAMPLE_RATE, Labels, from_json, labels_from_score, to_json
from audiodiff.loudness import loudness_curve, normalize
from audiodiff.render import LOWEST, find_soundfont, loaded, render
from audiodiff.score import Score
from audiodiff.sounds import Sound, sound
from shared.captioned import METADATA, CaptionedFile, claim, read_captioned, rows_in, spread
from shared.errors import UserError
from shared.files import whole_file

ORIGIN = "corpus.json"  # beside the metadata: which seed, lengths and soundfont made the clips
FILES_PER_FOLDER = 1000
CHUNK = 25  # clips a worker makes at a time
SHORTEST, LONGEST = 2.0, 600.0  # seconds of a clip
MOST_HOURS = 4000.0


def clip_at(
    seed: int, index: int, seconds: float = 16.0, sounds: float = 0.08, alone: float = 0.0
) -> Score | Sound:
    """What is heard in clip number ``index`` of the endless series ``seed``: music, or a sound.

    Of the share ``alone`` of all music one or two instruments are left.
    """
    name = f"{seed}/{index}"
    # Streams of their own: what is composed must not hang together with whether it is music.
    if random.Random(f"kind {name}").random() < sounds:
        return sound(name)
    score, rng = clip(name, seconds), random.Random(f"alone {name}")
    return few_of(score, rng) if rng.random() < alone else score


def few_of(score: Score, rng: random.Random) -> Score:
    """One instrument of a score, three times in four, or two of them.

    Who is left plays at least a note a second; a score in which nobody does stays whole.
    """
    busy = [
        name
        for name in score.instruments
        if sum(len(part.notes) for part in score.parts if part.instrument == name) >= score.seconds
    ]
    if not busy:
        return score
    left = rng.sample(busy, min(len(busy), rng.choice((1, 1, 1, 2))))
    return replace(score, parts=tuple(part for part in score.parts if part.instrument in left))


def labels_of(score: Score, samples: np.ndarray) -> Labels:
    """The labels of a score's rendering ``samples`` (c s) at 44.1 kHz, cut to its length."""
    return labels_from_score(
        score, loudness_curve(samples).tolist(), samples.shape[1] / SAMPLE_RATE
    )


def write_corpus(
    out: Path,
    hours: float,
    soundfont: Path | None = None,
    seed: int = 0,
    seconds: float = 16.0,
    sounds: float = 0.08,
    alone: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> None:
    """Compose and render the first clips of a series into an audiofolder of 16-bit FLAC files.

    A clip depends on ``seed`` and its number only, so more hours add to a folder written before,
    and an interrupted run goes on where it was. The metadata come last and all at once. All clips
    are 44.1 kHz stereo of one loudness (-16 LUFS).

    Args:
        out: the folder; made if absent.
        hours: of sound in the end, each clip counted as ``seconds`` long.
        soundfont: file; by default FluidR3 GM of the system.
        seed: which series of clips.
        seconds: length of a clip of music; single sounds have their own.
        sounds: share of clips that are single sounds or textures.
        alone: share of the music of which one or two instruments are left.
        progress: called as ``progress(done, count)`` after every few clips.
        workers: processes that render.

    Raises:
        UserError: an argument out of range, no soundfont or FluidSynth, or the folder holds
            something else.
    """
    for name, value, low, high in (
        ("hours", hours, 0.0, MOST_HOURS),
        ("seconds", seconds, SHORTEST, LONGEST),
        ("sounds", sounds, 0.0, 1.0),
        ("alone", alone, 0.0, 1.0),
        ("workers", workers, 1, 1000),
    ):
        if not low <= value <= high or (name == "hours" and value == 0):
            least = "more than 0" if name == "hours" else f"at least {low:g}"
            raise UserError(f"{name} is {value:g}; {least} and at most {high:g} is allowed")
    font = find_soundfont(soundfont)
    shares = {"sounds": sounds, "alone": alone}
    origin = {
        "seed": seed,
        "seconds": seconds,
        **shares,
        "soundfont": _hash(font),
        "lowest_hertz": LOWEST,
    }
    claim(out, ORIGIN, origin, "clips")
    loaded(font)  # a broken one, or no FluidSynth, shows here and not inside a worker
    # Rounded first: 0.1 h of 16 s are 22.5 clips, but 0.008 / 3 h of 9.6 s are 1.
    count = max(math.ceil(round(hours * 3600 / seconds, 6)), rows_in(out))
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    done = 0
    with whole_file(out / METADATA, overwrite=True) as metadata:
        work = partial(
            _write_chunk,
            out,
            font,
            partial(clip_at, seed, seconds=seconds, **shares),
            seed,
            seconds,
        )
        for lines in spread(work, chunks, workers):
            metadata.writelines(line.encode() for line in lines)
            done += len(lines)
            if progress is not None:
                progress(done, count)


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def _write_chunk(
    out: Path,
    soundfont: Path,
    what_at: Callable[[int], Score | Sound],
    seed: int,
    seconds: float,
    indices: range,
) -> list[str]:
    """Render what is not there yet and return the metadata lines."""
    lines = []
    for index in indices:
        name = f"audio/{index // FILES_PER_FOLDER:03d}/{index:06d}.flac"
        what = what_at(index)
        path = out / name
        if path.exists():
            samples, _ = read_audio(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = make(what, soundfont, seconds)
            write_audio(path, samples, SAMPLE_RATE)
        if isinstance(what, Score):
            texts = captions(what, random.Random(f"captions {seed}/{index}"))
            labels = labels_of(what, samples)
        else:
            texts = list(what.captions)
            levels = tuple(round(float(level), 2) for level in loudness_curve(samples))
            labels = Labels(kind="sound", dynamics=levels, duration=samples.shape[1] / SAMPLE_RATE)
        row = {"file_name": name, "text": texts[0], "texts": texts} | to_json(labels)
        lines.append(json.dumps(row) + "\n")
    return lines


def make(what: Score | Sound, soundfont: Path, seconds: float) -> np.ndarray:
    """Render a clip: (2, s) float32 at 44.1 kHz and -16 LUFS, of values that 16 bits hold exactly.

    ``seconds`` is the length of music; a sound has its own.
    """
    if isinstance(what, Score):
        raw = render(what, soundfont, SAMPLE_RATE, seconds)
    else:
        raw = what.samples(soundfont, SAMPLE_RATE)
    return to_16_bit(normalize(raw, SAMPLE_RATE)) / np.float32(32768)


@dataclass(frozen=True)
class Row:
    """One captioned clip of a folder; ``texts`` are its captions, at least one."""

    path: Path
    texts: tuple[str, ...]
    labels: Labels = field(default_factory=Labels)


def read_folder(path: str | Path) -> list[Row]:
    """Read an audiofolder: audio files with a ``metadata.jsonl`` beside or above them.

    A row needs ``file_name`` and ``text``; further captions in ``texts``, and labels, may be there.

    Raises:
        UserError: no metadata, a line that is not a JSON object, a row without text or with labels
            of another kind, or an audio file that is not there.
    """
    return [_row(entry) for entry in read_captioned(Path(path), "audio file")]


def _row(entry: CaptionedFile) -> Row:
    texts = entry.columns.get("texts") or [entry.text]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{entry.where}: texts is not a list of captions")
    try:
        labels = from_json(entry.columns)
    except UserError as error:
        raise UserError(f"{entry.where}: {error}") from None
    return Row(entry.path, tuple(texts), labels)

"""Examples for what is learnt of clips by itself, tempo's comb and keys' profiles.

One half is learnt from, the other tells how well that went.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from audiodiff.corpus import Row, read_folder
from audiodiff.sound_file import read_sound
from shared.errors import UserError

LENGTHS = (6.0, 16.0)  # seconds of the clips' middles that are heard

Examples = tuple[np.ndarray, np.ndarray]
"""What is heard (n ...), and numbers that tell what is true (n,)."""


@dataclass(frozen=True)
class Task:
    """What is to be learnt.

    Attributes:
        description: of the command.
        clips: that it reads if it is not told how many.
        stated: what a clip's labels must state, such as "a key".
        truth: the number that a row's labels state, or None.
        heard: samples (c s) and their rate -> what is heard of each of `LENGTHS`, or None where
            nothing is.
    """

    description: str
    clips: int
    stated: str
    truth: Callable[[Row], float | None]
    heard: Callable[[np.ndarray, int], Sequence[np.ndarray] | None]


def read_examples(task: Task, args: Sequence[str] | None = None) -> dict[str, Examples]:
    """Those of the clips that a command line asks for, by what to call them: one for each length.

    Ends the process with one line where they cannot be read.
    """
    parser = argparse.ArgumentParser(description=task.description)
    parser.add_argument("--data", type=Path, required=True, help="labelled corpus of clips")
    parser.add_argument("--clips", type=int, default=task.clips)
    given = parser.parse_args(args)
    try:
        return _of_clips(task, read_folder(given.data), given.clips)
    except UserError as error:
        sys.exit(f"Error: {error}")


def _of_clips(task: Task, rows: Sequence[Row], count: int) -> dict[str, Examples]:
    """Of ``count`` clips drawn by lot."""
    told = [(row, truth) for row in rows if (truth := task.truth(row)) is not None]
    if len(told) < count:
        raise UserError(f"only {len(told)} clips state {task.stated}; {count} are needed (--clips)")
    found = []
    for row, truth in tqdm(random.Random(0).sample(told, count), unit="clip"):
        sound = read_sound(row.path)
        parts = task.heard(sound.samples, sound.sample_rate)
        if parts is not None:
            found.append((parts, truth))
    true = np.array([truth for _, truth in found])
    return {
        f"clips of {length:g} s": (np.stack([parts[number] for parts, _ in found]), true)
        for number, length in enumerate(LENGTHS)
    }


def learnt_half(examples: Mapping[str, Examples]) -> Examples:
    """Every other example of each kind, all kinds together."""
    halves = [(heard[0::2], true[0::2]) for heard, true in examples.values()]
    heard, true = map(np.concatenate, zip(*halves, strict=True))
    return heard, true


def other_half(examples: Examples) -> Examples:
    """The examples that nothing was learnt from."""
    heard, true = examples
    return heard[1::2], true[1::2]

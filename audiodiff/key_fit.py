"""Learning what pitch classes say for a key: ``python -m audiodiff.key_fit --data CORPUS``.

Prints the weights that :mod:`audiodiff.key` keeps as `PROFILES`, and how often keys are
right with them in clips that they were not learnt from.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import optimize, special
from tqdm import tqdm

from audiodiff.analysis import middle_part
from audiodiff.corpus import Row, read_folder
from audiodiff.key import KEYS, PROFILES, chroma, key_scores
from audiodiff.sound_file import read_sound
from audiodiff.theory import nearest_diatonic, parse_key
from shared.errors import UserError

LENGTHS = (6.0, 16.0)  # seconds of the clips' middles that are learnt from
RIDGE = 2e-5  # by which large weights are held back: music is not all composed here

Examples = tuple[np.ndarray, np.ndarray]
"""What is heard (n 2 12), of :func:`audiodiff.key.chroma`, and numbers of true `KEYS` (n,)."""


def fit_profiles(heard: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The profiles (2 2 12) under which the true keys are likeliest.

    Multinomial logistic regression, by maximum likelihood, all tonics sharing their weights.
    """
    from_tonic = np.stack([np.roll(heard, -tonic, axis=2) for tonic in range(12)], axis=1)
    is_true = np.eye(len(KEYS))[true]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        profiles = weights.reshape(2, 2, 12)
        scores = key_scores(heard, profiles)
        surprise = special.logsumexp(scores, axis=1) - (scores * is_true).sum(axis=1)
        excess = (special.softmax(scores, axis=1) - is_true).reshape(-1, 2, 12) / len(heard)
        slopes = np.einsum("nmt,ntbp->mbp", excess, from_tonic) / 12 + 2 * RIDGE * profiles
        return float(surprise.mean() + RIDGE * np.square(profiles).sum()), slopes.ravel()

    return optimize.minimize(loss, np.zeros(2 * 2 * 12), jac=True).x.reshape(2, 2, 12)


def shares_right(heard: np.ndarray, true: np.ndarray, profiles: np.ndarray) -> tuple[float, float]:
    """Share of clips whose key is found, and of those whose scale is."""
    found = key_scores(heard, profiles).argmax(axis=1)
    scales = [{*KEYS[one].pitch_classes} == {*KEYS[other].pitch_classes}
              for one, other in zip(found, true, strict=True)]  # fmt: skip
    return float((found == true).mean()), float(np.mean(scales))


def read_clips(rows: Sequence[Row], count: int) -> dict[str, Examples]:
    """Of the middles of ``count`` clips drawn by lot, for each length.

    Raises:
        UserError: there are too few clips with a key.
    """
    rows = [row for row in rows if row.labels.key]
    if len(rows) < count:
        raise UserError(f"only {len(rows)} clips state a key; {count} are needed (--clips)")
    heard, true = [], []
    for row in tqdm(random.Random(0).sample(rows, count), unit="clip"):
        sound = read_sound(row.path)
        parts = [middle_part(sound.samples, sound.sample_rate, length) for length in LENGTHS]
        found = [chroma(part, sound.sample_rate) for part in parts]
        if all(part.any() for part in found):
            heard.append(found)
            true.append(KEYS.index(nearest_diatonic(parse_key(row.labels.key or ""))))
    return {
        f"clips of {length:g} s": (np.stack([found[number] for found in heard]), np.array(true))
        for number, length in enumerate(LENGTHS)
    }


def main(args: Sequence[str] | None = None) -> None:
    """Print weights learnt from one half of some clips, and how they do in the other."""
    parser = argparse.ArgumentParser(description="Learn the profiles by which keys are found.")
    parser.add_argument("--data", type=Path, required=True, help="labelled corpus of clips")
    parser.add_argument("--clips", type=int, default=2400)
    given = parser.parse_args(args)
    try:
        examples = read_clips(read_folder(given.data), given.clips)
    except UserError as error:
        sys.exit(f"Error: {error}")
    learnt_from = [(heard[0::2], true[0::2]) for heard, true in examples.values()]
    profiles = fit_profiles(*map(np.concatenate, zip(*learnt_from, strict=True)))
    for mode, rows in zip(PROFILES, profiles, strict=True):
        for part, row in zip(("bass", "above"), rows, strict=True):
            print(f"{mode}, {part}: {', '.join(f'{weight:.1f}' for weight in row)}")
    for kind, (heard, true) in examples.items():
        key, scale = shares_right(heard[1::2], true[1::2], profiles)
        print(f"{kind}: {key:.3f} right, {scale:.3f} of the right scale")


if __name__ == "__main__":
    main()

"""Learning what pitch classes say for a key: ``python -m audiodiff.key_fit --data CORPUS``.

Prints the weights that :mod:`audiodiff.key` keeps as `PROFILES`, and how often keys are
right with them in clips that they were not learnt from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

from audiodiff.analysis import middle_part
from audiodiff.corpus import Row
from audiodiff.examples import LENGTHS, Task, learnt_half, other_half, read_examples
from audiodiff.key import KEYS, PROFILES, chroma, key_scores
from audiodiff.theory import nearest_diatonic, parse_key

RIDGE = 2e-5  # by which large weights are held back: music is not all composed here


def fit_profiles(heard: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The profiles (2 2 12) under which the true keys are likeliest.

    Multinomial logistic regression, by maximum likelihood, all tonics sharing their weights.

    Args:
        heard: (n 2 12), of :func:`audiodiff.key.chroma`.
        true: (n,) numbers of `KEYS`.
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


def _true_key(row: Row) -> int | None:
    return KEYS.index(nearest_diatonic(parse_key(row.labels.key))) if row.labels.key else None


def _heard(samples: np.ndarray, sample_rate: int) -> list[np.ndarray] | None:
    parts = [middle_part(samples, sample_rate, length) for length in LENGTHS]
    found = [chroma(part, sample_rate) for part in parts]
    return found if all(part.any() for part in found) else None


TASK = Task("Learn the profiles by which keys are found.", 2400, "a key", _true_key, _heard)


def main(args: Sequence[str] | None = None) -> None:
    """Print weights learnt from one half of some clips, and how they do in the other."""
    examples = read_examples(TASK, args)
    profiles = fit_profiles(*learnt_half(examples))
    for mode, rows in zip(PROFILES, profiles, strict=True):
        for part, row in zip(("bass", "above"), rows, strict=True):
            print(f"{mode}, {part}: {', '.join(f'{weight:.1f}' for weight in row)}")
    for kind, found in examples.items():
        key, scale = shares_right(*other_half(found), profiles)
        print(f"{kind}: {key:.3f} right, {scale:.3f} of the right scale")


if __name__ == "__main__":
    main()

"""Learning what a comb of lags says for a tempo: ``python -m audiodiff.tempo_fit --data CORPUS``.

Prints the weights that :mod:`audiodiff.tempo` keeps as `COMB`, and how often tempi are right with
them in what they were not learnt from: clips, and plain patterns of beats, for composed music is
never as plain as clapping hands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

from audiodiff.analysis import middle_part
from audiodiff.corpus import Row
from audiodiff.examples import LENGTHS, Examples, Task, learnt_half, other_half, read_examples
from audiodiff.tempo import (
    COMB,
    FASTEST,
    ONSET_RATE,
    SLOWEST,
    lag_values,
    log_prior,
    onset_strength,
    same_tempo,
    tempi,
)

NEAR = 0.02  # of the true tempo, for a tempo tried to be the one
RIDGE = 1e-4  # by which large weights are held back
# Plain beats also repeat at halves and at three halves of what is twice as long: these must not say
# for it more than the prior says against it.
MOST = {1 / 2: -2.0, 3 / 2: 2.0}
PATTERNS = 400  # that are learnt from, of each length, and as many that are not


def fit_comb(values: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The weights (lags,) under which the true tempi are likeliest.

    Each of the tempi tried has a probability proportional to the exponential of its weighted lags
    plus its prior: multinomial logistic regression, by maximum likelihood.

    Args:
        values: (n, lags, tempi), of :func:`audiodiff.tempo.lag_values`.
        true: (n,) beats a minute.
    """
    right = abs(np.log(tempi()) - np.log(true)[:, None]) <= NEAR
    prior = log_prior()

    def loss(weights: np.ndarray) -> tuple[np.float64, np.ndarray]:
        scores = np.einsum("nlt,l->nt", values, weights) + prior
        of_right = np.where(right, scores, -np.inf)
        of_any, of_true = (np.asarray(special.logsumexp(s, axis=1)) for s in (scores, of_right))
        excess = special.softmax(scores, axis=1) - special.softmax(of_right, axis=1)
        slope = np.einsum("nt,nlt->l", excess, values) / len(values)
        return RIDGE * weights @ weights + (of_any - of_true).mean(), slope + 2 * RIDGE * weights

    bounds = [(None, MOST.get(lag)) for lag in COMB]
    return optimize.minimize(loss, np.zeros(len(COMB)), jac=True, bounds=bounds).x


def shares_right(values: np.ndarray, true: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Share of clips whose tempo is found within 4 %: an octave of it, and exactly."""
    found = tempi()[(np.einsum("nlt,l->nt", values, weights) + log_prior()).argmax(axis=1)]
    octave, exact = (
        np.mean([same_tempo(*pair, octaves) for pair in zip(found, true, strict=True)])
        for octaves in (True, False)
    )
    return float(octave), float(exact)


def _true_tempo(row: Row) -> float | None:
    tempo = row.labels.tempo
    return tempo if tempo is not None and SLOWEST <= tempo <= FASTEST else None


def _heard(samples: np.ndarray, sample_rate: int) -> list[np.ndarray] | None:
    onsets = onset_strength(samples, sample_rate)
    parts = [middle_part(onsets[None], ONSET_RATE, length)[0] for length in LENGTHS]
    return [lag_values(part) for part in parts] if all(np.ptp(part) for part in parts) else None


TASK = Task(
    "Learn the comb by which tempi are found.",
    1600,
    f"a tempo from {SLOWEST:g} to {FASTEST:g}",
    _true_tempo,
    _heard,
)


def pattern(rng: np.random.Generator, seconds: float) -> tuple[np.ndarray, float]:
    """An onset strength of steady beats, and their tempo.

    Every beat of a group of one to four is accented in its own way; between them lie one, two or
    three softer hits, or none.
    """
    tempo = float(np.exp(rng.uniform(np.log(70), np.log(150))))
    accents = np.append(1, rng.uniform(0.3, 1, rng.integers(0, 4)))
    parts = int(rng.choice([1, 1, 2, 2, 3, 4]))
    soft, first = rng.uniform(0.05, 0.6), rng.uniform(0, 60 / tempo)
    times = np.arange(first, seconds - 0.02, 60 / tempo / parts)
    number = np.arange(len(times))
    levels = np.where(number % parts, soft, accents[number // parts % len(accents)])
    onsets = 0.01 * rng.uniform(size=round(seconds * ONSET_RATE) + 1)
    place, part = np.divmod(times * ONSET_RATE, 1)
    np.add.at(onsets, place.astype(int), levels * (1 - part))
    np.add.at(onsets, place.astype(int) + 1, levels * part)
    return onsets, tempo


def make_patterns(count: int) -> dict[str, Examples]:
    """``count`` patterns of each length."""
    examples = {}
    for length in LENGTHS:
        rng = np.random.default_rng(0)
        made = [pattern(rng, length) for _ in range(count)]
        values = np.stack([lag_values(onsets) for onsets, _ in made])
        examples[f"patterns of {length:g} s"] = values, np.array([tempo for _, tempo in made])
    return examples


def main(args: Sequence[str] | None = None) -> None:
    """Print weights learnt from one half of some clips, and how they do in the other."""
    examples = read_examples(TASK, args) | make_patterns(2 * PATTERNS)
    weights = fit_comb(*learnt_half(examples))
    for lag, weight in zip(COMB, weights, strict=True):
        print(f"{lag:.3f} beats {weight:.1f}")
    for kind, found in examples.items():
        octave, exact = shares_right(*other_half(found), weights)
        print(f"{kind}: {octave:.3f} right or an octave off, {exact:.3f} right")


if __name__ == "__main__":
    main()

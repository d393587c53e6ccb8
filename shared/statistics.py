"""How sure a measured number is (95 % intervals), and how far apart two sets of features lie."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a proportion, n > 0: Wilson 1927, "Probable inference", p. 210."""
    share = hits / n
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    scale = 1 + z * z / n
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def mean_interval(values: np.ndarray, z: float = 1.96) -> tuple[float, float] | None:
    """The 95 % interval of a mean, by the normal approximation; None for fewer than two values."""
    if len(values) < 2:
        return None
    reach = z * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    centre = float(np.mean(values))
    return centre - reach, centre + reach


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], n: int, draws: int = 400, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % interval of a statistic of n cases, by drawing them again with replacement.

    The percentile bootstrap: Efron 1979, "Bootstrap methods: another look at the jackknife".

    Args:
        statistic: from the numbers (n,) of the cases drawn, 0 to n - 1, to the value.
        seed: of the draws; the same gives the same interval.

    Returns:
        The 2.5th and 97.5th percentile; None for fewer than two cases.
    """
    if n < 2:
        return None
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(n, size=n)) for _ in range(draws)]
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Distance of two sets of features (n d), taken as Gaussians.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``: Heusel et al. 2017, arXiv 1706.08500, equation
    6. It depends on the size of the sets: compare only with a distance of sets as large.
    """
    means = [features.mean(axis=0, dtype=np.float64) for features in (first, second)]
    left, right = (
        np.cov(features.astype(np.float64), rowvar=False) for features in (first, second)
    )
    # (C1 C2)^(1/2) has the trace of the root of the symmetric C1^(1/2) C2 C1^(1/2).
    values, vectors = np.linalg.eigh(np.atleast_2d(left))
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ np.atleast_2d(right) @ root)
    trace = np.trace(np.atleast_2d(left + right)) - 2 * np.sqrt(product.clip(min=0)).sum()
    return float(np.sum((means[0] - means[1]) ** 2) + trace)

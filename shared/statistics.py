"""How sure a measured number is: 95 % intervals of shares, of means and of anything else."""

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

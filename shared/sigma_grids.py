"""Sigma grids: which noise levels a sampler visits on its way down.

n steps are n + 1 levels ``sigma`` of ``x = x0 + sigma * noise``, descending, the last 0; float32.
Those that need nothing but the range are here; those that go by the levels a network was trained
on are in :mod:`shared.schedules`, with the table of all.
"""

import math

import torch
from torch import Tensor

from shared.errors import UserError
from shared.naming import choose

MAX_STEPS = 10_000
"""The most sampling steps that a grid may have."""

FLOW_START = 999.0
"""Where the flow's t = 1, an infinite sigma, is replaced by t = 0.999."""


def karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Levels evenly spaced in sigma^(1/rho) (Karras et al. 2022, arXiv 2206.00364, Eq. 5).

    A larger ``rho`` spends more of the n steps near ``sigma_min``. Returns (n + 1,).

    Raises:
        UserError: n outside 1 .. 10000, or not 0 < sigma_min <= sigma_max.
    """
    check_range(n, sigma_min, sigma_max)
    ramp = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=torch.float64)
    return with_zero(ramp**rho)


def exponential(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Levels evenly spaced in log sigma, so also in log SNR. Returns (n + 1,).

    Raises:
        UserError: n outside 1 .. 10000, or not 0 < sigma_min <= sigma_max.
    """
    check_range(n, sigma_min, sigma_max)
    return with_zero(
        torch.linspace(math.log(sigma_max), math.log(sigma_min), n, dtype=torch.float64).exp()
    )


def poly_exponential(n: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> Tensor:
    """Levels whose log sigma falls as a power: log sigma_min + ramp^rho log(sigma_max / sigma_min).

    ``ramp`` goes evenly from 1 to 0 (k-diffusion's "polyexponential"). ``rho`` 1 is
    :func:`exponential`; below 1 more steps are near ``sigma_max``, above 1 near ``sigma_min``.
    Returns (n + 1,).

    Raises:
        UserError: n outside 1 .. 10000, rho not above 0, or not 0 < sigma_min <= sigma_max.
    """
    check_range(n, sigma_min, sigma_max)
    if not 0 < rho < math.inf:
        raise UserError(f"rho of a poly-exponential grid must be above 0, not {rho}")
    ramp = torch.linspace(1, 0, n, dtype=torch.float64) ** rho
    return with_zero(sigma_min * (sigma_max / sigma_min) ** ramp)


def beta_quantiles(n: int, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Shares of a range at the n even quantiles of a Beta distribution, 1 down to 0, float64 (n,).

    Lee et al. 2024 (arXiv 2407.12173): with ``alpha`` and ``beta`` 0.6 the steps are
    dense at both ends, where images get their layout and their details.

    Raises:
        UserError: n outside 1 .. 10000, alpha or beta not above 0.
    """
    check_steps(n, MAX_STEPS)
    if not (0 < alpha < math.inf and 0 < beta < math.inf):
        raise UserError(f"alpha and beta of a Beta grid must be above 0, not {alpha} and {beta}")
    from scipy.special import betaincinv  # slow to import

    quantiles = torch.linspace(1, 0, n, dtype=torch.float64)
    return torch.from_numpy(betaincinv(alpha, beta, quantiles.numpy()))


def beta_sigma(
    n: int, sigma_min: float, sigma_max: float, alpha: float = 0.6, beta: float = 0.6
) -> Tensor:
    """Levels at the quantiles of a Beta distribution over sigma. Returns (n + 1,).

    diffusers' reading of Lee et al. 2024 (arXiv 2407.12173, ``use_beta_sigmas``). The paper, and
    most tools, spread the trained times so: :func:`shared.schedules.beta`.

    Raises:
        UserError: n outside 1 .. 10000, or not 0 < sigma_min <= sigma_max.
    """
    check_range(n, sigma_min, sigma_max)
    return with_zero(sigma_min + beta_quantiles(n, alpha, beta) * (sigma_max - sigma_min))


# Sabour et al. 2024, arXiv 2404.14507, Table 3: noise levels optimised for 10 steps of each model.
AYS_TABLES: dict[str, tuple[float, ...]] = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "deepfloyd": (160.41, 8.081, 3.315, 1.885, 1.207, 0.785, 0.553, 0.293, 0.186, 0.030, 0.006),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}


def align_your_steps(
    n: int, sigma_min: float | None = None, sigma_max: float | None = None, table: str = "sd15"
) -> Tensor:
    """A published optimal grid, interpolated in log sigma to n steps. Returns (n + 1,).

    Sabour et al. 2024 (arXiv 2404.14507, Table 3). The table's 11 levels are those of 10 steps; the
    last is where the steps to 0 end, and becomes 0. For a model with another range, pass
    ``sigma_min`` and ``sigma_max``: log sigma is stretched from the table's range to it.

    Raises:
        UserError: an unknown table, n outside 1 .. 10000, or not 0 < sigma_min <= sigma_max.
    """
    levels = choose("align-your-steps table", table, AYS_TABLES)
    low = levels[-1] if sigma_min is None else sigma_min
    high = levels[0] if sigma_max is None else sigma_max
    check_range(n, low, high)
    # 1 at the table's highest level, 0 at its lowest.
    logs = torch.tensor(levels, dtype=torch.float64).div(levels[-1]).log()
    shares = logs / logs[0]
    place = torch.linspace(0, len(shares) - 1, n + 1, dtype=torch.float64)[:-1]
    left = place.floor().long()
    return with_zero(low * (high / low) ** torch.lerp(shares[left], shares[left + 1], place - left))


def flow(n: int, sigma_min: float, sigma_max: float = math.inf, shift: float = 1.0) -> Tensor:
    """Levels evenly spaced in a flow's time t = sigma / (1 + sigma), shifted. Returns (n + 1,).

    The shift moves t towards noise, ``shift t / (1 + (shift - 1) t)`` (Stable Diffusion 3, Esser et
    al. 2024, arXiv 2403.03206, Eq. 23: at more pixels the same t hides less of a picture). In this
    coordinate it is a plain factor: sigma becomes ``shift * sigma``.

    The ends are those given, whatever the shift: for n even steps of t from 1 to 0, as Flux takes,
    ``sigma_min`` is ``shift / (n - 1)``. An infinite ``sigma_max`` is t = 1, the flow's pure noise;
    that level alone is lowered to 999 (t = 0.999).

    Raises:
        UserError: n outside 1 .. 10000, shift not above 0, or not 0 < sigma_min <= sigma_max.
    """
    if not 0 < shift < math.inf:
        raise UserError(f"the shift of a flow's time must be above 0, not {shift}")
    check_range(n, sigma_min, min(sigma_max, 2.0**64))
    t_max = 1.0 if sigma_max == math.inf else sigma_max / (shift + sigma_max)
    t = torch.linspace(t_max, sigma_min / (shift + sigma_min), n, dtype=torch.float64)
    sigmas = shift * t / (1 - t)
    if sigma_max == math.inf:
        # The second level is above 999 only beyond some 1000 steps; the first stays above it.
        sigmas[0] = max(FLOW_START, 2 * sigmas[1].item()) if n > 1 else FLOW_START
    return with_zero(sigmas)


def with_zero(sigmas: Tensor) -> Tensor:
    """The levels (n,) and a 0 after them, float32 (n + 1,)."""
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def check_steps(n: int, most: int, why: str = "") -> None:
    """Raise UserError unless 1 <= n <= most."""
    if not 1 <= n <= most:
        raise UserError(f"steps must be between 1 and {most}{why}, not {n}")


def check_range(n: int, sigma_min: float, sigma_max: float) -> None:
    """Raise UserError unless a grid of n steps between the two levels is possible."""
    check_steps(n, MAX_STEPS)
    if not 0 < sigma_min <= sigma_max < math.inf:
        raise UserError(
            f"a sigma grid needs 0 < sigma_min <= sigma_max, not {sigma_min} and {sigma_max}"
        )

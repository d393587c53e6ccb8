"""Noise schedules that networks were trained on, and the sigma grids that samplers walk down.

Everywhere here ``sigma`` is the noise level of Karras et al. 2022 (arXiv 2206.00364):
``x = x0 + sigma * noise``. A variance-preserving model with ``alphas_cumprod`` has
``sigma^2 = (1 - alphas_cumprod) / alphas_cumprod``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from shared.errors import UserError
from shared.naming import choose

MAX_STEPS = 10_000
"""The most sampling steps that a grid may have."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise levels t = 0 .. n-1 that a variance-preserving network was trained on.

    Attributes:
        alphas_cumprod: (n,) float64, descending: the share of the signal's variance left at t.
            float64, because 1 - alphas_cumprod near t = 0 has only four correct digits in float32.
    """

    alphas_cumprod: Tensor

    @classmethod
    def from_betas(cls, betas: Tensor) -> NoiseSchedule:
        """Build the schedule from the per-step noise variances ``betas`` (n,), n >= 2.

        Raises:
            UserError: fewer than two betas, or one outside the open interval (0, 1).
        """
        if betas.ndim != 1 or len(betas) < 2:
            raise UserError(f"a noise schedule takes a list of at least 2 betas, not {betas.shape}")
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise UserError("every beta of a noise schedule lies between 0 and 1, both excluded")
        return cls(torch.cumprod(1 - betas.double(), dim=0))

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @cached_property
    def sigmas(self) -> Tensor:
        """(n,) float64, ascending: the noise level at each trained t."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()

    @property
    def sigma_min(self) -> float:
        return self.sigmas[0].item()

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1].item()

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """The fractional trained t of each noise level, any shape, in ``sigma``'s dtype.

        Linear in log sigma between trained levels; below the first it is 0, above the last n - 1. A
        trained level, rounded to ``sigma``'s dtype, gives its integer exactly.
        """
        table = self.sigmas.to(sigma.dtype).to(sigma.device)
        high = torch.searchsorted(table, sigma.contiguous()).clamp(1, len(table) - 1)
        low = high - 1
        # Ratios and not differences of logs: log(1) is exactly 0 and x / x exactly 1, so trained
        # levels map to integers; and the digits that two near logs would cancel are kept.
        part = (sigma / table[low]).log() / (table[high] / table[low]).log()
        return low + part.clamp(0, 1)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """The inverse of :meth:`sigma_to_t`: t in [0, n - 1], any shape, in ``t``'s dtype."""
        table = self.sigmas.to(t.dtype).to(t.device)
        t = t.clamp(0, len(table) - 1)
        low = t.floor().long()
        high = (low + 1).clamp(max=len(table) - 1)
        # The same as exp of the interpolated log, and exact at integers.
        return table[low] * (table[high] / table[low]) ** (t - low)


# Betas of the field's schedules, (n,) float64; rounded to float32 they are diffusers' own.


def linear_betas(n: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Betas rising linearly (DDPM, Ho et al. 2020, arXiv 2006.11239, section 4)."""
    return torch.linspace(beta_start, beta_end, n, dtype=torch.float64)


def scaled_linear_betas(
    n: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Tensor:
    """Betas whose square roots rise linearly (latent diffusion, 2112.10752)."""
    return linear_betas(n, beta_start**0.5, beta_end**0.5).square()


def cosine_betas(n: int = 1000, max_beta: float = 0.999) -> Tensor:
    """Betas that make alphas_cumprod a squared cosine (Nichol & Dhariwal 2021, arXiv 2102.09672).

    ``alphas_cumprod(t) = cos((t / n + 0.008) / 1.008 * pi / 2)^2``, Eq. 17, betas capped.
    """
    t = torch.arange(n + 1, dtype=torch.float64) / n
    alphas_cumprod = torch.cos((t + 0.008) / 1.008 * (math.pi / 2)).square()
    return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=max_beta)


def sigmoid_betas(n: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Betas rising along a sigmoid from -6 to 6 (GeoDiff, Xu et al. 2022, arXiv 2203.02923)."""
    rise = torch.linspace(-6, 6, n, dtype=torch.float64).sigmoid()
    return beta_start + rise * (beta_end - beta_start)


def rescale_zero_terminal_snr(schedule: NoiseSchedule) -> NoiseSchedule:
    """Shift a schedule so that its last level is all noise (Lin et al. 2023, 2305.08891, Alg. 1).

    The last sigma would be infinite; as in diffusers its alphas_cumprod is 2^-24 (sigma 4096).
    """
    alpha = schedule.alphas_cumprod.sqrt()
    alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    return NoiseSchedule(alpha.square().clamp(min=2.0**-24))


# Names as in diffusers' scheduler_config.json; each takes (n, beta_start, beta_end).
BETA_SCHEDULES: dict[str, Callable[[int, float, float], Tensor]] = {
    "linear": linear_betas,
    "scaled_linear": scaled_linear_betas,
    "squaredcos_cap_v2": lambda n, beta_start, beta_end: cosine_betas(n),
    "sigmoid": sigmoid_betas,
}


def schedule_from_config(config: Mapping[str, Any]) -> NoiseSchedule:
    """Read the training schedule out of diffusers' ``scheduler_config.json``, already parsed.

    Reads ``num_train_timesteps``, ``beta_schedule``, ``beta_start``, ``beta_end``,
    ``trained_betas`` and ``rescale_betas_zero_snr``; a missing key has diffusers' default.

    Raises:
        UserError: an unknown ``beta_schedule``, or values no schedule can be made of.
    """
    try:
        if config.get("trained_betas") is not None:
            betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
        else:
            betas = choose("beta_schedule", config.get("beta_schedule", "linear"), BETA_SCHEDULES)(
                int(config.get("num_train_timesteps", 1000)),
                float(config.get("beta_start", 1e-4)),
                float(config.get("beta_end", 0.02)),
            )
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"scheduler config: not a noise schedule ({error})") from error
    schedule = NoiseSchedule.from_betas(betas)
    if config.get("rescale_betas_zero_snr"):
        schedule = rescale_zero_terminal_snr(schedule)
    return schedule


# Sigma grids: n steps are n + 1 noise levels, descending, the last 0; float32.


def karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Levels evenly spaced in sigma^(1/rho) (Karras et al. 2022, arXiv 2206.00364, Eq. 5).

    A larger ``rho`` spends more of the n steps near ``sigma_min``. Returns (n + 1,).

    Raises:
        UserError: n outside 1 .. 10000, or not 0 < sigma_min <= sigma_max.
    """
    _check_grid(n, sigma_min, sigma_max)
    ramp = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=torch.float64)
    return _with_zero(ramp**rho)


def exponential(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Levels evenly spaced in log sigma, so also in log SNR. Returns (n + 1,).

    Raises:
        UserError: n outside 1 .. 10000, or not 0 < sigma_min <= sigma_max.
    """
    _check_grid(n, sigma_min, sigma_max)
    return _with_zero(
        torch.linspace(math.log(sigma_max), math.log(sigma_min), n, dtype=torch.float64).exp()
    )


def trained(
    n: int, schedule: NoiseSchedule, spacing: str = "trailing", steps_offset: int = 0
) -> Tensor:
    """n of the levels that the network was trained on. Returns (n + 1,).

    ``spacing`` says which t (Lin et al. 2023, arXiv 2305.08891, Table 2): "trailing" starts at the
    noisiest level, "leading" (plus ``steps_offset``) ends at the cleanest, "linspace" has both.

    Raises:
        UserError: n outside 1 .. len(schedule), or an unknown spacing.
    """
    _check_steps(n, len(schedule), " (the levels the model was trained on)")
    t = choose("timestep spacing", spacing, SPACINGS)(n, len(schedule))
    if spacing == "leading":
        t = t + steps_offset
    if int(t[0]) >= len(schedule):
        raise UserError(f"{n} steps with steps_offset {steps_offset} leave the trained levels")
    return _with_zero(schedule.sigmas[t])


# (steps, trained levels) -> t (steps,), descending integers
SPACINGS: dict[str, Callable[[int, int], Tensor]] = {
    "trailing": lambda n, total: (
        (total - torch.arange(n, dtype=torch.float64) * (total / n)).round().long() - 1
    ),
    "leading": lambda n, total: torch.arange(n).flip(0) * (total // n),
    "linspace": lambda n, total: (
        torch.linspace(total - 1, 0, n, dtype=torch.float64).round().long()
    ),
}

# What --schedule offers: each takes (steps, schedule) and uses the range the model was trained on.
NOISY_ENOUGH = 160.0
"""Nothing is left of a signal of unit variance here: 80 for one of 0.5 (Karras et al., table 1)."""

SCHEDULES: dict[str, Callable[[int, NoiseSchedule], Tensor]] = {
    "trained": trained,
    "karras": lambda n, schedule: karras(n, schedule.sigma_min, _highest(schedule)),
    "exponential": lambda n, schedule: exponential(n, schedule.sigma_min, _highest(schedule)),
}


def make_sigmas(name: str, steps: int, schedule: NoiseSchedule) -> Tensor:
    """The sigma grid called ``name`` (a key of :data:`SCHEDULES`): (steps + 1,), descending to 0.

    Raises:
        UserError: an unknown name, or a number of steps that this grid cannot have.
    """
    return choose("schedule", name, SCHEDULES)(steps, schedule)


def _highest(schedule: NoiseSchedule) -> float:
    # A cosine schedule ends at 20 000: most steps of a grid from there would be lost on pure noise.
    return min(schedule.sigma_max, NOISY_ENOUGH)


def _with_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def _check_steps(n: int, most: int, why: str = "") -> None:
    if not 1 <= n <= most:
        raise UserError(f"steps must be between 1 and {most}{why}, not {n}")


def _check_grid(n: int, sigma_min: float, sigma_max: float) -> None:
    _check_steps(n, MAX_STEPS)
    if not 0 < sigma_min <= sigma_max < math.inf:
        raise UserError(
            f"a sigma grid needs 0 < sigma_min <= sigma_max, not {sigma_min} and {sigma_max}"
        )

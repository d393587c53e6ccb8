"""Noise schedules that networks were trained on, and the table of sigma grids to walk down.

Everywhere here ``sigma`` is the noise level of Karras et al. 2022 (arXiv 2206.00364):
``x = x0 + sigma * noise``. A variance-preserving model with ``alphas_cumprod`` has
``sigma^2 = (1 - alphas_cumprod) / alphas_cumprod``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from shared.errors import UserError
from shared.naming import choose
from shared.sigma_grids import (
    AYS_TABLES,
    MAX_STEPS,
    align_your_steps,
    beta_quantiles,
    beta_sigma,
    check_steps,
    exponential,
    flow,
    karras,
    poly_exponential,
    with_zero,
)


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


# Sigma grids that go by the trained levels: n steps are n + 1 levels, descending, the last 0.


def trained(
    n: int, schedule: NoiseSchedule, spacing: str = "trailing", steps_offset: int = 0
) -> Tensor:
    """n of the levels that the network was trained on. Returns (n + 1,).

    ``spacing`` says which t (Lin et al. 2023, arXiv 2305.08891, Table 2): "trailing" starts at the
    noisiest level, "leading" (plus ``steps_offset``) ends at the cleanest, "linspace" has both.

    Raises:
        UserError: n outside 1 .. len(schedule), or an unknown spacing.
    """
    check_steps(n, len(schedule), " (the levels the model was trained on)")
    t = choose("timestep spacing", spacing, SPACINGS)(n, len(schedule))
    if spacing == "leading":
        t = t + steps_offset
    if int(t[0]) >= len(schedule):
        raise UserError(f"{n} steps with steps_offset {steps_offset} leave the trained levels")
    return with_zero(schedule.sigmas[t])


def sgm_uniform(n: int, schedule: NoiseSchedule) -> Tensor:
    """Even steps of t from the noisiest trained level to the cleanest, which is left out. (n + 1,).

    The spacing of Stability AI's generative-models, under ComfyUI's name for it. Between trained
    levels sigma is log-linear, as in ComfyUI; generative-models rounds t down.

    Raises:
        UserError: n outside 1 .. 10000.
    """
    check_steps(n, MAX_STEPS)
    t = torch.linspace(len(schedule) - 1, 0, n + 1, dtype=torch.float64)[:-1]
    return with_zero(schedule.t_to_sigma(t))


def beta(n: int, schedule: NoiseSchedule, a: float = 0.6, b: float = 0.6) -> Tensor:
    """Trained times at the quantiles of a Beta distribution (Lee et al. 2024, 2407.12173).

    Both ends of the trained range, and most steps near them. Times are not rounded: many steps
    would fall on one level. See :func:`shared.sigma_grids.beta_sigma` for diffusers' reading.
    Returns (n + 1,).

    Raises:
        UserError: n outside 1 .. 10000.
    """
    return with_zero(schedule.t_to_sigma(beta_quantiles(n, a, b) * (len(schedule) - 1)))


# (steps, trained levels) -> t (steps,), descending integers
SPACINGS: dict[str, Callable[[int, int], Tensor]] = {
    "trailing": lambda n, total: (
        # total - i * (total / n), but (total - total / n) - total first: where that ends in a half,
        # as at 48 steps of 1000, it rounds as the references do, which is by numpy's arange.
        (total + torch.arange(n, dtype=torch.float64) * ((total - total / n) - total))
        .round()
        .long()
        - 1
    ),
    "leading": lambda n, total: torch.arange(n).flip(0) * (total // n),
    "linspace": lambda n, total: (
        torch.linspace(total - 1, 0, n, dtype=torch.float64).round().long()
    ),
}

NOISY_ENOUGH = 160.0
"""Nothing is left of a signal of unit variance here: 80 for one of 0.5 (Karras et al., table 1)."""

STABLE_DIFFUSION_3_SHIFT = 3.0


@dataclass(frozen=True, kw_only=True)
class SigmaGrid:
    """What ``--schedule`` offers: a grid over the levels that a model was trained on.

    Attributes:
        function: (steps, schedule) -> sigmas (steps + 1,).
        summary: one line for people who choose.
        paper: where it comes from.
    """

    function: Callable[[int, NoiseSchedule], Tensor]
    summary: str
    paper: str

    def record(self, name: str) -> dict[str, Any]:
        """What one needs to know to choose it, as JSON knows it."""
        return {"name": name, "summary": self.summary, "paper": self.paper}


def _over_range(grid: Callable[[int, float, float], Tensor], summary: str, paper: str) -> SigmaGrid:
    """The entry of a grid that takes (steps, sigma_min, sigma_max): the trained range."""

    def function(n: int, schedule: NoiseSchedule) -> Tensor:
        # A cosine schedule ends at 20 000: most steps from there would be lost on pure noise.
        return grid(n, schedule.sigma_min, min(schedule.sigma_max, NOISY_ENOUGH))

    return SigmaGrid(function=function, summary=summary, paper=paper)


def _of_trained(spacing: str, summary: str) -> SigmaGrid:
    return SigmaGrid(
        function=lambda n, schedule: trained(n, schedule, spacing),
        summary=summary,
        paper="Lin et al. 2023, arXiv 2305.08891, Table 2",
    )


_AYS_MODELS = {
    "sd15": "Stable Diffusion 1.5",
    "sdxl": "Stable Diffusion XL",
    "deepfloyd": "DeepFloyd IF",
    "svd": "Stable Video Diffusion",
}

SCHEDULES: dict[str, SigmaGrid] = {
    "trained": _of_trained("trailing", "levels the model was trained on; the same as trailing"),
    "karras": _over_range(
        karras,
        "even in sigma^(1/7): long steps in noise, short ones near the image",
        "Karras et al. 2022, arXiv 2206.00364, Eq. 5",
    ),
    "exponential": _over_range(
        exponential, "even in log sigma", "Lu et al. 2022, arXiv 2206.00927"
    ),
    "poly-exponential": _over_range(
        lambda n, low, high: poly_exponential(n, low, high, rho=0.5),
        "log sigma falls as a square root: most steps in noise",
        "k-diffusion, get_sigmas_polyexponential",
    ),
    "trailing": _of_trained("trailing", "trained levels, evenly, from the noisiest on"),
    "leading": _of_trained(
        "leading", "trained levels, evenly, down to the cleanest, as DDIM had them"
    ),
    "linspace": _of_trained("linspace", "trained levels, evenly, with both ends"),
    "sgm-uniform": SigmaGrid(
        function=sgm_uniform,
        summary="even in the trained time, without the cleanest level",
        paper="Stability AI, generative-models",
    ),
    "beta": SigmaGrid(
        function=beta,
        summary="trained times of a Beta distribution: most steps at both ends",
        paper="Lee et al. 2024, arXiv 2407.12173",
    ),
    "beta-sigma": _over_range(
        beta_sigma,
        "sigmas of a Beta distribution: most steps at both ends; diffusers' beta",
        "Lee et al. 2024, arXiv 2407.12173",
    ),
    **{
        f"ays-{table}": _over_range(
            partial(align_your_steps, table=table),
            f"align your steps: optimised for {_AYS_MODELS[table]}",
            "Sabour et al. 2024, arXiv 2404.14507, Table 3",
        )
        for table in AYS_TABLES
    },
    "flow": _over_range(
        flow, "even in a flow's time sigma / (1 + sigma)", "Lipman et al. 2022, arXiv 2210.02747"
    ),
    "flow-shift3": _over_range(
        lambda n, low, high: flow(n, low, high, shift=STABLE_DIFFUSION_3_SHIFT),
        "the same shifted by 3 towards noise, as in Stable Diffusion 3",
        "Esser et al. 2024, arXiv 2403.03206, Eq. 23",
    ),
}


def make_sigmas(name: str, steps: int, schedule: NoiseSchedule) -> Tensor:
    """The sigma grid called ``name`` (a key of :data:`SCHEDULES`): (steps + 1,), descending to 0.

    Raises:
        UserError: an unknown name, or a number of steps that this grid cannot have.
    """
    return choose("schedule", name, SCHEDULES).function(steps, schedule)

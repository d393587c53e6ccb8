"""Forward processes: how noise comes over data in continuous time, and how to go back.

Each is a stochastic differential equation with linear drift (Song et al. 2021, arXiv 2011.13456),

    d state = drift(t) state dt + diffusion(t) dw,    0 <= t <= 1,

whose solution from clean data is ``state = scale(t) * (x0 + sigma(t) * noise)``: the project's
coordinate ``x = x0 + sigma * noise`` times a number. So scale and sigma say all of it (Karras et
al. 2022, arXiv 2206.00364, appendix B):

    drift = scale' / scale,    diffusion^2 = scale^2 (sigma^2)'

and a ``DenoiseFn`` is all that any of them needs to run backwards. Time is float64: near t = 0 most
of what tells two times apart is below float32.

    name    drift       diffusion^2                  scale       sigma
    vp      -beta / 2   beta                         exp(-B/2)   sqrt(exp(B) - 1)
    sub-vp  -beta / 2   beta (1 - exp(-2 B))         exp(-B/2)   2 sinh(B/2)
    ve      0           2 sigma^2 log(high / low)    1           low (high / low)^t
    flow    -1 / (1-t)  2 t / (1 - t)                1 - t       t / (1 - t)

with beta(t) the rate at which noise comes and B(t) its integral from 0. The discrete schedules of
:mod:`shared.schedules` are the variance-preserving process in n steps: n betas of ``beta(t) / n``,
``alphas_cumprod -> exp(-B)`` with an error of order 1 / n.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.noise import NoiseFn

TimeFn = Callable[[Tensor], Tensor]
"""t (any shape) -> a number for each, the same shape."""


@dataclass(frozen=True, kw_only=True)
class NoiseRate:
    """How fast a variance-preserving process takes in noise.

    Attributes:
        beta: t -> the rate, of unit time.
        integral: t -> its integral from 0, so that ``alphas_cumprod = exp(-integral)``.
    """

    beta: TimeFn
    integral: TimeFn


def linear_rate(beta_min: float = 0.1, beta_max: float = 20.0) -> NoiseRate:
    """``beta`` rising linearly (Song et al. 2021, Eq. 32-33); DDPM's schedule with 1000 steps."""
    rise = beta_max - beta_min
    return NoiseRate(
        beta=lambda t: beta_min + rise * t,
        integral=lambda t: beta_min * t + rise / 2 * t.square(),
    )


def scaled_linear_rate(beta_min: float = 0.85, beta_max: float = 12.0) -> NoiseRate:
    """``sqrt(beta)`` rising linearly; Stable Diffusion's schedule with 1000 steps (2112.10752)."""
    low, rise = math.sqrt(beta_min), math.sqrt(beta_max) - math.sqrt(beta_min)
    return NoiseRate(
        beta=lambda t: (low + rise * t).square(),
        integral=lambda t: t * (low**2 + low * rise * t + rise**2 / 3 * t.square()),
    )


def sigmoid_rate(beta_min: float = 0.1, beta_max: float = 20.0) -> NoiseRate:
    """``beta`` rising along a sigmoid from -6 to 6 (GeoDiff, Xu et al. 2022, 2203.02923)."""
    rise = beta_max - beta_min
    softplus = torch.nn.functional.softplus

    def integral(t: Tensor) -> Tensor:
        start = softplus(torch.full_like(t, -6.0))
        return beta_min * t + rise / 12 * (softplus(12 * t - 6) - start)

    return NoiseRate(beta=lambda t: beta_min + rise * (12 * t - 6).sigmoid(), integral=integral)


def cosine_rate() -> NoiseRate:
    """``exp(-integral)`` is a squared cosine (Nichol & Dhariwal 2021, arXiv 2102.09672, Eq. 17).

    At t = 1 nothing of the signal is left: there sigma is infinite.
    """
    start = math.cos(0.008 / 1.008 * math.pi / 2)

    def angle(t: Tensor) -> Tensor:
        return (t + 0.008) / 1.008 * (math.pi / 2)

    return NoiseRate(
        beta=lambda t: math.pi / 1.008 * angle(t).tan(),
        integral=lambda t: -2 * (angle(t).cos() / start).log(),
    )


def zero_terminal_snr_rate(rate: NoiseRate) -> NoiseRate:
    """Another rate shifted so that at t = 1 all is noise (Lin et al. 2023, 2305.08891, Alg. 1)."""
    last = (-rate.integral(torch.ones((), dtype=torch.float64)) / 2).exp().item()

    def alpha(t: Tensor) -> Tensor:
        return (-rate.integral(t) / 2).exp()

    return NoiseRate(
        beta=lambda t: rate.beta(t) * alpha(t) / (alpha(t) - last),
        integral=lambda t: -2 * ((alpha(t) - last) / (1 - last)).log(),
    )


@dataclass(frozen=True, kw_only=True)
class Process:
    """One forward process; each function takes t in [0, 1], any shape, and gives that shape.

    Attributes:
        drift: the factor of the state in the drift.
        diffusion: the factor of the noise.
        scale: the factor of x0 in the state; the state's mean is ``scale(t) * x0``.
        sigma: the noise level in the project's coordinate, rising; ``x = state / scale(t)``.
    """

    drift: TimeFn
    diffusion: TimeFn
    scale: TimeFn
    sigma: TimeFn

    def std(self, t: Tensor) -> Tensor:
        """The standard deviation of the state around its mean."""
        return self.scale(t) * self.sigma(t)

    def time(self, sigma: Tensor) -> Tensor:
        """The t of a noise level, any shape, float64; levels never reached are clamped to 0 or 1.

        By bisection, to the last bits: a rate needs no inverse in closed form.
        """
        sigma = sigma.double()
        low, high = torch.zeros_like(sigma), torch.ones_like(sigma)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.sigma(middle) < sigma
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


def variance_preserving(rate: NoiseRate | None = None) -> Process:
    """Data of unit variance keep it (Song et al. 2021, Eq. 11 and 29); ``rate`` default linear."""
    rate = rate or linear_rate()
    return Process(
        drift=lambda t: -rate.beta(t) / 2,
        diffusion=lambda t: rate.beta(t).sqrt(),
        scale=lambda t: (-rate.integral(t) / 2).exp(),
        sigma=lambda t: rate.integral(t).expm1().sqrt(),
    )


def sub_variance_preserving(rate: NoiseRate | None = None) -> Process:
    """Less variance on the way, the same ends (Song et al. 2021, Eq. 12 and 29).

    The state's standard deviation is ``1 - exp(-B)``; the variance-preserving one's squared.
    """
    rate = rate or linear_rate()
    return Process(
        drift=lambda t: -rate.beta(t) / 2,
        diffusion=lambda t: (-rate.beta(t) * (-2 * rate.integral(t)).expm1()).sqrt(),
        scale=lambda t: (-rate.integral(t) / 2).exp(),
        sigma=lambda t: 2 * (rate.integral(t) / 2).sinh(),
    )


def variance_exploding(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Process:
    """Noise levels in geometric progression on data left as they are.

    Song et al. 2021, Eq. 9 and 29. The process starts with the noise ``sigma_min`` already there.
    Even steps of t are the noise levels of NCSN (Song & Ermon 2019, arXiv 1907.05600).

    Raises:
        UserError: not 0 < sigma_min < sigma_max.
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise UserError(f"needs 0 < sigma_min < sigma_max, not {sigma_min} and {sigma_max}")
    span = math.log(sigma_max / sigma_min)

    def sigma(t: Tensor) -> Tensor:
        return sigma_min * (span * t).exp()

    return Process(
        drift=torch.zeros_like,
        diffusion=lambda t: sigma(t) * math.sqrt(2 * span),
        scale=torch.ones_like,
        sigma=sigma,
    )


def straight_flow() -> Process:
    """``state = (1 - t) x0 + t noise`` (rectified flow, Liu et al. 2022, arXiv 2209.03003; the
    optimal-transport path of Lipman et al. 2022, arXiv 2210.02747), as the SDE of these marginals.

    At t = 1 sigma, drift and diffusion are infinite: simulate it to 0.999.
    """
    return Process(
        drift=lambda t: -1 / (1 - t),
        diffusion=lambda t: (2 * t / (1 - t)).sqrt(),
        scale=lambda t: 1 - t,
        sigma=lambda t: t / (1 - t),
    )


PROCESSES: dict[str, Callable[[], Process]] = {
    "vp": variance_preserving,
    "sub-vp": sub_variance_preserving,
    "ve": variance_exploding,
    "flow": straight_flow,
}


def noised(process: Process, x0: Tensor, noise: Tensor, t: float) -> Tensor:
    """A draw of the state at t given x0: ``scale(t) (x0 + sigma(t) noise)``, (b c h w)."""
    time = torch.tensor(t, dtype=torch.float64)
    return process.scale(time).item() * x0 + process.std(time).item() * noise


def score(process: Process, denoise: DenoiseFn, state: Tensor, t: float) -> Tensor:
    """The gradient of the state's log density at t, (b c h w), through Tweedie's formula.

    ``(scale * denoised - state) / std^2``; t must be above 0, where std is.
    """
    time = torch.tensor(t, dtype=torch.float64)
    scale, sigma = process.scale(time).item(), process.sigma(time).item()
    denoised = denoise(state / scale, state.new_full((len(state),), sigma))
    return (scale * denoised - state) / (scale * sigma) ** 2


def reverse_drift(
    process: Process, denoise: DenoiseFn, state: Tensor, t: float, *, stochasticity: float = 1.0
) -> Tensor:
    """The drift of a process with the same marginals for time running backwards, (b c h w).

    ``drift * state - (1 + stochasticity^2) / 2 * diffusion^2 * score``, beside noise of
    ``stochasticity * diffusion``. 1 is the reverse SDE (Anderson 1982; Song et al. 2021, Eq. 6), 0
    the probability-flow ODE (Eq. 13), others between and beyond (Zhang & Chen 2022, 2204.13902).
    """
    time = torch.tensor(t, dtype=torch.float64)
    weight = (1 + stochasticity**2) / 2 * process.diffusion(time).item() ** 2
    return process.drift(time).item() * state - weight * score(process, denoise, state, t)


def simulate(process: Process, state: Tensor, times: Tensor, noise: NoiseFn) -> Tensor:
    """The forward SDE by Euler and Maruyama: the state (b c h w) at times[0] to that at times[-1].

    ``times`` (n + 1,) ascend; step i, from times[i], takes ``noise(i)``. Errors of the
    distribution are of order 1 / n.

    Raises:
        UserError: times that do not ascend within 0 .. 1.
    """
    for step, t, dt in _intervals(times, 1):
        now = torch.tensor(t, dtype=torch.float64)
        state = state + process.drift(now).item() * dt * state
        state = state + process.diffusion(now).item() * math.sqrt(dt) * noise(step).to(state)
    return state


def simulate_reverse(
    process: Process,
    denoise: DenoiseFn,
    state: Tensor,
    times: Tensor,
    noise: NoiseFn,
    *,
    stochasticity: float = 1.0,
) -> Tensor:
    """The same backwards: from noise at times[0] down to times[-1], which is above 0.

    See :func:`reverse_drift` for ``stochasticity``; at 0 the noise is never drawn.

    Raises:
        UserError: times that do not descend within 0 .. 1.
    """
    for step, t, dt in _intervals(times, -1):
        drift = reverse_drift(process, denoise, state, t, stochasticity=stochasticity)
        state = state - drift * dt
        if stochasticity:
            now = torch.tensor(t, dtype=torch.float64)
            size = stochasticity * process.diffusion(now).item() * math.sqrt(dt)
            state = state + size * noise(step).to(state)
    return state


def _intervals(times: Tensor, direction: int) -> Iterator[tuple[int, float, float]]:
    """(step, t, length of the step), the lengths positive."""
    pairs = list(pairwise(times.tolist()))
    inside = all(0 <= t <= 1 for t in times.tolist())
    if not pairs or not inside or not all((after - t) * direction > 0 for t, after in pairs):
        word = "ascending" if direction > 0 else "descending"
        raise UserError(f"times must be at least two, {word}, from 0 to 1")
    return ((step, t, abs(after - t)) for step, (t, after) in enumerate(pairs))

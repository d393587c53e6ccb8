"""Samplers: plain functions that walk a noisy state down a grid of sigmas.

All share one signature, ``(denoise, x, sigmas, *, noise=None, callback=None, ...) -> x0``:

* ``denoise``: a ``DenoiseFn``, (x (b c h w), sigma (b,)) -> denoised (b c h w).
* ``x``: (b c h w), the state at ``sigmas[0]``; from nothing, ``sigmas[0] * noise``. Its dtype is
  kept throughout, so pass float32.
* ``sigmas``: (n + 1,), descending, for n steps. The last is 0 as a rule; if it is not, the result
  is the state at that level. Image-to-image starts from ``sigmas[k:]``.
* ``noise``: a ``NoiseFn``, step -> fresh unit noise (b c h w). Samplers that add noise need it.
* ``callback``: called each step with (step, x, sigma, denoised), before x moves on.

Each raises a ``UserError`` if sigmas are not descending, or if it needs noise and there is none.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.noise import NoiseFn

Callback = Callable[[int, Tensor, float, Tensor], None]
"""(step, x, sigma, denoised) -> None"""


def sample_ddpm(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling with the posterior variance (DDPM, Ho et al. 2020, arXiv 2006.11239).

    Draws from ``q(x_next | x, denoised)``, Eq. 6-7 (variance beta-tilde), which in this coordinate
    has mean ``denoised + (sigma_next / sigma)^2 (x - denoised)`` and variance
    ``sigma_next^2 (sigma^2 - sigma_next^2) / sigma^2``. Equal to DDIM with eta 1.
    """
    noise = _required(noise, "the DDPM sampler")
    for step, sigma, sigma_next in _steps(sigmas):
        denoised = _denoise(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        ratio = sigma_next / sigma
        x = torch.lerp(denoised, x, ratio**2)
        if sigma_next > 0:
            x = _add_noise(x, noise, step, sigma_next * math.sqrt(1 - ratio**2))
    return x


def sample_ddim(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    eta: float = 0.0,
) -> Tensor:
    """Denoising diffusion implicit models (Song et al. 2020, arXiv 2010.02502, Eq. 12 and 16).

    ``x_next = denoised + sigma_down / sigma * (x - denoised) + sigma_up * noise`` with
    ``sigma_up^2 = eta^2 sigma_next^2 (sigma^2 - sigma_next^2) / sigma^2`` and
    ``sigma_down^2 = sigma_next^2 - sigma_up^2``. ``eta`` 0 is deterministic and is Euler's method;
    ``eta`` 1 is DDPM.

    Raises:
        UserError: eta outside 0 .. 1, or above 0 without ``noise``.
    """
    if not 0 <= eta <= 1:
        raise UserError(f"eta must be between 0 and 1, not {eta}")
    if eta > 0:
        noise = _required(noise, "DDIM with eta above 0")
    for step, sigma, sigma_next in _steps(sigmas):
        denoised = _denoise(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        sigma_up = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
        sigma_down = math.sqrt(sigma_next**2 - sigma_up**2)
        x = torch.lerp(denoised, x, sigma_down / sigma)
        if noise is not None and sigma_up > 0:
            x = _add_noise(x, noise, step, sigma_up)
    return x


def sample_euler(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    s_churn: float = 0.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Euler's method on the probability-flow ODE (Karras et al. 2022, arXiv 2206.00364, Eq. 1).

    ``dx / dsigma = (x - denoised) / sigma``. ``s_churn`` above 0 adds noise before each step
    (Algorithm 2 without its second half), scaled by ``s_noise``.

    Raises:
        UserError: ``s_churn`` above 0 without ``noise``.
    """
    for step, sigma, sigma_next in _steps(sigmas):
        x, sigma = _churn(x, sigma, noise, step, s_churn / (len(sigmas) - 1), s_noise)
        denoised = _denoise(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        # x + (sigma_next - sigma) * (x - denoised) / sigma, exactly denoised at sigma_next = 0.
        x = torch.lerp(denoised, x, sigma_next / sigma)
    return x


def sample_heun(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    s_churn: float = 0.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Heun's second-order method on that ODE (Karras et al. 2022, Algorithms 1 and 2).

    An Euler step, then the slope averaged with the slope at its end: two evaluations a step, one
    in the step to 0, where the slope is not defined. ``s_churn`` above 0 adds noise before each
    step, scaled by ``s_noise``.

    Raises:
        UserError: ``s_churn`` above 0 without ``noise``.
    """
    for step, sigma, sigma_next in _steps(sigmas):
        x, sigma = _churn(x, sigma, noise, step, s_churn / (len(sigmas) - 1), s_noise)
        denoised = _denoise(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        x_euler = torch.lerp(denoised, x, sigma_next / sigma)
        if sigma_next == 0:
            x = x_euler
            continue
        slope_next = (x_euler - _denoise(denoise, x_euler, sigma_next)) / sigma_next
        # x + dt * (slope + slope_next) / 2, where x_euler = x + dt * slope.
        x = torch.lerp(x, x_euler, 0.5).add_(slope_next, alpha=(sigma_next - sigma) / 2)
    return x


def sample_dpmpp_2m(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M), second-order multistep (Lu et al. 2022, arXiv 2211.01095, Algorithm 2).

    With ``h = log(sigma / sigma_next)`` and r = h_last / h the ODE is solved exactly for a denoised
    signal extrapolated from the last two, ``D = denoised + (denoised - denoised_last) / (2 r)``:
    ``x_next = D + sigma_next / sigma * (x - D)``. The first step and the step to 0 are first order.
    Deterministic: ``noise`` is not used.
    """
    denoised_last, h_last = None, 0.0
    for step, sigma, sigma_next in _steps(sigmas):
        denoised = _denoise(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        h = math.log(sigma / sigma_next) if sigma_next > 0 else math.inf
        if denoised_last is None or h == math.inf:
            x = torch.lerp(denoised, x, sigma_next / sigma)
        else:
            extrapolated = torch.lerp(denoised, denoised_last, -h / (2 * h_last))
            x = torch.lerp(extrapolated, x, sigma_next / sigma)
        denoised_last, h_last = denoised, h
    return x


class SamplerFn(Protocol):
    """The signature that all samplers share; some take more keywords."""

    def __call__(
        self,
        denoise: DenoiseFn,
        x: Tensor,
        sigmas: Tensor,
        *,
        noise: NoiseFn | None = None,
        callback: Callback | None = None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Sampler:
    """A sampler and what one needs to know to choose it.

    Attributes:
        function: the sampler.
        order: the global error falls with the number of steps to this power (as an ODE solver; for
            a stochastic sampler, in distribution).
        evaluations_per_step: calls of ``denoise``, each as costly as the network.
        stochastic: whether it adds noise in each step and so needs ``noise``.
        summary: one line for people.
        paper: authors, year and arXiv number.
    """

    function: SamplerFn
    order: int
    evaluations_per_step: int
    stochastic: bool
    summary: str
    paper: str


SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler(
        function=sample_ddpm,
        order=1,
        evaluations_per_step=1,
        stochastic=True,
        summary="ancestral sampling, fresh noise in each step; wants many steps",
        paper="Ho et al. 2020, arXiv 2006.11239",
    ),
    "ddim": Sampler(
        function=sample_ddim,
        order=1,
        evaluations_per_step=1,
        stochastic=False,
        summary="deterministic first-order steps (eta 0)",
        paper="Song et al. 2020, arXiv 2010.02502",
    ),
    "euler": Sampler(
        function=sample_euler,
        order=1,
        evaluations_per_step=1,
        stochastic=False,
        summary="Euler's method on the probability-flow ODE",
        paper="Karras et al. 2022, arXiv 2206.00364",
    ),
    "heun": Sampler(
        function=sample_heun,
        order=2,
        evaluations_per_step=2,
        stochastic=False,
        summary="Heun's method, second order, two evaluations a step",
        paper="Karras et al. 2022, arXiv 2206.00364",
    ),
    "dpm++2m": Sampler(
        function=sample_dpmpp_2m,
        order=2,
        evaluations_per_step=1,
        stochastic=False,
        summary="DPM-Solver++(2M), second order at one evaluation a step",
        paper="Lu et al. 2022, arXiv 2211.01095",
    ),
}


def _steps(sigmas: Tensor) -> Iterator[tuple[int, float, float]]:
    """(step, sigma, sigma_next) as Python floats, read from the device once."""
    levels: list[float] = sigmas.tolist()
    pairs = list(pairwise(levels))
    if not pairs or levels[-1] < 0 or not all(low < high < math.inf for high, low in pairs):
        raise UserError("sigmas must be at least two finite noise levels, descending, none below 0")
    return ((step, sigma, sigma_next) for step, (sigma, sigma_next) in enumerate(pairs))


def _denoise(denoise: DenoiseFn, x: Tensor, sigma: float) -> Tensor:
    return denoise(x, x.new_full((len(x),), sigma))


def _required(noise: NoiseFn | None, who: str) -> NoiseFn:
    if noise is None:
        raise UserError(f"{who} adds fresh noise in each step: pass noise, such as a NoiseStream")
    return noise


def _add_noise(x: Tensor, noise: NoiseFn, step: int, scale: float) -> Tensor:
    return x.add(noise(step).to(x), alpha=scale)


def _churn(
    x: Tensor, sigma: float, noise: NoiseFn | None, step: int, churn: float, s_noise: float
) -> tuple[Tensor, float]:
    """Raise the noise level from sigma to sigma (1 + gamma), gamma <= sqrt(2) - 1 (EDM, Alg. 2)."""
    if churn <= 0:
        return x, sigma
    noise = _required(noise, "a sampler with s_churn above 0")
    sigma_hat = sigma * (1 + min(churn, math.sqrt(2) - 1))
    return _add_noise(x, noise, step, s_noise * math.sqrt(sigma_hat**2 - sigma**2)), sigma_hat

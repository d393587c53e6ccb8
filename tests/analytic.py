"""Ground truth: data whose denoiser, score and networks are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from shared import parameterization as kinds
from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn
from shared.parameterization import Parameterization
from shared.schedules import NoiseSchedule

SIGMA_DATA = 0.7


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of isotropic Gaussians over samples (c h w), seen as vectors of d = c * h * w.

    Attributes: weights (k,) summing to 1, means (k d), stds (k,), all float64. Everything is
    computed in float64 and returned in the dtype of x.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x0 + sigma * noise = x]: (b c h w), (b,) -> (b c h w). A DenoiseFn."""
        flat = x.double().flatten(1)[:, None]  # b 1 d
        variance = self.stds.square() + sigma.double()[:, None].square()  # b k
        posterior = self._log_joint(flat, variance).softmax(1)[..., None]  # b k 1
        shrink = (self.stds.square() / variance)[..., None]  # b k 1
        expected = self.means + shrink * (flat - self.means)  # b k d
        return (posterior * expected).sum(1).reshape(x.shape).to(x.dtype)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """log p(x; sigma) of the noised data: (b c h w), (b,) -> (b,)."""
        variance = self.stds.square() + sigma.double()[:, None].square()
        return self._log_joint(x.double().flatten(1)[:, None], variance).logsumexp(1)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The gradient of log_density by x, through Tweedie: (denoised - x) / sigma^2."""
        return (self.denoise(x, sigma) - x) / sigma.square()[:, None, None, None]

    def mean(self) -> Tensor:
        """(d,)"""
        return self.weights @ self.means

    def covariance(self) -> Tensor:
        """(d d)"""
        centred = self.means - self.mean()
        within = (self.weights @ self.stds.square()) * torch.eye(len(self.mean())).double()
        return within + centred.T @ (self.weights[:, None] * centred)

    def _log_joint(self, flat: Tensor, variance: Tensor) -> Tensor:
        d = self.means.shape[1]
        distance = (flat - self.means).square().sum(-1)  # b k
        normaliser = d / 2 * (2 * math.pi * variance).log()
        return self.weights.log() - normaliser - distance / (2 * variance)


def three_modes() -> GaussianMixture:
    """Three components over samples of shape (1 1 2), close enough for the ODE to bend."""
    return GaussianMixture(
        weights=torch.tensor([0.5, 0.3, 0.2]).double(),
        means=torch.tensor([[1.0, 0.5], [-1.0, 0.8], [0.2, -1.2]]).double(),
        stds=torch.tensor([0.4, 0.5, 0.6]).double(),
    )


def single_gaussian() -> GaussianMixture:
    """One component over samples of shape (1 1 2), whose ODE has a closed solution."""
    return GaussianMixture(
        weights=torch.ones(1).double(),
        means=torch.tensor([[0.5, -1.0]]).double(),
        stds=torch.tensor([0.6]).double(),
    )


@dataclass(frozen=True, eq=False)
class Measured:
    """The exact answers for a mixture given one measurement ``y = row . x0 + std * noise``.

    Attributes: mixture; row (d,) float64; y; std.
    """

    mixture: GaussianMixture
    row: Tensor
    y: float
    std: float

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x0 + sigma * noise = x, y]: (b c h w), (b,) -> (b c h w). A DenoiseFn."""
        log_prior, means, spread = self._given(x, sigma)
        log_joint, means, _ = self._update(log_prior, means, spread)
        expected = (log_joint.softmax(1)[..., None] * means).sum(1)
        return expected.reshape(x.shape).to(x.dtype)

    def log_likelihood(self, x: Tensor, sigma: Tensor) -> Tensor:
        """log p(y | x; sigma): (b c h w), (b,) -> (b,), the exact noise-aware classifier."""
        return self._update(*self._given(x, sigma))[0].logsumexp(1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """The posterior's mean (d,) and covariance (d d)."""
        spread = self.mixture.stds.square()
        log_joint, means, gain = self._update(
            self.mixture.weights.log(), self.mixture.means, spread
        )
        weights = log_joint.softmax(-1)
        mean = weights @ means
        identity = torch.eye(len(self.row)).double()
        within = spread[:, None, None] * (identity - gain[..., None] * self.row)  # k d d
        centred = means - mean
        between = centred.T @ (weights[:, None] * centred)
        return mean, (weights[:, None, None] * within).sum(0) + between

    def _given(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of x0 given x: log weights (b k), means (b k d), variances (b k)."""
        prior = self.mixture.stds.square()
        level = sigma.double()[:, None].square()
        flat = x.double().flatten(1)[:, None]
        log_weights = self.mixture._log_joint(flat, prior + level).log_softmax(1)
        means = self.mixture.means + (prior / (prior + level))[..., None] * (
            flat - self.mixture.means
        )
        return log_weights, means, prior * level / (prior + level)

    def _update(
        self, log_weights: Tensor, means: Tensor, variances: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same given y: log weights, not normalised; means; and the Kalman gains (... k d)."""
        total = variances * self.row.square().sum() + self.std**2
        gain = (variances / total)[..., None] * self.row
        error = self.y - means @ self.row
        log_y = -0.5 * (error.square() / total + (2 * math.pi * total).log())
        return log_weights + log_y, means + gain * error[..., None], gain


def gaussian_flow(
    mixture: GaussianMixture, x: Tensor, sigma_from: float, sigma_to: float
) -> Tensor:
    """Where the probability-flow ODE of a single Gaussian carries x from one level to another."""
    mean, std = mixture.means[0].reshape(x.shape[1:]), mixture.stds[0]
    return mean + (x - mean) * ((std**2 + sigma_to**2) / (std**2 + sigma_from**2)).sqrt()


def fine_flow(denoise: DenoiseFn, x: Tensor, sigmas: Tensor) -> Tensor:
    """The same for any denoiser: classical Runge-Kutta of order 4 in log sigma, float64.

    In u = log sigma the ODE is dx/du = x - denoised.
    """

    def slope(x: Tensor, u: float) -> Tensor:
        return x - denoise(x, x.new_full((len(x),), math.exp(u)))

    for u, u_next in pairwise(sigmas.log().tolist()):
        h = u_next - u
        k1 = slope(x, u)
        k2 = slope(x + h / 2 * k1, u + h / 2)
        k3 = slope(x + h / 2 * k2, u + h / 2)
        k4 = slope(x + h * k3, u_next)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


@dataclass(frozen=True)
class Kind:
    """A parameterization beside its definition, written without its coefficients.

    Attributes:
        parameterization: what is under test.
        sigma: network time c_noise -> noise level.
        state: (x0, noise, sigma) -> what such a network is given.
        answer: (x0, noise, sigma) -> what it should predict.
    """

    parameterization: Parameterization
    sigma: Callable[[Tensor], Tensor]
    state: Callable[[Tensor, Tensor, Tensor], Tensor]
    answer: Callable[[Tensor, Tensor, Tensor], Tensor]


def all_kinds(schedule: NoiseSchedule) -> dict[str, Kind]:
    """The five parameterizations, from the definitions in their papers."""

    def vp_state(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        alphas_cumprod = 1 / (1 + sigma**2)
        return alphas_cumprod.sqrt() * x0 + (1 - alphas_cumprod).sqrt() * noise

    def v_answer(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        alphas_cumprod = 1 / (1 + sigma**2)
        return alphas_cumprod.sqrt() * noise - (1 - alphas_cumprod).sqrt() * x0

    def flow_state(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        t = sigma / (1 + sigma)
        return (1 - t) * x0 + t * noise

    def edm_state(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return (x0 + sigma * noise) / (sigma**2 + SIGMA_DATA**2).sqrt()

    def edm_answer(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        total = sigma**2 + SIGMA_DATA**2
        residual = x0 - SIGMA_DATA**2 / total * (x0 + sigma * noise)
        return residual * total.sqrt() / (sigma * SIGMA_DATA)

    t_to_sigma = schedule.t_to_sigma
    return {
        "eps": Kind(kinds.eps(schedule), t_to_sigma, vp_state, lambda x0, noise, sigma: noise),
        "v": Kind(kinds.v(schedule), t_to_sigma, vp_state, v_answer),
        "x0": Kind(kinds.x0(schedule), t_to_sigma, vp_state, lambda x0, noise, sigma: x0),
        "flow": Kind(
            kinds.flow(),
            lambda t: t / (1 - t),
            flow_state,
            lambda x0, noise, sigma: noise - x0,
        ),
        "edm": Kind(
            kinds.edm(SIGMA_DATA), lambda c_noise: (4 * c_noise).exp(), edm_state, edm_answer
        ),
    }


class AnalyticNetwork(nn.Module):
    """The perfect network of one kind for one mixture: what unlimited training would give."""

    def __init__(self, mixture: GaussianMixture, kind: Kind) -> None:
        super().__init__()
        self.mixture = mixture
        self.kind = kind

    def forward(self, state: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        sigma = self.kind.sigma(c_noise.double())
        per_sample = sigma[:, None, None, None]
        # Every kind's state is x times a factor of sigma: take it from x0 = 1, noise = 0.
        one = torch.ones_like(per_sample)
        x = state.double() / self.kind.state(one, one * 0, per_sample)
        denoised = self.mixture.denoise(x, sigma)
        answer = self.kind.answer(denoised, (x - denoised) / per_sample, per_sample)
        return answer.to(state.dtype)

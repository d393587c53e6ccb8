"""Classifier guidance: a network that reads noisy states says where the label is likelier."""

from collections.abc import Callable

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.guidance.compose import EVERYWHERE, per_sample, within
from shared.guidance.pullback import gradient_of
from shared.parameterization import Parameterization

LogProbFn = Callable[[Tensor, Tensor], Tensor]
"""(x (b c h w), sigma (b,)) -> log p(y | x; sigma) (b,), y already bound."""


def classifier(
    denoise: DenoiseFn,
    log_prob: LogProbFn,
    scale: float = 1.0,
    sigma_range: tuple[float, float] = EVERYWHERE,
) -> DenoiseFn:
    """Follow the gradient of a noise-aware classifier (Dhariwal & Nichol 2021, arXiv 2105.05233).

    ``denoised + sigma^2 * scale * grad_x log p(y | x; sigma)``: their Algorithm 2 (the noise moves
    by ``-sigma`` times the gradient by x) read in this coordinate. By Bayes' rule, scale 1 and the
    exact classifier give the conditional denoiser exactly, in every sampler. Their Algorithm 1
    moves DDPM's mean by its variance times the gradient: the same to first order in the step.

    Args:
        log_prob: differentiable in x; it sees the noisy state, so it must know noise.
        scale: 0 is off: ``denoise`` itself. Above 1 the label's mode is favoured.
        sigma_range: guide only where low < sigma <= high.

    Raises:
        UserError: no range; when called, a ``log_prob`` of another shape or without a gradient.
    """
    if scale == 0:
        return denoise

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.clone()  # made in inference mode, it could not be recorded
        gradient = gradient_of(lambda state: log_prob(state, level), x, "a classifier's log_prob")
        return denoise(x, sigma) + gradient * per_sample(scale * sigma.square())

    return within(guided, denoise, sigma_range)


def label_log_prob(
    network: Callable[[Tensor, Tensor], Tensor], labels: Tensor, parameterization: Parameterization
) -> LogProbFn:
    """log p(label | x; sigma) from a classifier that reads what a denoising network would.

    Args:
        network: (c_in x (b c h w), c_noise (b,)) -> logits (b k).
        labels: (b,) whole numbers, the class that each sample should have.
        parameterization: only its c_in and c_noise are used; ``eps(schedule)`` for a classifier
            trained on a variance-preserving schedule's states and steps.
    """

    def log_prob(x: Tensor, sigma: Tensor) -> Tensor:
        scalings = parameterization(sigma)
        logits = network(x * per_sample(scalings.c_in), scalings.c_noise)
        return torch.log_softmax(logits, dim=1).gather(1, labels.to(x.device)[:, None])[:, 0]

    return log_prob

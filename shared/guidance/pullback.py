"""Gradients inside a sampler, which itself runs without any."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError


@contextmanager
def recording() -> Iterator[None]:
    """Record gradients, also within ``torch.no_grad`` and ``torch.inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def pull_back(
    denoise: DenoiseFn,
    x: Tensor,
    sigma: Tensor,
    direction: Callable[[Tensor], Tensor],
    through_denoiser: bool = True,
) -> tuple[Tensor, Tensor]:
    """The estimate, and a direction of the estimate carried back to x.

    Args:
        direction: denoised (b c h w), detached -> v (b c h w).
        through_denoiser: False gives v itself for J^T v, and the network is not differentiated.

    Returns:
        denoised and ``J^T v``, J = d denoised / d x, each (b c h w). denoised carries gradients if
        x does, J^T v never: for an outer gradient the move of an inner one is a constant.

    Raises:
        UserError: no gradient flows through ``denoise``.
    """
    if not through_denoiser:
        denoised = denoise(x, sigma)
        return denoised, direction(denoised.detach())
    outer = torch.is_grad_enabled() and x.requires_grad
    with recording():
        # clone: tensors made in inference mode cannot be recorded
        start = x if outer else x.detach().clone().requires_grad_()
        denoised = denoise(start, sigma.clone())
        if not denoised.requires_grad:
            raise UserError("no gradient flows through this denoiser: is it under torch.no_grad?")
        v = direction(denoised.detach())
        (pulled,) = torch.autograd.grad(denoised, start, v, retain_graph=outer)
    return denoised if outer else denoised.detach(), pulled


def gradient_of(function: Callable[[Tensor], Tensor], at: Tensor, what: str) -> Tensor:
    """The gradient of ``function``: (b c h w) -> (b,) at a point (b c h w), one sample at a time.

    Raises:
        UserError: it gives no number a sample, or none that depends on its argument; says ``what``.
    """
    with recording():
        point = at.detach().clone().requires_grad_()
        values = function(point)
        if values.shape != point.shape[:1]:
            shape = tuple(values.shape)
            raise UserError(f"{what} must give one number a sample ({len(point)},), not {shape}")
        if not values.requires_grad:
            raise UserError(f"{what} does not depend on its input in a differentiable way")
        # Samples are independent, so the sum's gradient holds each one's own.
        (gradient,) = torch.autograd.grad(values.sum(), point, allow_unused=True)
    if gradient is None:
        raise UserError(f"{what} does not depend on its input in a differentiable way")
    return gradient

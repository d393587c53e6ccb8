"""A network and its parameterization, together the one interface: ``(x, sigma) -> denoised``."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.parameterization import Parameterization
from shared.schedules import NoiseSchedule

DenoiseFn = Callable[[Tensor, Tensor], Tensor]
"""(x (b c h w), sigma (b,)) -> denoised (b c h w), the conditioning already bound."""


class Denoiser(nn.Module):
    """Estimates the clean signal in ``x = x0 + sigma * noise``.

    The network is any module with ``network(x, c_noise, cond)``: (b c h w), (b,) and a
    :class:`Conditioning` to its raw output (b c h w). States and results keep the caller's dtype,
    float32 as a rule; the network computes in that of its own parameters. The cast between the two
    happens here and nowhere else.

    Attributes:
        network: the module that was trained. If it has ``takes_copies`` set, it takes fewer x than
            contexts, as :meth:`shared.unet.UNet.forward` does.
        parameterization: what its output means (see :mod:`shared.parameterization`).
        schedule: the noise levels it was trained on, if they were a fixed list.
    """

    def __init__(
        self,
        network: nn.Module,
        parameterization: Parameterization,
        schedule: NoiseSchedule | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.parameterization = parameterization
        self.schedule = schedule

    @property
    def guidance_dim(self) -> int | None:
        """Length of the vector in which the network takes a guidance scale; None if it takes none.

        See :func:`shared.guidance.with_scale`.
        """
        return getattr(self.network, "guidance_dim", None)

    def forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, copies: int = 1) -> Tensor:
        """The expected clean signal: x (b c h w), sigma (b,) -> denoised (b c h w), x's dtype.

        With ``copies``, cond holds that many conditionings (copies * b ...), one batch after the
        other, and so does the result: quicker than x that many times, where the network can tell
        what they have in common.
        """
        c_skip, c_out, _, _ = self.parameterization(sigma)
        output = self.model_output(x, sigma, cond, copies)
        skipped, c_out = _repeat(x * _per_sample(c_skip), copies), _repeat(c_out, copies)
        return torch.addcmul(skipped, output, _per_sample(c_out))

    def model_output(self, x: Tensor, sigma: Tensor, cond: Conditioning, copies: int = 1) -> Tensor:
        """The network's raw output for the state x, in x's dtype: noise, v, velocity, ..."""
        _, _, c_in, c_noise = self.parameterization(sigma)
        scaled = x * _per_sample(c_in)
        alone = cond.vector is None and cond.concat is None
        if not (alone and getattr(self.network, "takes_copies", False)):
            scaled, c_noise = _repeat(scaled, copies), _repeat(c_noise, copies)
        return self._run_network(scaled, c_noise, cond)

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """The raw output that would denoise ``x0 + sigma * noise`` perfectly, (b c h w)."""
        c_skip, c_out, _, _ = map(_per_sample, self.parameterization(sigma))
        # (x0 - c_skip * x) / c_out with x written out: for eps this is the noise exactly, where
        # x0 - x would lose the digits of a small sigma.
        return ((1 - c_skip) * x0 - (c_skip * _per_sample(sigma)) * noise) / c_out

    def loss(
        self,
        x0: Tensor,
        noise: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        channel_weights: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the raw output, one number a sample: (b c h w), (b,) -> (b,).

        Flat in the network's own output; in terms of denoised it is weighted by 1 / c_out^2
        (Karras et al. 2022, arXiv 2206.00364, Eq. 8). Weight the result to change that.

        Args:
            channel_weights: (c,) of the squared errors of each channel; None for 1.
        """
        x = x0 + _per_sample(sigma) * noise
        error = (self.model_output(x, sigma, cond) - self.target(x0, noise, sigma)).square()
        if channel_weights is not None:
            error = error * channel_weights[:, None, None]
        return error.flatten(1).mean(1)

    def _run_network(self, scaled: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        dtype = next((p.dtype for p in self.network.parameters()), scaled.dtype)
        # c_noise keeps its precision: bfloat16 has no 999, only 1000.
        output = self.network(scaled.to(dtype), c_noise, cond.to(scaled.device, dtype))
        return output.to(scaled.dtype)


def _repeat(tensor: Tensor, copies: int) -> Tensor:
    """(b ...) -> (copies * b ...)"""
    return tensor if copies == 1 else torch.cat([tensor] * copies)


def _per_sample(coefficient: Tensor) -> Tensor:
    return coefficient[:, None, None, None]  # b -> b 1 1 1

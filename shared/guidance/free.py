"""Guidance by comparing two denoisers: with and without the prompt, better and worse."""

import torch
from torch import Tensor

from shared.conditioning import Conditioning, concatenate
from shared.denoiser import DenoiseFn, Denoiser
from shared.errors import UserError
from shared.guidance.compose import EVERYWHERE, kept_share, per_sample, within
from shared.guidance.embedded import with_scale


def plain(denoiser: Denoiser, cond: Conditioning) -> DenoiseFn:
    """Bind the conditioning and do nothing else."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, cond)

    return denoise


def classifier_free(
    denoiser: Denoiser,
    cond: Conditioning,
    uncond: Conditioning,
    scale: float,
    sigma_range: tuple[float, float] = EVERYWHERE,
    rescale: float = 0.0,
) -> DenoiseFn:
    """Push the result away from what the network would say without the prompt.

    ``denoised = D(uncond) + scale * (D(cond) - D(uncond))`` (Ho & Salimans 2022, arXiv 2207.12598,
    with its w = scale - 1), one network call on the doubled batch.

    ``rescale`` is the phi of Lin et al. 2023 (arXiv 2305.08891, section 3.4, Eq. 14-16): it brings
    the standard deviation of the guided *network output* F (noise, v, ...) back to that of F(cond).
    As ``denoised = c_skip x + c_out F`` and the guided one is a combination whose weights sum to 1,
    combining the outputs is the same as combining the estimates, and only the guided F is scaled:
    ``F * (1 + rescale * (std F(cond) / std F - 1))``, std over one sample's c h w.

    A student that takes the scale as an input (``denoiser.guidance_dim``) is told it, everywhere,
    and asked once; what ``uncond`` says is in its weights.

    Args:
        cond, uncond: (b ...) each; the same fields set in both.
        scale: 1 is off: the conditional result itself, at half the cost.
        sigma_range: guide only where low < sigma <= high (Kynkäänniemi et al. 2024, arXiv
            2404.07724); elsewhere as with scale 1.
        rescale: 0 (off) to 1; the paper's choice is 0.7.

    Raises:
        UserError: rescale outside 0 .. 1, or no range.
    """
    if not 0 <= rescale <= 1:
        raise UserError(f"guidance rescale must be between 0 and 1, not {rescale}")
    if denoiser.guidance_dim is not None:
        return plain(denoiser, with_scale(cond, scale, denoiser.guidance_dim))
    conditional = plain(denoiser, cond)
    if scale == 1:
        return conditional
    both = concatenate([uncond, cond])  # b of each -> 2b

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoiser(x, sigma, both, copies=2)  # 2b c h w
        without, with_cond = denoised.chunk(2)
        return torch.add(without, with_cond - without, alpha=scale)

    def guided_and_rescaled(x: Tensor, sigma: Tensor) -> Tensor:
        output = denoiser.model_output(x, sigma, both, copies=2)
        without, with_cond = output.chunk(2)
        combined = torch.add(without, with_cond - without, alpha=scale)
        wanted, got = _std(with_cond), _std(combined)
        combined = combined * (1 + rescale * (wanted / got - 1))
        c_skip, c_out, _, _ = map(per_sample, denoiser.parameterization(sigma))
        return torch.addcmul(x * c_skip, combined, c_out)

    return within(guided if rescale == 0 else guided_and_rescaled, conditional, sigma_range)


def classifier_free_pp(
    denoiser: Denoiser,
    cond: Conditioning,
    uncond: Conditioning,
    scale: float,
    sigmas: Tensor,
    eta: float = 0.0,
    sigma_range: tuple[float, float] = EVERYWHERE,
) -> DenoiseFn:
    """CFG++: guide the estimate, but renoise with the unconditional noise (2406.08070, Alg. 1).

    In this coordinate its DDIM step is ``x_next = D + share * (x - D(uncond))`` with
    ``D = D(uncond) + scale * (D(cond) - D(uncond))`` and share = sigma_next / sigma. An ordinary
    first-order step ``D' + share * (x - D')`` is the same for

        D' = D(uncond) + scale / (1 - share) * (D(cond) - D(uncond))

    so CFG++ is classifier-free guidance whose scale follows the grid: large on short steps, and
    ``scale`` itself on the step to 0. Exact for DDIM with this ``eta``, Euler, and DDPM (eta 1) on
    this grid; samplers of higher order get that schedule of scales without the paper's guarantee.

    Args:
        cond, uncond: (b ...) each; the same fields set in both.
        scale: the paper's lambda, 0 (unconditional) to 1. There is no "off": 1 is not CFG's 1.
        sigmas: (n + 1,) the grid that the sampler will walk.
        eta: that sampler's.
        sigma_range: guide only where low < sigma <= high; elsewhere the conditional result.

    Raises:
        UserError: scale or eta outside 0 .. 1, no descending grid, or no range.
    """
    if not 0 <= scale <= 1:
        raise UserError(f"the scale of CFG++ must be between 0 and 1, not {scale}")
    share_of = kept_share(sigmas, eta)
    both = concatenate([uncond, cond])

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        without, with_cond = denoiser(x, sigma, both, copies=2).chunk(2)
        share, _ = share_of(sigma)
        return torch.addcmul(without, with_cond - without, per_sample(scale / (1 - share)))

    return within(guided, plain(denoiser, cond), sigma_range)


def autoguidance(
    denoise: DenoiseFn,
    weak: DenoiseFn,
    scale: float,
    sigma_range: tuple[float, float] = EVERYWHERE,
) -> DenoiseFn:
    """Push the result away from a worse model of the same thing (Karras et al. 2024, 2406.02507).

    ``denoised = weak + scale * (denoise - weak)``, Eq. 3: ``weak`` has the same conditioning but
    was trained less or is smaller (or is hampered, see :func:`perturbed_attention`).

    Args:
        scale: 1 is off: ``denoise`` itself.
        sigma_range: guide only where low < sigma <= high.

    Raises:
        UserError: no range.
    """
    if scale == 1:
        return denoise

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        worse = weak(x, sigma)
        return torch.add(worse, denoise(x, sigma) - worse, alpha=scale)

    return within(guided, denoise, sigma_range)


def _std(output: Tensor) -> Tensor:
    return output.std(dim=(1, 2, 3), correction=0, keepdim=True)  # b 1 1 1

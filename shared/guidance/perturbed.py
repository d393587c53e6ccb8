"""Perturbed-attention guidance: the weak denoiser is the network itself, its attention blinded."""

import copy
from collections.abc import Sequence
from itertools import chain

from torch import nn

from shared.attention import BasicTransformerBlock
from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.errors import UserError
from shared.guidance.compose import EVERYWHERE
from shared.guidance.free import autoguidance, plain

ENOUGH_PLACES = 64
"""That the self-attention of a block sees, for blinding it to tell something."""


def perturbed_attention(
    denoise: DenoiseFn,
    denoiser: Denoiser,
    cond: Conditioning,
    scale: float,
    blocks: Sequence[str] | None = None,
    sigma_range: tuple[float, float] = EVERYWHERE,
) -> DenoiseFn:
    """Push the result away from what the network says with its self-attention switched off.

    Ahn et al. 2024 (arXiv 2403.17377, Eq. 14): ``denoised = denoise + s * (denoise - perturbed)``
    with s = scale - 1, that is autoguidance by :func:`perturbed`. ``denoise`` is as a rule
    ``plain(denoiser, cond)``. The sum ``cfg(w) + s * (D(cond) - perturbed)`` of other
    implementations is this on ``classifier_free(denoiser, cond, uncond, (w + s) / (1 + s))``.

    Args:
        scale: 1 is off: ``denoise`` itself. The paper's s = 3 is 4 here.
        blocks, cond: as for :func:`perturbed`.
        sigma_range: guide only where low < sigma <= high.

    Raises:
        UserError: a block that is not in the network, or no range.
    """
    if scale == 1:
        return denoise
    return autoguidance(denoise, perturbed(denoiser, cond, blocks), scale, sigma_range)


def perturbed(
    denoiser: Denoiser, cond: Conditioning, blocks: Sequence[str] | None = None
) -> DenoiseFn:
    """:func:`perturbed_denoiser` with the conditioning bound."""
    return plain(perturbed_denoiser(denoiser, blocks), cond)


def perturbed_denoiser(denoiser: Denoiser, blocks: Sequence[str] | None = None) -> Denoiser:
    """The denoiser with identity for the self-attention map in some transformer blocks (Eq. 13).

    Each token then gets its own value and nothing of the others. The network given is not changed:
    the result runs a second tree of modules over the very same parameters and buffers.

    Args:
        blocks: names of modules as in ``state_dict()``; all transformer blocks inside are
            perturbed: "mid_block", "up_blocks.0", "down_blocks.1.attentions.0" ... None is
            :func:`attending_blocks`.

    Raises:
        UserError: a name with no transformer block inside, or no name and none in the network.
    """
    tensors = chain(denoiser.network.parameters(), denoiser.network.buffers())
    network = copy.deepcopy(denoiser.network, {id(tensor): tensor for tensor in tensors})
    transformers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, BasicTransformerBlock)
    }
    for block in attending_blocks(denoiser) if blocks is None else blocks:
        chosen = [name for name in transformers if f"{name}.".startswith(f"{block}.")]
        if not chosen:
            have = ", ".join(transformers) or "none"
            raise UserError(f"no self-attention in block {block!r}; the network has it in: {have}")
        for name in chosen:
            attention = transformers[name].attn1
            if not isinstance(attention, nn.Sequential):  # not yet, by an overlapping name
                blind = nn.Sequential(attention.to_v, attention.to_out[0])
                transformers[name].add_module("attn1", blind)
    return Denoiser(network, denoiser.parameterization, denoiser.schedule)


def attending_blocks(denoiser: Denoiser) -> tuple[str, ...]:
    """The blocks of a U-Net that are perturbed if nothing else is said.

    The paper takes Stable Diffusion's middle block, whose attention sees 8 by 8 places. Where
    places are fewer it says next to nothing (a thousandth of the estimate, in the carried models):
    so it is the innermost level whose attention sees as many, else that which sees most.

    Raises:
        UserError: no block has any.
    """
    modules = denoiser.network.named_modules()
    names = [name for name, module in modules if isinstance(module, BasicTransformerBlock)]
    config = getattr(denoiser.network, "config", {})
    size = config.get("sample_size") or 64  # of the latents
    height, width = (size, size) if isinstance(size, int) else size
    innermost = len(config.get("block_out_channels") or range(4)) - 1
    found: tuple[str, ...] = ()
    for level in range(innermost, -1, -1):
        blocks = [f"down_blocks.{level}", f"up_blocks.{innermost - level}"]
        for candidates in ([["mid_block"]] if level == innermost else []) + [blocks]:
            here = tuple(
                block for block in candidates if any(name.startswith(f"{block}.") for name in names)
            )
            found = here or found
            if here and (height >> level) * (width >> level) >= ENOUGH_PLACES:
                return here
    if not found:
        raise UserError("perturbed attention needs a network with self-attention; this has none")
    return found

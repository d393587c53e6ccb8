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
            :func:`innermost_blocks`.

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
    for block in innermost_blocks(denoiser) if blocks is None else blocks:
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


def innermost_blocks(denoiser: Denoiser) -> tuple[str, ...]:
    """The blocks of a U-Net that the paper perturbs: the middle one.

    Where that has no attention, those beside it that have: on the way down and on the way up.

    Raises:
        UserError: no block has any.
    """
    modules = denoiser.network.named_modules()
    names = [name for name, module in modules if isinstance(module, BasicTransformerBlock)]
    if any(name.startswith("mid_block.") for name in names):
        return ("mid_block",)
    down = [name.split(".")[1] for name in names if name.startswith("down_blocks.")]
    up = [name.split(".")[1] for name in names if name.startswith("up_blocks.")]
    if not down and not up:
        raise UserError("perturbed attention needs a network with self-attention; this has none")
    deepest = [f"down_blocks.{max(map(int, down))}"] if down else []
    return (*deepest, *([f"up_blocks.{min(map(int, up))}"] if up else []))

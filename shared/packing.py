"""What sampling does once and training must do at every call.

The weights of convolutions are put in order: oneDNN, which computes PyTorch's convolutions on CPUs,
wants them blocked to the width of the machine's vectors and reorders them at each call. On the
small feature maps of latent diffusion that is a tenth to a half of the time of a convolution.

And the keys and values of a prompt are the same in every step.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from shared.attention import Attention


class PackedConv2d(nn.Conv2d):
    """A convolution that keeps its weights, and a copy of them packed for the last shape of input.

    Where gradients are wanted, or the numbers are not float32 on a CPU, it is a plain convolution.
    """

    packed: Tensor | None
    packed_for: torch.Size | None

    def __getstate__(self) -> dict[str, Any]:
        # Packed tensors cannot be copied; a copy of the convolution packs its own.
        return self.__dict__ | {"packed": None, "packed_for": None}

    def forward(self, input: Tensor) -> Tensor:
        """(b c h w) -> (b out h' w'), as ``torch.nn.Conv2d``."""
        floats = input.dtype == self.weight.dtype == torch.float32
        if torch.is_grad_enabled() or not floats or input.device.type != "cpu":
            return super().forward(input)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        if self.packed is None or self.packed_for != input.shape:
            # Large and small maps want different orders, and a wrong one is slow though correct.
            self.packed_for = input.shape
            self.packed = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[attr-defined]
                self.weight.detach().to_mkldnn(), *geometry, input.shape
            )
        return torch.ops.mkldnn._convolution_pointwise(
            input, self.packed, self.bias, *geometry, "none", [], ""
        )


def pack_convolutions(module: nn.Module) -> None:
    """Make the 3x3 convolutions inside ``module`` pack their weights, if this PyTorch can.

    Results stay the same. The weights must not change afterwards (call it again if they did), and
    the packed copies take as much memory again as those weights.
    """
    if not (
        torch.backends.mkldnn.is_available()
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")  # pyright: ignore[reportAttributeAccessIssue]
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    ):
        return
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            # Changed in place, so that parents, hooks and state_dict() keep the module.
            conv.__class__ = PackedConv2d
            packed_conv = cast(PackedConv2d, conv)
            packed_conv.packed = packed_conv.packed_for = None


class ContextAttention(Attention):
    """Attention that remembers the keys and values of the context that it saw last.

    It knows a context by its identity, so a context must not be changed in place.
    """

    last: tuple[Tensor, tuple[Tensor, Tensor]] | None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"last": None}

    def context_keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """(b m d) -> (b heads m dim_head) each; computed anew where gradients are wanted."""
        if torch.is_grad_enabled():
            return self.keys_and_values(context)
        if self.last is None or self.last[0] is not context:
            self.last = (context, self.keys_and_values(context))
        return self.last[1]


def remember_contexts(module: nn.Module) -> None:
    """Make the attentions inside ``module`` remember their last context's keys and values.

    Results stay the same. The weights must not change afterwards.
    """
    for attention in module.modules():
        if isinstance(attention, Attention):
            attention.__class__ = ContextAttention
            cast(ContextAttention, attention).last = None

"""What a network is told besides the noisy state and its noise level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Everything that steers a denoiser, one batch of it. A field that is ``None`` is not used.

    Attributes:
        context: (b n d) tokens for cross-attention, such as an encoded prompt.
        context_mask: (b n) true where a token counts.
        vector: (b d) joins the time embedding: a class, pooled text or audio embedding.
        concat: (b c h w) extra input channels: a mask, a map, music controls.
    """

    context: Tensor | None = None
    context_mask: Tensor | None = None
    vector: Tensor | None = None
    concat: Tensor | None = None

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Conditioning:
        """Move every tensor; ``dtype`` changes floating-point ones only, masks keep theirs."""
        return Conditioning(
            *(
                None
                if tensor is None
                else tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
                for tensor in _tensors(self)
            )
        )

    def __getitem__(self, index: slice | Tensor) -> Conditioning:
        """Select samples of the batch by a slice or by a tensor of indices (the batch axis stays).

        Raises:
            TypeError: for a single integer, which would drop the batch axis; use cond[i : i + 1].
        """
        if not isinstance(index, slice | Tensor):
            raise TypeError(
                f"a Conditioning takes a slice or a tensor, not {type(index).__name__}; "
                "for one sample use cond[i : i + 1]"
            )
        return Conditioning(
            *(None if tensor is None else tensor[index] for tensor in _tensors(self))
        )


def concatenate(conds: Sequence[Conditioning]) -> Conditioning:
    """Join batches along the batch axis.

    Raises:
        ValueError: a field is set in some of them and ``None`` in others.
    """
    joined: list[Tensor | None] = []
    columns = zip(*map(_tensors, conds), strict=True)
    for field, column in zip(fields(Conditioning), columns, strict=True):
        present = [tensor for tensor in column if tensor is not None]
        if present and len(present) != len(column):
            raise ValueError(f"cannot join conditionings: {field.name} is set in some of them only")
        joined.append(torch.cat(present) if present else None)
    return Conditioning(*joined)


def _tensors(cond: Conditioning) -> tuple[Tensor | None, ...]:
    return cond.context, cond.context_mask, cond.vector, cond.concat

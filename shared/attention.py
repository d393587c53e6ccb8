"""Attention and the spatial transformer: how text reaches the picture.

Rombach et al. 2022 (arXiv 2112.10752, section 3.3) and Vaswani et al. 2017 (arXiv 1706.03762).
Attribute names are diffusers' own, so that ``state_dict()`` keys agree.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.layers import GroupNorm


class Attention(nn.Module):
    """Multi-head attention, softmax(q k^T / sqrt(d)) v, of tokens to themselves or to a context.

    Args:
        query_dim: channels of the queries' tokens and of the output.
        heads: number of heads; the inner width is ``heads * dim_head``.
        dim_head: channels of one head.
        context_dim: channels of the context; None attends to the queries' own tokens.
        bias: whether the query, key and value projections have one (the output's always has).
        groups: group-normalize the input first, with this many groups (the VAE's mid block).
        eps: of that normalization.
        residual: add the input to the output.
    """

    def __init__(
        self,
        query_dim: int,
        heads: int,
        dim_head: int,
        *,
        context_dim: int | None = None,
        bias: bool = False,
        groups: int | None = None,
        eps: float = 1e-6,
        residual: bool = False,
    ) -> None:
        super().__init__()
        inner_dim = heads * dim_head
        self.heads = heads
        self.residual = residual
        self.group_norm = None if groups is None else GroupNorm(groups, query_dim, eps=eps)
        self.to_q = nn.Linear(query_dim, inner_dim, bias=bias)
        self.to_k = nn.Linear(context_dim or query_dim, inner_dim, bias=bias)
        self.to_v = nn.Linear(context_dim or query_dim, inner_dim, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(inner_dim, query_dim)])

    def forward(
        self, x: Tensor, context: Tensor | None = None, context_mask: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Args:
            x: tokens (b n c), or a feature map (b c h w), whose positions are the tokens.
            context: (b m d) tokens to attend to; None means x itself.
            context_mask: (b 1 1 m) bool, True where a context token may be attended to.

        Returns:
            The same shape as x.
        """
        h = x if self.group_norm is None else self.group_norm(x)
        if x.ndim == 4:
            h = h.flatten(2).transpose(1, 2)  # b c h w -> b (h w) c, a view under channels_last
        k, v = self.keys_and_values(h) if context is None else self.context_keys_and_values(context)
        h = attend(self._split(self.to_q(h)), k, v, context_mask)
        h = self.to_out[0](h.transpose(1, 2).flatten(2))
        if x.ndim == 4:
            h = h.transpose(1, 2).unflatten(2, x.shape[2:])  # b (h w) c -> b c h w
        return x + h if self.residual else h

    def keys_and_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(b m d) -> keys and values, (b heads m dim_head) each."""
        return self._split(self.to_k(source)), self._split(self.to_v(source))

    def context_keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Those of a context; :class:`shared.packing.ContextAttention` remembers them."""
        return self.keys_and_values(context)

    def _split(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # b heads n dim_head


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for (b heads n d) queries and (b heads m d) keys and values.

    Spelled out where gradients are wanted in bfloat16 on a CPU: there the backward pass of torch's
    fused kernel takes several times as long (tried with 2.13, AMX), and few scores are kept.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class GEGLU(nn.Module):
    """A linear layer gated by the GELU of another (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)

    def forward(self, x: Tensor) -> Tensor:
        h, gate = self.proj(x).chunk(2, dim=-1)
        # On CPUs GELU vectorizes over contiguous memory only: the copy pays several times over.
        return h * F.gelu(gate.contiguous())


class FeedForward(nn.Module):
    """The transformer's perceptron, (b n dim) -> (b n dim), four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The middle entry holds dropout's place in the numbering of the keys: net.0, net.2.
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention and a perceptron, each pre-normalized and residual."""

    def __init__(self, dim: int, heads: int, context_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads, dim // heads)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, heads, dim // heads, context_dim=context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """x (b n c), context (b m d), context_mask (b 1 1 m) bool -> (b n c)."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context, context_mask)
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nn.Module):
    """Transformer blocks over the positions of a feature map, (b c h w) -> (b c h w), residual.

    Stable Diffusion 1 projects in and out by 1x1 convolutions, 2 and later by linear layers
    (``use_linear_projection``): the same arithmetic, differently shaped weights.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context_dim: int,
        *,
        layers: int = 1,
        groups: int = 32,
        use_linear_projection: bool = False,
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = _projection(channels, use_linear_projection)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(channels, heads, context_dim) for _ in range(layers)
        )
        self.proj_out = _projection(channels, use_linear_projection)

    def forward(self, x: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """x (b c h w), context (b m d), context_mask (b 1 1 m) bool -> (b c h w)."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # b (h w) c, a view under channels_last
        tokens = _project(self.proj_in, tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, context, context_mask)
        tokens = _project(self.proj_out, tokens)
        return x + tokens.transpose(1, 2).unflatten(2, x.shape[2:])


def _projection(channels: int, linear: bool) -> nn.Linear | nn.Conv2d:
    return nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)


def _project(layer: nn.Module, tokens: Tensor) -> Tensor:
    """Apply a 1x1 convolution or a linear layer to tokens (b n c): both are a matrix product."""
    weight, bias = layer.weight, layer.bias
    return F.linear(tokens, weight.flatten(1), bias)  # type: ignore[arg-type]

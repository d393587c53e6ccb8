"""The guidance scale as an input of the network: one call where guidance needs two."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from shared.conditioning import Conditioning
from shared.layers import sinusoidal_embedding


def with_scale(cond: Conditioning, scale: float | Tensor, dim: int) -> Conditioning:
    """The conditioning with its guidance scale told, for a network that was distilled to take one.

    As sines and cosines of ``1000 (scale - 1)``, the embedding of diffusers' pipelines (their
    ``timestep_cond``), after Meng et al. 2023 (arXiv 2210.03142, section 3.1), where it is w.

    Args:
        cond: (b ...) with a context, its ``vector`` not used.
        scale: guidance scales (b,), or one for all; 1 is off.
        dim: what the network takes, its ``time_cond_proj_dim``.

    Raises:
        ValueError: there is no context.
    """
    if cond.context is None:
        raise ValueError("a guidance scale is told beside a context, and there is none")
    scales = torch.as_tensor(scale, dtype=torch.float32, device=cond.context.device)
    w = 1000 * (scales.expand(len(cond.context)) - 1)
    return replace(cond, vector=sinusoidal_embedding(w, dim, flip_sin_to_cos=False, freq_shift=1))

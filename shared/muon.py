"""AdamW whose matrices and kernels take orthogonalized steps: Muon.

Jordan et al. 2024 ("Muon: an optimizer for hidden layers in neural networks"), scaled as by Liu
et al. 2025 (arXiv 2502.16982, section 2.2), under which both kinds of step want one learning rate.
torch's own Muon takes no convolutions and computes in bfloat16, which many CPUs only emulate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic, steepest at zero
ITERATIONS = 5


def orthogonalize(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values of (m, n) brought near 1.

    By a Newton-Schulz iteration, x <- (a + b g + c g^2) x with g = x x^T; they end between about
    0.7 and 1.2. The factors commute, so they are gathered among the small (m, m) matrices and meet
    the long x once: kernels are ten times as long as they are wide.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    product = identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    for _ in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c).add_(identity, alpha=a)
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized, for parameters of two or more axes.

    A kernel (out in h w) counts as the matrix (out, in h w). Use another optimizer for vectors,
    embeddings and whatever else is no linear map.

    Args:
        params: parameters or groups of them.
        lr: the same that AdamW would take.
        momentum: share of the old gradients' average that is kept.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step along the orthogonalized momentum of each parameter."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                average: Tensor = state["exp_avg"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(average, group["momentum"])
                update = orthogonalize(ahead.flatten(1)).view_as(ahead)
                # Root mean square 0.2 an element, about what AdamW's steps have.
                scale = 0.2 * max(ahead.shape[0], ahead[0].numel()) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * scale)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon suits the parameter: a linear map inside the network, not its ends."""
    ends = ("conv_in", "conv_out", "embedding")
    return parameter.ndim > 1 and not any(end in name for end in ends)

"""An exponential moving average of weights: what is sampled from and what is shipped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class EMA:
    """Averages a module's parameters as they are trained (Polyak averaging, Ho et al. 2020).

    Early on the average is short, ``(1 + step) / (10 + step)``, so that it forgets the first,
    random weights; later it is ``decay``.

    Attributes:
        decay: share of the old average that one update keeps, in the long run.
        averages: parameter name -> averaged tensor.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.averages: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters()
        }

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the module's parameters after optimizer step ``step`` (0 the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = list(self.averages.values())
        parameters = [parameter.detach() for _, parameter in module.named_parameters()]
        torch._foreach_lerp_(averages, parameters, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's parameters with the averages."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.averages[name])

    @torch.no_grad()
    def load(self, averages: Mapping[str, Tensor]) -> None:
        """Take over averages that were saved."""
        for name, average in self.averages.items():
            average.copy_(averages[name])

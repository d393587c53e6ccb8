"""Networks that differ from others by matrices of low rank: LoRA (Hu et al. 2021, 2106.09685).

Each linear map and convolution W becomes ``W + up @ down``, with W fixed and ``up`` 0 at first; a
kernel (out in h w) counts as the matrix (out, in h w). What is learnt is a small file beside the
other network's, and can be added to its weights for good. A convolution may also get further input
channels, whose weights are learnt whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from shared.errors import UserError

DIFFERENCE = "pytorch_lora_weights"
"""Name of the file; its keys too are those of diffusers' LoRA files, ``unet.`` before them."""
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_MORE = ".more_inputs.weight"
_PREFIX = "unet."


class LowRank(nn.Module):
    """W -> W + up @ down."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        inputs = weight[0].numel()
        down = 2 * torch.rand(rank, inputs, generator=generator) - 1
        self.down = nn.Parameter(down / math.sqrt(inputs))
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


class MoreInputs(nn.Module):
    """W (out in h w) -> (out in+k h w): the weights of further input channels, 0 at first."""

    def __init__(self, weight: Tensor, channels: int) -> None:
        super().__init__()
        self.more = nn.Parameter(weight.new_zeros(len(weight), channels, *weight.shape[2:]))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.cat([weight, self.more], 1)


def take_more_inputs(convolution: nn.Conv2d, channels: int) -> None:
    """Let a convolution take further input channels, in place; at first it does not heed them."""
    more = MoreInputs(convolution.weight, channels)
    # "unsafe" is that the weight gets another shape, which is what this is for.
    parametrize.register_parametrization(convolution, "weight", more, unsafe=True)
    convolution.in_channels += channels


def make_low_rank(
    network: nn.Module, rank: int, whole: tuple[str, ...] = (), seed: int = 0
) -> None:
    """Let only differences of low rank be trained, in place; all else is fixed.

    Args:
        rank: of each difference, 1 or more. Maps that have no larger one are left as they are.
        whole: parameters that are trained as they are, such as new ones. What
            :func:`take_more_inputs` added is trained too, and what was there before is fixed.
        seed: of the first ``down``.

    Raises:
        UserError: a rank below 1, or of which no map of the network is larger.
    """
    if rank < 1:
        raise UserError(f"the rank of a difference must be at least 1, not {rank}")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in whole or name.endswith(".more"))
    generator = torch.Generator().manual_seed(seed)
    maps = [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and not parametrize.is_parametrized(module)
        and f"{name}.weight" not in whole
        and rank < min(len(module.weight), module.weight[0].numel())
    ]
    if not maps:
        raise UserError(f"no map of this network has a rank above {rank}; choose a lower one")
    for module in maps:
        parametrize.register_parametrization(
            module, "weight", LowRank(module.weight, rank, generator)
        )


def difference(network: nn.Module) -> dict[str, Tensor]:
    """What a network that :func:`make_low_rank` changed has learnt, by the keys of a LoRA file.

    Parameters that were trained whole are there under their own names.
    """
    state: dict[str, Tensor] = {}
    for name, module, change in _changes(network):
        if isinstance(change, MoreInputs):
            state[_PREFIX + name + _MORE] = change.more
            continue
        kernel = _weight(module).shape[2:]
        state[_PREFIX + name + _DOWN] = change.down.unflatten(1, (-1, *kernel))
        state[_PREFIX + name + _UP] = change.up.reshape(*change.up.shape, *(1 for _ in kernel))
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and ".parametrizations." not in f".{name}":
            state[_PREFIX + name] = parameter
    return {key: tensor.detach() for key, tensor in state.items()}


@torch.no_grad()
def begin_with(network: nn.Module, change: Mapping[str, Tensor]) -> None:
    """Let a network that was made ready to be trained go on from a :func:`difference`, in place.

    Raises:
        UserError: the difference is of another network or of another rank.
    """
    own = difference(network)
    other = [key for key in own if key not in change or change[key].shape != own[key].shape]
    if other or len(own) != len(change):
        what = other[0] if other else next(key for key in change if key not in own)
        raise UserError(f"the difference to begin with does not fit: {what} is missing or other")
    for key, tensor in own.items():
        tensor.copy_(change[key])  # they share the parameters' memory


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of a plain network that computes the same, differences added to the weights."""
    state = {
        key: tensor
        for key, tensor in network.state_dict().items()
        if ".parametrizations." not in f".{key}"
    }
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module):
            state[f"{name}.weight"] = _weight(module)
    return {key: tensor.detach() for key, tensor in state.items()}


def merged(state: Mapping[str, Tensor], change: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network with a :func:`difference` added; whole parameters are put in.

    Raises:
        UserError: the difference is of another network.
    """
    result = dict(state)
    for key, tensor in change.items():
        name = key.removeprefix(_PREFIX)
        if name.endswith(_UP):
            continue
        if name.endswith(_MORE):
            name = f"{name.removesuffix(_MORE)}.weight"
            weight = result.get(name)
            if weight is None or weight.shape[2:] != tensor.shape[2:] or len(weight) != len(tensor):
                raise UserError(f"the further inputs do not fit: {name} is missing or other")
            result[name] = torch.cat([weight, tensor.to(weight)], 1)
            continue
        if not name.endswith(_DOWN):
            result[name] = tensor
            continue
        name = name.removesuffix(_DOWN)
        weight, up = result.get(f"{name}.weight"), change.get(_PREFIX + name + _UP)
        if weight is None or up is None or tensor.shape[1:] != weight.shape[1:]:
            raise UserError(f"the low-rank difference does not fit: {name} is missing or other")
        product = up.float().flatten(1) @ tensor.float().flatten(1)
        result[f"{name}.weight"] = weight + product.view(weight.shape).to(weight)
    return result


def _changes(network: nn.Module) -> Iterator[tuple[str, nn.Module, LowRank | MoreInputs]]:
    """Name and module of each map that was changed, and the change."""
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module):
            changes = cast(nn.ModuleDict, module.parametrizations)
            change = cast(nn.ModuleList, changes["weight"])[0]
            yield name, module, cast("LowRank | MoreInputs", change)


def _weight(module: nn.Module) -> Tensor:
    return cast(nn.Linear | nn.Conv2d, module).weight

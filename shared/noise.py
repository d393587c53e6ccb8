"""Noise that depends on a sample's seed and on nothing else.

Every sample has a generator of its own, on the CPU and in float32, whatever the device and dtype of
the model. So a sample is the same alone, in a batch, at another place of the batch, and (up to the
arithmetic that follows) on another device.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.errors import UserError

NoiseFn = Callable[[int], Tensor]
"""step -> unit Gaussian noise (b c h w) for that sampling step."""

MAX_SEED = 2**32 - 1
"""torch's CPU generator reads 32 bits of a seed; larger ones would repeat the smaller."""


def seeded_noise(
    seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
) -> Tensor:
    """Unit Gaussian noise, one seed a sample: float32 of shape (len(seeds), *shape).

    For one seed it is what ``torch.randn`` draws from ``torch.Generator().manual_seed(seed)``, so
    the start noise of other tools that draw theirs on the CPU is the same.

    Raises:
        UserError: a seed outside 0 .. 2^32 - 1.
    """
    return torch.stack([_draw(seed, shape) for seed in seeds]).to(device)


@dataclass(frozen=True)
class NoiseStream:
    """The fresh noise of every step of a stochastic sampler; a ``NoiseFn``.

    Stateless: the noise of a step is a function of (seed, step), independent of the start noise, so
    it does not matter which steps were drawn before.

    Attributes:
        seeds: one a sample, each in 0 .. 2^32 - 1.
        shape: of one sample, without the batch axis.
        device: where the noise is wanted; it is drawn on the CPU.
    """

    seeds: Sequence[int]
    shape: Sequence[int]
    device: torch.device | str = "cpu"

    def __call__(self, step: int) -> Tensor:
        """Unit Gaussian noise of shape (len(seeds), *shape), float32.

        Raises:
            UserError: a seed outside 0 .. 2^32 - 1.
        """
        return seeded_noise([_mix(seed, step) for seed in self.seeds], self.shape, self.device)


def _draw(seed: int, shape: Sequence[int]) -> Tensor:
    _check(seed)
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def _mix(seed: int, step: int) -> int:
    # A hash and not seed + step: neighbouring seeds are what --count hands out.
    _check(seed)
    return int.from_bytes(hashlib.blake2b(f"{seed} {step}".encode(), digest_size=4).digest(), "big")


def _check(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"a seed is a whole number between 0 and {MAX_SEED}, not {seed}")

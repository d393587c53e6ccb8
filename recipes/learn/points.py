"""Points as tiny pictures (n 2 1 1), how far apart two sets of them are, and heaps on a line."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def moons(count: int, seed: int) -> Tensor:
    """Two half circles that hold each other: (n 2 1 1), standard deviation about 1."""
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(count, generator=generator)
    upper = torch.arange(count) % 2 == 0
    x = torch.where(upper, angle.cos(), 1 - angle.cos()) - 0.5
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin()) - 0.25
    points = torch.stack([1.4 * x, 1.8 * y], 1)
    return as_pictures(points + 0.08 * torch.randn(count, 2, generator=generator))


def ring(count: int, seed: int) -> Tensor:
    """Eight round heaps on a circle of radius 2: (n 2 1 1)."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.arange(count) % 8 * (math.pi / 4)
    points = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    return as_pictures(points + 0.15 * torch.randn(count, 2, generator=generator))


def as_pictures(points: Tensor) -> Tensor:
    """(n 2) -> (n 2 1 1), what a denoiser takes."""
    return points[:, :, None, None]


def energy_distance(a: Tensor, b: Tensor) -> float:
    """How unlike two sets of points (n 2 1 1) are; 0 in the mean for draws of one distribution.

    ``2 E|A - B| - E|A - A'| - E|B - B'|`` (Székely & Rizzo 2013, "Energy statistics"), the
    unbiased estimate.
    """
    a, b = a.flatten(1), b.flatten(1)
    within = (
        torch.cdist(points, points).sum() / (len(points) * (len(points) - 1)) for points in (a, b)
    )
    return (2 * torch.cdist(a, b).mean() - sum(within)).item()


def travel(start: Tensor, end: Tensor) -> float:
    """The mean squared distance between the ends of pairs (n 2 1 1)."""
    return (end - start).square().flatten(1).sum(1).mean().item()


@dataclass(frozen=True, eq=False)
class Heaps:
    """Numbers x0 (n 1 1 1) in Gaussian heaps, a distribution whose denoiser is known exactly.

    Attributes:
        means, shares: (k,) of the heaps; the shares sum to 1.
        width: standard deviation of each.
    """

    means: Tensor
    shares: Tensor
    width: float

    def log_weights(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Log densities of x (b) with noise sigma (b) under each heap, its share in it: (b k)."""
        std = (self.width**2 + sigma.square())[:, None].sqrt()
        return self.shares.log() + torch.distributions.Normal(self.means, std).log_prob(x[:, None])

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x]: (b 1 1 1), (b,) -> (b 1 1 1)."""
        flat = x.flatten()
        shrink = (self.width**2 / (self.width**2 + sigma.square()))[:, None]
        expected = self.means + shrink * (flat[:, None] - self.means)
        return (self.log_weights(flat, sigma).softmax(1) * expected).sum(1).view_as(x)

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation."""
        mean = (self.shares @ self.means).item()
        return mean, (self.width**2 + (self.shares @ self.means.square()).item() - mean**2) ** 0.5

"""A linear code of picture patches: the principal components that latents are anchored to.

Each 8x8 patch of RGB (192 numbers) becomes its first few principal components, each divided by the
square root of its standard deviation, so that coarse components keep most of the energy, as in
pixels, and fine ones are still heard. The autoencoder's encoder is trained to reproduce this code
and its decoder to undo it, far beyond the linear inverse. A denoiser learns such latents early:
they are smooth, ordered by importance, and known before any autoencoder is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import load_file, save
from torch import Tensor

from shared.errors import UserError
from shared.files import whole_file

FILE = "linear_code.safetensors"


@dataclass(frozen=True)
class LinearCode:
    """Pictures <-> latents by patches of ``factor`` x ``factor`` px.

    Attributes:
        mean: (d,) of patches, d = 3 * factor^2, pictures being in [-1, 1].
        basis: (d, z) orthonormal principal components, the strongest first.
        scale: (z,) what the components are divided by.
        factor: pixels along each side for one latent.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    factor: int

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (b 3 h w) -> latents (b z h/factor w/factor) of about unit variance."""
        coefficients = (_patches(images, self.factor) - self.mean) @ self.basis / self.scale
        return coefficients.permute(0, 3, 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b z h w) -> the pictures (b 3 h*factor w*factor) nearest in least squares."""
        coefficients = latents.permute(0, 2, 3, 1) * self.scale
        patches = coefficients @ self.basis.T + self.mean
        f = self.factor
        return rearrange(patches, "b h w (c p q) -> b c (h p) (w q)", p=f, q=f)

    def save(self, folder: Path) -> None:
        """Write the code to ``folder``."""
        tensors = {"mean": self.mean, "basis": self.basis, "scale": self.scale}
        with whole_file(folder / FILE, overwrite=True) as file:
            file.write(save(tensors, metadata={"factor": str(self.factor)}))

    @classmethod
    def load(cls, folder: Path) -> LinearCode:
        """Read the code that :meth:`save` wrote.

        Raises:
            UserError: there is none.
        """
        if not (folder / FILE).is_file():
            raise UserError(f"{folder} has no {FILE}; train the autoencoder first (train vae)")
        tensors = load_file(folder / FILE)
        factor = round((len(tensors["mean"]) / 3) ** 0.5)
        return cls(tensors["mean"], tensors["basis"].contiguous(), tensors["scale"], factor)


def fit(images: Iterable[Tensor], channels: int, factor: int = 8) -> LinearCode:
    """The code of ``channels`` latents that batches of pictures (b 3 h w) call for."""
    d = 3 * factor**2
    count, total, outer = 0, torch.zeros(d).double(), torch.zeros(d, d).double()
    for batch in images:
        patches = _patches(batch, factor).reshape(-1, d).double()
        count += len(patches)
        total += patches.sum(0)
        outer += patches.T @ patches
    mean = total / count
    variances, vectors = torch.linalg.eigh(outer / count - torch.outer(mean, mean))
    std = variances.flip(0)[:channels].clamp(min=1e-12).sqrt()
    # Dividing by std^(1/2) leaves standard deviations of std^(1/2); the last factor makes their
    # mean square 1.
    scale = std.sqrt() * std.mean().sqrt()
    return LinearCode(mean.float(), vectors.flip(1)[:, :channels].float().contiguous(),
                      scale.float(), factor)  # fmt: skip


def _patches(images: Tensor, factor: int) -> Tensor:
    return rearrange(images, "b c (h p) (w q) -> b h w (c p q)", p=factor, q=factor)

"""A linear code of patches: the principal components that latents are anchored to.

Each patch, such as 8x8 px of RGB (192 numbers), becomes its first few principal components, each
divided by the square root of its standard deviation, so that coarse components keep most of the
energy, as in the data, and fine ones are still heard. An autoencoder's encoder is trained to
reproduce this code and its decoder to undo it, far beyond the linear inverse. A denoiser learns
such latents early: they are smooth, ordered by importance, and known before any autoencoder is
trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from shared.errors import UserError
from shared.files import whole_file

FILE = "linear_code.safetensors"


@dataclass(frozen=True)
class LinearCode:
    """Pictures or spectrograms <-> latents, patch by patch.

    Attributes:
        mean: (d,) of patches, d = c * p_h * p_w.
        basis: (d, z) orthonormal principal components, the strongest first.
        scale: (z,) what the components are divided by.
        patch: (c, p_h, p_w), what one column of latents stands for.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    patch: tuple[int, int, int]

    def encode(self, media: Tensor) -> Tensor:
        """Media (b c h w) -> latents (b z h/p_h w/p_w) of about unit variance."""
        mean, basis, scale = (each.to(media) for each in (self.mean, self.basis, self.scale))
        coefficients = (_patches(media, self.patch[1:]) - mean) @ basis / scale
        return coefficients.permute(0, 3, 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b z h w) -> the media (b c h*p_h w*p_w) nearest in least squares."""
        media = self._spread(latents)
        mean = rearrange(self.mean.to(media), "(c p q) -> c p q", c=self.patch[0], p=self.patch[1])
        return media + mean.repeat(1, *latents.shape[2:])

    def corrected(self, media: Tensor, latents: Tensor) -> Tensor:
        """The media nearest to these (b c h w) whose code is the latents (b z h/p_h w/p_w).

        What a decoder makes of latents need not have them for its code; that much of its error is
        known, and goes. With A the code, A x = z is what was measured of x, and x + A+ (z - A x)
        keeps the decoder's say in the null space of A only (Wang et al. 2022, arXiv 2212.00490,
        equation 7).
        """
        return media + self._spread(latents - self.encode(media))

    def _spread(self, latents: Tensor) -> Tensor:
        """What latents add to the mean of all media."""
        coefficients = latents.permute(0, 2, 3, 1) * self.scale.to(latents)
        c, p, q = self.patch
        patches = coefficients @ self.basis.T.to(latents)
        return rearrange(patches, "b h w (c p q) -> b c (h p) (w q)", c=c, p=p, q=q)

    def save(self, folder: Path) -> None:
        """Write the code to ``folder``."""
        tensors = {"mean": self.mean, "basis": self.basis, "scale": self.scale}
        with whole_file(folder / FILE, overwrite=True) as file:
            file.write(save(tensors, metadata={"patch": " ".join(map(str, self.patch))}))

    @classmethod
    def load(cls, folder: Path) -> LinearCode:
        """Read the code that :meth:`save` wrote.

        Raises:
            UserError: there is none.
        """
        path = folder / FILE
        if not path.is_file():
            raise UserError(f"{folder} has no {FILE}; train the autoencoder first (train vae)")
        with safe_open(str(path), framework="pt") as file:
            mean, basis, scale = (file.get_tensor(name) for name in ("mean", "basis", "scale"))
            metadata = file.metadata() or {}
        # The first version of the format knew square patches only, of what had three channels.
        factor = metadata.get("factor", "8")
        c, p, q = map(int, metadata.get("patch", f"3 {factor} {factor}").split())
        return cls(mean, basis.contiguous(), scale, (c, p, q))


def load_code(folder: Path, channels: int, patch: tuple[int, int, int]) -> LinearCode | None:
    """The linear code of a ``vae`` folder, if it has one, for latents of so many channels.

    Raises:
        UserError: it is the code of another autoencoder.
    """
    if not (folder / FILE).is_file():
        return None
    code = LinearCode.load(folder)
    if code.patch != patch or code.basis.shape[1] != channels:
        raise UserError(
            f"{folder / FILE} codes patches of {code.patch} in {code.basis.shape[1]} numbers, the "
            f"autoencoder beside it {patch} in {channels}; it belongs to another one"
        )
    return code


def fit(media: Iterable[Tensor], channels: int, patch: tuple[int, int]) -> LinearCode:
    """The code of ``channels`` latents that batches (b c h w) call for, in patches (p_h, p_w).

    Raises:
        ValueError: there is nothing to fit it on.
    """
    count, c, total, outer = 0, 0, torch.zeros(()), torch.zeros(())
    for batch in media:
        c = batch.shape[1]
        patches = _patches(batch, patch).flatten(0, 2).double()
        count += len(patches)
        total = total + patches.sum(0)
        outer = outer + patches.T @ patches
    if not count:
        raise ValueError("a linear code needs something to be fitted on")
    mean = total / count
    variances, vectors = torch.linalg.eigh(outer / count - torch.outer(mean, mean))
    std = variances.flip(0)[:channels].clamp(min=1e-12).sqrt()
    # Dividing by std^(1/2) leaves standard deviations of std^(1/2); the last factor makes their
    # mean square 1.
    scale = std.sqrt() * std.mean().sqrt()
    basis = vectors.flip(1)[:, :channels].float().contiguous()
    return LinearCode(mean.float(), basis, scale.float(), (c, *patch))


def _patches(media: Tensor, patch: tuple[int, int]) -> Tensor:
    return rearrange(media, "b c (h p) (w q) -> b h w (c p q)", p=patch[0], q=patch[1])

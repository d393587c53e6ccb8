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
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from shared.errors import UserError
from shared.files import whole_file

FILE = "linear_code.safetensors"
MOST_MISSING = 1.5  # of latents of unit variance, that a correction believes
RIDGE = 1e-3  # of a correction, as a share of the mean variance


@dataclass(frozen=True)
class LinearCode:
    """Pictures or spectrograms <-> latents, patch by patch.

    Attributes:
        mean: (d,) of patches, d = c * p_h * p_w.
        basis: (d, z) orthonormal principal components, the strongest first.
        scale: (z,) what the components are divided by.
        patch: (c, p_h, p_w), what one column of latents stands for.
        correction: (d, z, k_h, k_w), see :meth:`corrected`; None for none.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    patch: tuple[int, int, int]
    correction: Tensor | None = None

    def encode(self, media: Tensor) -> Tensor:
        """Media (b c h w) -> latents (b z h/p_h w/p_w) of about unit variance."""
        mean, basis, scale = (each.to(media) for each in (self.mean, self.basis, self.scale))
        coefficients = (_patches(media, self.patch[1:]) - mean) @ basis / scale
        return coefficients.permute(0, 3, 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b z h w) -> the media (b c h*p_h w*p_w) nearest in least squares."""
        coefficients = latents.permute(0, 2, 3, 1) * self.scale
        patches = coefficients @ self.basis.T + self.mean
        return _joined(patches.permute(0, 3, 1, 2), self.patch)

    def corrected(self, media: Tensor, latents: Tensor) -> Tensor:
        """What a decoder made of latents, corrected by what its own code tells of its error.

        The code of what was made should be the latents; how far it is from them, a column and its
        neighbours, says linearly what the media lack. Exact consistency (x + A+ (z - A x), Wang et
        al. 2022, arXiv 2212.00490, equation 7) would also carry over what is wrong with generated
        latents, patch by patch, and show the patches' edges; this was fitted with noise on them.
        """
        if self.correction is None:
            return media
        # Where latents are none that any media have, as guidance may make them, a decoder stays
        # within bounds; so must what is added.
        missing = (latents - self.encode(media)).clamp(-MOST_MISSING, MOST_MISSING)
        patches = F.conv2d(missing, self.correction.to(missing), padding="same")
        return media + _joined(patches, self.patch)

    def save(self, folder: Path) -> None:
        """Write the code to ``folder``, its matrices in half precision."""
        tensors = {"mean": self.mean, "basis": self.basis.half(), "scale": self.scale}
        if self.correction is not None:
            tensors["correction"] = self.correction.half()
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
            correction = file.get_tensor("correction") if "correction" in file.keys() else None  # noqa: SIM118
            metadata = file.metadata() or {}
        # The first version of the format knew square patches only, of what had three channels.
        factor = metadata.get("factor", "8")
        c, p, q = map(int, metadata.get("patch", f"3 {factor} {factor}").split())
        return cls(mean, basis.float().contiguous(), scale, (c, p, q), correction)


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


def fit_correction(
    code: LinearCode, made: Iterable[tuple[Tensor, Tensor, Tensor]], kernel: tuple[int, int]
) -> LinearCode:
    """The code with the correction that makes the least squared error.

    Args:
        made: batches of true media, what the decoder made of noisy latents, and those latents.
        kernel: columns of latents, by height and width and odd, that a patch's correction sees.

    Raises:
        ValueError: there is nothing to fit it on.
    """
    total, outer = torch.zeros(()), torch.zeros(())
    shape = (code.basis.shape[1], *kernel)
    for true, media, latents in made:
        missing = latents - code.encode(media)
        padding = (kernel[0] // 2, kernel[1] // 2)
        columns = F.unfold(missing, kernel, padding=padding)  # (b z*k_h*k_w h*w)
        seen = columns.mT.flatten(0, 1).double()
        lacking = _patches(true - media, code.patch[1:]).flatten(0, 2).double()
        total = total + seen.mT @ lacking
        outer = outer + seen.mT @ seen
    if not outer.ndim:
        raise ValueError("a correction needs something to be fitted on")
    ridge = RIDGE * outer.diagonal().mean() * torch.eye(len(outer), dtype=torch.float64)
    weights = torch.linalg.solve(outer + ridge, total).float()
    return replace(code, correction=weights.mT.reshape(-1, *shape).contiguous())


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


def _joined(patches: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Patches (b d h w) -> media (b c h*p_h w*p_w)."""
    c, p, q = patch
    return rearrange(patches, "b (c p q) h w -> b c (h p) (w q)", c=c, p=p, q=q)


def _patches(media: Tensor, patch: tuple[int, int]) -> Tensor:
    return rearrange(media, "b c (h p) (w q) -> b h w (c p q)", p=patch[0], q=patch[1])

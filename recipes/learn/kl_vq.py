"""KL against VQ: two ways to keep an autoencoder's latents small, at the same size.

KL (Kingma & Welling 2013; weak, as in Rombach et al. 2022, arXiv 2112.10752) adds noise and charges
for what outlasts it. VQ (van den Oord et al. 2017, arXiv 1711.00937) rounds each place's latents to
the nearest entry of a codebook.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawing import sheet
from kit import Figures, finish, fit, items_and_noise, read_options, run
from networks import PATCH, Codebook, framed, small_vae, unframed
from pictures import load_pictures

CODES, Z, KL_WEIGHT, COMMITMENT = 64, 4, 1e-3, 0.25
WIDTHS = (16, 32)  # 8 x 8 places of Z numbers


class Kl(nn.Module):
    """Reconstruction, and a little of the posterior's divergence from the standard normal."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.vae = small_vae(PATCH, WIDTHS, Z)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        posterior = self.vae.encode(images)
        error = (self.vae.decode(posterior.sample(noise)) - images).square().flatten(1).mean(1)
        return error + KL_WEIGHT * posterior.kl() / noise[0].numel()

    def code(self, images: Tensor) -> tuple[Tensor, float]:
        """Latents (b z 8 8) to decode, and the bits a picture takes: the KL by another unit."""
        posterior = self.vae.encode(images)
        return posterior.mode(), posterior.kl().mean().item() / math.log(2)


class Vq(nn.Module):
    """Reconstruction from rounded latents; they and the codebook pull at each other (Eq. 3)."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.vae = small_vae(PATCH, WIDTHS, Z)
        self.codebook = Codebook(self.vae.encode(images).mean, CODES)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        latents = self.vae.encode(images).mean
        codes, _ = self.codebook(latents)
        pull = (codes - latents.detach()).square()
        pull = pull + COMMITMENT * (codes.detach() - latents).square()
        passed = latents + (codes - latents).detach()  # rounding has no gradient: step over it
        error = (self.vae.decode(passed) - images).square()
        return error.flatten(1).mean(1) + pull.flatten(1).mean(1)

    def code(self, images: Tensor) -> tuple[Tensor, float]:
        """The same for rounded latents."""
        codes, number = self.codebook(self.vae.encode(images).mean)
        return codes, self.codebook.bits(number)


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=True)
    data = load_pictures(options.data, options.download, options.quick)
    images = framed(data.images, PATCH)
    batches = items_and_noise(images, (Z, 8, 8))
    rows, names, figures = [data.images[:10]], ["pictures"], {}
    for name, kind in (("KL", Kl), ("VQ", Vq)):
        torch.manual_seed(0)
        run_name = f"{name.lower()}-{data.name}"
        done, losses = fit(kind(images[:50]), batches, len(images), options, run_name, steps=300)
        assert isinstance(done, Kl | Vq)
        with torch.inference_mode():
            latents, bits = done.code(images[:200])
            decoded = done.vae.decode(latents)
            middle = (latents[:10] + latents[1:11]) / 2  # KL's latents may lie anywhere, VQ's not
            middle = done.codebook(middle)[0] if isinstance(done, Vq) else middle
            between = done.vae.decode(middle)
        shown = F.interpolate(latents[:10, :1] / latents.abs().max(), scale_factor=3.5)
        rows += [unframed(decoded[:10]), shown, unframed(between)]
        names += [
            f"{name}: {row}" for row in ("decoded", "a latent channel", "half way to the next")
        ]
        psnr = 10 * math.log10(4 / unframed(decoded - images[:200]).square().mean().item())
        told = {**losses, "PSNR in dB": psnr, "bits a picture": bits}
        figures |= {f"{name}: {what}": value for what, value in told.items()}
    return finish(options, sheet(rows, names), figures)


if __name__ == "__main__":
    run(main)

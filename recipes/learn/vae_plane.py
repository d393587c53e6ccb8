"""The latent plane of a variational autoencoder with two numbers a picture, drawn as a grid.

Kingma & Welling 2013 (arXiv 1312.6114). The encoder's Gaussians are pulled to the standard normal,
so every place in the plane decodes to something, and neighbours to similar things.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from drawing import PALETTE, beside, dots, finished, grey, plot
from kit import Figures, finish, fit, read_options, run
from networks import framed, small_vae, unframed
from pictures import SIZE, load_pictures
from shared.noise import seeded_noise
from shared.training import Draw
from shared.vae import AutoencoderKL

PATCH = 8  # 4 x 4 of them, which the encoder halves to one place
SIDE = 13  # pictures a row of the grid
SIGMA = 0.1  # standard deviation of a pixel around what is decoded


class Elbo(nn.Module):
    """The negative evidence lower bound in nats, up to a constant (Eq. 7): (b,)."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """patches (b 64 4 4), noise (b 2 1 1) -> (b,)"""
        posterior = self.vae.encode(images)
        error = (self.vae.decode(posterior.sample(noise)) - images).square().flatten(1).sum(1)
        return error / (2 * SIGMA**2) + posterior.kl()


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=True)
    data = load_pictures(options.data, options.download, options.quick)
    images = framed(data.images, PATCH)
    torch.manual_seed(0)
    objective = Elbo(small_vae(PATCH, (64, 64, 64), latent_channels=2))

    def batches(draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        index = torch.tensor([draw.index for draw in draws])
        return images[index], seeded_noise([draw.seed for draw in draws], (2, 1, 1))

    done, losses = fit(objective, batches, len(images), options, f"vae-{data.name}", steps=600)
    assert isinstance(done, Elbo)
    vae = done.vae

    shares = (torch.arange(SIDE) + 0.5) / SIDE
    z = torch.special.ndtri(
        shares
    )  # quantiles, so that each picture stands for as much of the data
    grid = torch.cartesian_prod(-z, z).flip(1)[:, :, None, None]  # first axis right, second up
    with torch.inference_mode():
        decoded = unframed(vae.decode(grid))
        posterior = vae.encode(images[:1000])
        error = (vae.decode(posterior.mean) - images[:1000]).square().mean().item()
    plane = Image.new("RGB", (SIDE * SIZE, SIDE * SIZE))
    for place, picture in enumerate(decoded):
        plane.paste(grey(picture), (place % SIDE * SIZE, place // SIDE * SIZE))
    panel = plot((-3.5, -3.5), (3.5, 3.5), (SIDE * SIZE - 20, SIDE * SIZE - 20))
    for label, colour in enumerate(PALETTE):
        chosen = posterior.mean[data.labels[:1000] == label].flatten(1)
        dots(panel, chosen, colour, 1.6)
    figures = {
        "mean square error": error,
        "KL in nats": posterior.kl().mean().item(),
        "variance of latents": (posterior.mean.var() + posterior.logvar.exp().mean()).item(),
    }
    title = "where pictures lie in the plane, a colour a label"
    return finish(options, beside([plane, finished(panel, title)]), {**losses, **figures})


if __name__ == "__main__":
    run(main)

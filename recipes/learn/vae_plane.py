"""The latent plane of a variational autoencoder with two numbers a picture, drawn as a grid.

Kingma & Welling 2013 (arXiv 1312.6114). The encoder's Gaussians are pulled to the standard normal,
so every place in the plane decodes to something, and neighbours to similar things.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from drawing import PALETTE, beside, dots, finished, grey, plot
from kit import Figures, finish, fit, items_and_noise, read_options, run
from networks import PlaneVae
from pictures import SIZE, load_pictures

SIDE = 13  # pictures a row of the grid
SIGMA = 0.3  # standard deviation of a pixel around what is decoded


class Elbo(nn.Module):
    """The negative evidence lower bound in nats, up to a constant (Eq. 7): (b,)."""

    def __init__(self, vae: PlaneVae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """pictures (b 1 28 28), noise (b 2 1 1) -> (b,)"""
        posterior = self.vae.encode(images)
        error = (self.vae.decode(posterior.sample(noise)) - images).square().flatten(1).sum(1)
        return error / (2 * SIGMA**2) + posterior.kl()


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=True)
    data = load_pictures(options.data, options.download, options.quick)
    images, some, labels = data.images, data.images[:1000], data.labels[:1000]
    torch.manual_seed(0)
    done, losses = fit(
        Elbo(PlaneVae()), items_and_noise(images, (2, 1, 1)), len(images), options,
        f"plane-{data.name}", steps=2000, batch_size=64, quick_steps=200,
    )  # fmt: skip
    assert isinstance(done, Elbo)
    vae = done.vae

    # Quantiles, so that each picture stands for as much of the data.
    z = torch.special.ndtri((torch.arange(SIDE) + 0.5) / SIDE)
    grid = torch.cartesian_prod(-z, z).flip(1)[:, :, None, None]  # first axis right, second up
    with torch.inference_mode():
        decoded, posterior = vae.decode(grid), vae.encode(some)
        error = (vae.decode(posterior.mean) - some).square().mean().item()
    places = posterior.mean.flatten(1)
    plane = Image.new("RGB", (SIDE * SIZE, SIDE * SIZE))
    for place, picture in enumerate(decoded):
        plane.paste(grey(picture), (place % SIDE * SIZE, place // SIDE * SIZE))
    panel = plot((-3.5, -3.5), (3.5, 3.5), (SIDE * SIZE - 20, SIDE * SIZE - 20))
    for label, colour in enumerate(PALETTE):
        dots(panel, places[labels == label], colour, 1.6)
    narrow, wide = torch.linalg.eigvalsh(places.T.cov()).tolist()
    nearest = torch.cdist(places, places).fill_diagonal_(torch.inf).argmin(1)
    figures = {
        "mean square error": error,
        "KL in nats": posterior.kl().mean().item(),
        "variance of places along their longer axis": wide,
        "variance of places along their shorter axis": narrow,
        "share of pictures whose nearest has their label": (labels[nearest] == labels)
        .float().mean().item(),
    }  # fmt: skip
    title = "where pictures lie in the plane, a colour a label"
    picture = beside([plane, finished(panel, title)])
    return finish(options, picture, {**losses, **figures}, colours=128)


if __name__ == "__main__":
    run(main)

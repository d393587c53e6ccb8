"""A score network and Langevin dynamics: which way is more likely, and walking there with noise.

Song & Ermon 2019 (arXiv 1907.05600). The score is the gradient of the log density of the noised
data; by Tweedie's formula it is ``(denoised - x) / sigma^2``, so a denoiser is a score network.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from drawing import BLUE, GREY, ORANGE, Plot, beside, dots, finished, line, plot
from kit import DenoiserObjective, Figures, finish, fit, noisy_batches, read_options, run
from networks import PointNetwork
from points import energy_distance, moons
from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.guidance import plain
from shared.noise import NoiseStream, seeded_noise
from shared.parameterization import edm
from shared.samplers import sample_annealed_langevin
from shared.sigma_grids import exponential

SIGMA_MIN, SIGMA_MAX, EDGE = 0.03, 5.0, 3.2
SHAPE = (2, 1, 1)


def score(denoise: DenoiseFn, x: Tensor, sigma: float) -> Tensor:
    """The gradient of the log density of the data with noise of ``sigma``, (b 2 1 1)."""
    return (denoise(x, x.new_full((len(x),), sigma)) - x) / sigma**2


def field(denoise: DenoiseFn, x0: Tensor, sigma: float) -> Plot:
    """Noised data, and from each point sigma^2 times the score there: the way to denoised."""
    panel = plot((-EDGE, -EDGE), (EDGE, EDGE))
    dots(panel, x0.flatten(1), GREY)
    x = x0[:150] + sigma * seeded_noise(range(150), SHAPE)
    with torch.inference_mode():
        ends = x + sigma**2 * score(denoise, x, sigma)
    for start, end in zip(x.flatten(1), ends.flatten(1), strict=True):
        line(panel, torch.stack([start, end]), BLUE, 0.7)
    dots(panel, x.flatten(1), BLUE, 1.5)
    return panel


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=False)
    x0 = moons(4000, seed=0)
    torch.manual_seed(0)
    objective = DenoiserObjective(Denoiser(PointNetwork(), edm(sigma_data=1.0)))
    batches = noisy_batches(x0, exponential(200, SIGMA_MIN, SIGMA_MAX)[:-1])
    done, losses = fit(
        objective, batches, len(x0), options, "score", steps=3000, batch_size=128, quick_steps=150
    )
    assert isinstance(done, DenoiserObjective)
    denoise = plain(done.denoiser.requires_grad_(False), Conditioning())

    sigmas = exponential(12 if options.quick else 30, SIGMA_MIN, SIGMA_MAX)
    seeds = range(options.seed, options.seed + (100 if options.quick else 600))
    start = seeded_noise(seeds, SHAPE) * SIGMA_MAX
    with torch.inference_mode():
        noise = NoiseStream(seeds, SHAPE)
        x = sample_annealed_langevin(denoise, start, sigmas, noise=noise, steps_per_level=10)
    chains = plot((-EDGE, -EDGE), (EDGE, EDGE))
    dots(chains, x0[:600].flatten(1), GREY)
    dots(chains, x.flatten(1), ORANGE)
    fresh = moons(1000, seed=1)
    panels = [
        finished(field(denoise, x0[:600], s), f"score at sigma {s:g}") for s in (1.0, 0.4, 0.1)
    ]
    picture = beside([*panels, finished(chains, "Langevin dynamics (orange), data (grey)")])
    distances = {
        "energy distance of samples to data": energy_distance(x, fresh),
        "of noise of the data's size": energy_distance(start / SIGMA_MAX, fresh),
    }
    return finish(options, picture, {**losses, **distances})


if __name__ == "__main__":
    run(main)

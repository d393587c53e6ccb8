"""A Schrödinger bridge between two data sets: the least travel that turns one into the other.

Diffusion Schrödinger bridge matching (DSBM-IMF, Shi et al. 2023, arXiv 2303.16852, Algorithm 1).
Between the ends of a pair lies a Brownian bridge. A network learns, from its state alone, where it
ends; following that pairs the two sets anew, and with each round the paths are straighter.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from drawing import beside, journeys
from kit import DenoiserObjective, Figures, Options, finish, fit, read_options, run
from networks import PointNetwork
from points import energy_distance, moons, ring, travel
from shared.bridges import bridge_kind, bridge_noise, walk_bridge
from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.guidance import plain
from shared.noise import NoiseStream, seeded_noise
from shared.training import Draw, MakeBatch

S, APART, EDGE, SHAPE = 0.7, 2.0, 3.0, (2, 1, 1)


def bridges(start: Tensor, end: Tensor) -> MakeBatch:
    """States of Brownian bridges between pairs, for the denoiser's loss: x0 is where they end."""

    def make(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        index = torch.tensor([draw.index for draw in draws])
        drawn = seeded_noise([draw.seed for draw in draws], (3, 1, 1))
        t = torch.special.ndtr(drawn[:, 0, 0, 0]).clamp(min=1e-3)  # even in 0 .. 1
        return end[index], *bridge_noise(start[index], end[index], t, drawn[:, 1:], S)

    return make


def rounds(a: Tensor, b: Tensor, options: Options) -> list[Tensor]:
    """The paths from a to b after each round of matching."""
    count, walk_steps = (2, 8) if options.quick else (5, 40)
    torch.manual_seed(0)
    kind = bridge_kind(S, APART)
    forth, back = (DenoiserObjective(Denoiser(PointNetwork(64), kind)) for _ in range(2))
    pairs, paths = (a, b), []
    for number in range(count):
        for way, name in ((forth, "forth"), (back, "back")):
            here, there = pairs if way is forth else pairs[::-1]
            done, _ = fit(
                way, bridges(here, there), len(a), options, f"bridge-{name}-{number}",
                steps=400, batch_size=128, quick_steps=100,
            )  # fmt: skip
            way.load_state_dict(done.state_dict())
            seed = options.seed + number
            noise = NoiseStream(range(seed, seed + len(here)), SHAPE)
            with torch.inference_mode():
                denoise = plain(way.denoiser, Conditioning())
                path = walk_bridge(denoise, a if way is forth else b, S, walk_steps, noise)
            pairs = (a, path[-1]) if way is forth else (path[-1], b)
            paths += [path] if way is forth else []
    return paths


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=False)
    count = 300 if options.quick else 2000
    a, b, fresh = ring(count, seed=0), moons(count, seed=1), moons(1000, seed=2)
    paths = rounds(a, b, options)
    panels = [
        journeys(paths[n].flatten(2), EDGE, f"from orange to blue after round {n + 1}")
        for n in (0, len(paths) - 1)
    ]
    figures = {
        "energy distance of the two sets": energy_distance(a, fresh),
        "of the bridge's ends to their set": energy_distance(paths[-1][-1], fresh),
        "squared distance of a pair drawn by lot": travel(a, b),
        "after the first round": travel(a, paths[0][-1]),
        "after the last round": travel(a, paths[-1][-1]),
    }
    return finish(options, beside(panels), figures)


if __name__ == "__main__":
    run(main)

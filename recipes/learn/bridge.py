"""A Schrödinger bridge between two data sets: the least travel that turns one into the other.

Diffusion Schrödinger bridge matching (DSBM-IMF, Shi et al. 2023, arXiv 2303.16852, Algorithm 1).
Between the ends of a pair lies a Brownian bridge. A network learns, from its state alone, where it
ends; following that pairs the two sets anew, and with each round the paths are straighter.

Seen from its end, Brownian motion of variance s^2 a unit of time is noise of ``sigma = s sqrt(t)``,
t the time that is left. So what is learnt is a denoiser, and DDPM's sampler walks the bridge: only
that it starts from data, at ``sigma = s``, and not from noise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from drawing import BLUE, GREY, ORANGE, beside, dots, finished, line, plot
from kit import DenoiserObjective, Figures, Options, finish, fit, read_options, run
from networks import PointNetwork
from points import energy_distance, moons, ring
from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.guidance import plain
from shared.noise import NoiseStream, seeded_noise
from shared.parameterization import Scalings
from shared.samplers import sample_ddpm
from shared.training import Draw, MakeBatch

S, EDGE, SHAPE = 0.7, 3.0, (2, 1, 1)
TYPICAL = 2.0  # about how far the ends of a pair are apart along an axis


def bridge_kind(sigma: Tensor) -> Scalings:
    """The network says how far the end is, in units of how far it usually is at that time."""
    t = (sigma / S).square()
    far = (TYPICAL**2 * t.square() + S**2 * t * (1 - t).clamp(min=0)).sqrt()
    return Scalings(torch.ones_like(t), far, torch.ones_like(t), sigma / S)


def bridges(start: Tensor, end: Tensor) -> MakeBatch:
    """States of Brownian bridges between pairs, for the denoiser's loss: x0 is where they end."""

    def make(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        index = torch.tensor([draw.index for draw in draws])
        drawn = seeded_noise([draw.seed for draw in draws], (3, 1, 1))
        t = torch.special.ndtr(drawn[:, :1]).clamp(min=1e-3)  # even in 0 .. 1
        x0, apart = end[index], start[index] - end[index]
        offset = t * apart + S * (t * (1 - t)).sqrt() * drawn[:, 1:]
        sigma = S * t.sqrt()
        return x0, offset / sigma, sigma.flatten()

    return make


def walk(denoiser: Denoiser, start: Tensor, seed: int, steps: int) -> Tensor:
    """Follow a bridge from ``start``: all states, (steps + 1, b 2 1 1), the last its end."""
    states: list[Tensor] = []
    sigmas = S * torch.linspace(1, 0, steps + 1).sqrt()
    noise = NoiseStream(range(seed, seed + len(start)), SHAPE)
    with torch.inference_mode():
        denoise = plain(denoiser, Conditioning())
        last = sample_ddpm(
            denoise, start, sigmas, noise=noise, callback=lambda step, x, *_: states.append(x)
        )
    return torch.stack([*states, last])


def rounds(a: Tensor, b: Tensor, options: Options) -> list[Tensor]:
    """The paths from a to b after each round of matching."""
    count, walk_steps = (2, 8) if options.quick else (5, 40)
    torch.manual_seed(0)
    forth, back = (DenoiserObjective(Denoiser(PointNetwork(64), bridge_kind)) for _ in range(2))
    pairs, paths = (a, b), []
    for number in range(count):
        for way, name in ((forth, "forth"), (back, "back")):
            here, there = pairs if way is forth else pairs[::-1]
            done, _ = fit(
                way, bridges(here, there), len(a), options, f"bridge-{name}-{number}",
                steps=400, batch_size=128, quick_steps=100,
            )  # fmt: skip
            way.load_state_dict(done.state_dict())
            source = a if way is forth else b
            path = walk(way.denoiser, source, options.seed + number, walk_steps)
            pairs = (a, path[-1]) if way is forth else (path[-1], b)
            paths += [path] if way is forth else []
    return paths


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=False)
    count = 300 if options.quick else 2000
    a, b = ring(count, seed=0), moons(count, seed=1)
    paths = rounds(a, b, options)
    panels = []
    for number in (0, len(paths) - 1):
        panel = plot((-EDGE, -EDGE), (EDGE, EDGE), (300, 300))
        for way in paths[number].flatten(2).transpose(0, 1)[:50]:
            line(panel, way, GREY, 0.7)
        dots(panel, paths[number][0, :400].flatten(1), ORANGE)
        dots(panel, paths[number][-1, :400].flatten(1), BLUE)
        panels.append(finished(panel, f"from orange to blue after round {number + 1}"))
    fresh = moons(1000, seed=2)
    figures = {
        "energy distance of the two sets": energy_distance(a, fresh),
        "of the bridge's ends to their set": energy_distance(paths[-1][-1], fresh),
        "squared distance of a pair drawn by lot": travel(a, b),
        "after the first round": travel(a, paths[0][-1]),
        "after the last round": travel(a, paths[-1][-1]),
    }
    return finish(options, beside(panels), figures)


def travel(start: Tensor, end: Tensor) -> float:
    """The mean squared distance between the ends of pairs."""
    return (end - start).square().flatten(1).sum(1).mean().item()


if __name__ == "__main__":
    run(main)

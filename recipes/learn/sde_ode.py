"""SDE against ODE: two ways back from the same noise, with the same distribution at every time.

Song et al. 2021 (arXiv 2011.13456): the reverse SDE (Eq. 6) draws fresh noise all the way, the
probability-flow ODE (Eq. 13) none. The data are two heaps of numbers, whose denoiser is known
exactly: a ``DenoiseFn`` need not be a network.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from drawing import BLUE, ORANGE, PALETTE, Colour, beside, finished, line, plot, shade
from kit import Figures, finish, read_options, run
from points import Heaps
from shared.noise import NoiseStream, seeded_noise
from shared.processes import simulate_reverse, variance_preserving

DATA = Heaps(means=torch.tensor([-1.0, 0.8]), shares=torch.tensor([0.4, 0.6]), width=0.15)
PROCESS = variance_preserving()
SHAPE, END, EDGE = (1, 1, 1), 1e-3, 2.6


def paths(seeds: Sequence[int], starts: Sequence[int], steps: int, stochasticity: float) -> Tensor:
    """Paths of the state from t = 1 to 0, (steps + 1, b): ``starts`` seed the noise begun from,
    ``seeds`` the fresh noise on the way."""
    times = torch.linspace(1, END, steps + 1, dtype=torch.float64)
    stream = NoiseStream(seeds, SHAPE)
    path = [seeded_noise(starts, SHAPE)]
    for step, pair in enumerate(pairwise(times)):
        path.append(
            simulate_reverse(
                PROCESS, DATA.denoise, path[-1], torch.stack(pair),
                lambda _, step=step: stream(step), stochasticity=stochasticity,
            )
        )  # fmt: skip
    return torch.stack(path).flatten(1)


def panel(ways: Tensor, colours: Sequence[Colour], title: str):
    """Paths (steps + 1, b) over the density of the state at each time."""
    on = plot((0, -EDGE), (1, EDGE), (310, 220))
    times, states = torch.linspace(1, END, 200).double(), torch.linspace(EDGE, -EDGE, 160)
    levels = zip(PROCESS.scale(times).float(), PROCESS.sigma(times).float(), strict=True)
    density = [
        DATA.log_weights(states / a, s.expand(160)).logsumexp(1).exp() / a for a, s in levels
    ]
    shade(on, (torch.stack(density, 1) / 0.9).sqrt())
    across = torch.linspace(0, 1, len(ways))
    for way, colour in zip(ways.T, colours, strict=True):
        line(on, torch.stack([across, way], 1), colour)
    return finished(on, title)


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=False)
    steps, seed = (50 if options.quick else 200), options.seed
    many = range(seed, seed + (200 if options.quick else 1000))
    ode, sde = (paths(many, many, steps, stochasticity) for stochasticity in (0.0, 1.0))
    one = paths(range(seed, seed + 6), [seed] * 6, steps, 1.0)
    both, colours = torch.cat([one, ode[:, :1]], 1), [ORANGE] * 6 + [BLUE]
    panels = [
        panel(ode[:, :10], PALETTE, "ODE: ten seeds, noise (left) to data (right)"),
        panel(sde[:, :10], PALETTE, "SDE: the same ten starts"),
        panel(both, colours, "one start: ODE (blue), SDE six times"),
    ]
    mean, deviation = DATA.moments()
    figures = {"mean of the data": mean, "standard deviation of the data": deviation}
    for name, ends in (("ODE", ode[-1]), ("SDE", sde[-1])):
        figures |= {f"{name}: mean": ends.mean().item(), f"{name}: deviation": ends.std().item()}
    figures["one start: spread of the SDE's ends"] = one[-1].std().item()
    return finish(options, beside(panels), figures)


if __name__ == "__main__":
    run(main)

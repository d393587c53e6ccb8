"""DDPM against DDIM: one network, 10 to 1000 steps, with fresh noise in each step or without.

Song et al. 2020 (arXiv 2010.02502). DDIM at 10 steps draws what it draws at 1000; DDPM needs most
of its steps, and draws something else from the same noise each time their number changes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm import SHAPE, labelled, trained_denoiser
from drawing import sheet
from kit import Figures, finish, read_options, run
from pictures import load_pictures
from shared.guidance import plain
from shared.noise import NoiseStream, seeded_noise
from shared.samplers import sample_ddim
from shared.schedules import trained

STEPS = (10, 20, 50, 1000)
LABELS = (0, 2, 3, 4, 5, 8)


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=True)
    data = load_pictures(options.data, options.download, options.quick)
    denoiser, _ = trained_denoiser(data, options)
    assert denoiser.schedule is not None
    seeds = range(options.seed, options.seed + len(LABELS))
    start, noise = seeded_noise(seeds, SHAPE), NoiseStream(seeds, SHAPE)
    denoise = plain(denoiser, labelled(LABELS))
    steps = (2, 4, 8, 30) if options.quick else STEPS

    rows: dict[str, list[Tensor]] = {"DDIM": [], "DDPM": []}
    with torch.inference_mode():
        for n in steps:
            sigmas = trained(n, denoiser.schedule)
            for name, eta in (("DDIM", 0.0), ("DDPM", 1.0)):  # DDPM is DDIM with eta 1
                x = start * sigmas[0]
                rows[name].append(sample_ddim(denoise, x, sigmas, noise=noise, eta=eta))
    labels = [f"{name}, {n} steps" for name in rows for n in steps]
    picture = sheet([*rows["DDIM"], *rows["DDPM"]], labels)
    figures = {
        f"{name} {n}: distance to {name} {steps[-1]}": (few - many[-1]).square().mean().item()
        ** 0.5
        for name, many in rows.items()
        for n, few in zip(steps[:-1], many, strict=False)
    }
    return finish(options, picture, figures)


if __name__ == "__main__":
    run(main)

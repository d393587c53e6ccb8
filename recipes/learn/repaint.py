"""RePaint step by step: the known half is put back in every step, and the walk goes back and forth.

Lugmayr et al. 2022 (arXiv 2201.09865). Replacing the known half alone leaves the other half no time
to fit it; going back to more noise and down again does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm import SHAPE, labelled, trained_denoiser
from drawing import BLUE, below, finished, line, plot, sheet
from kit import Figures, finish, read_options, run
from networks import NO_LABEL
from pictures import load_pictures
from shared.guidance import plain, repaint_path, sample_repaint
from shared.noise import NoiseStream, seeded_noise
from shared.schedules import trained

ITEMS = 8


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=True)
    data = load_pictures(options.data, options.download, options.quick)
    denoiser, _ = trained_denoiser(data, options)
    assert denoiser.schedule is not None
    known = data.images[:ITEMS]
    mask = torch.zeros(SHAPE)
    mask[:, : SHAPE[1] // 2] = 1  # the upper half is known
    steps, length, count = (6, 2, 2) if options.quick else (50, 8, 5)
    sigmas = trained(steps, denoiser.schedule)
    path = repaint_path(steps, length, count)
    seeds = range(options.seed, options.seed + ITEMS)
    start, noise = seeded_noise(seeds, SHAPE) * sigmas[0], NoiseStream(seeds, SHAPE)
    denoise = plain(denoiser, labelled([NO_LABEL] * ITEMS))  # nobody tells what it is

    moves = [round(share * (len(path) - 2)) for share in (0, 0.1, 0.2, 0.4, 0.6, 0.75, 0.9, 1)]
    film: dict[int, list[Tensor]] = {}

    def watch(move: int, x: Tensor, sigma: float, denoised: Tensor) -> None:
        film[move] = [x[2:3] / (1 + sigma**2) ** 0.5, denoised[2:3]]  # one of the pictures

    with torch.inference_mode():
        once, often = (
            sample_repaint(
                denoise, start, sigmas, noise=noise, known=known, mask=mask,
                jump_length=length, jump_count=jumps, callback=watch,
            )
            for jumps in (1, count)
        )  # fmt: skip
    shown = [film[min(film, key=lambda made: abs(made - move))] for move in moves]
    films = [torch.cat(row) for row in zip(*shown, strict=True)]
    walk = plot((0, 0), (len(path), steps), (520, 80))
    heights = torch.tensor([float(steps - place) for place in path])
    line(walk, torch.stack([torch.arange(len(path)), heights], 1), BLUE)
    masked = torch.where(mask.bool(), known, torch.tensor(-0.3))
    labels = ["RePaint's state", "denoised", "known", "replaced only", "RePaint", "original"]
    rows = sheet([*films, masked, once, often, known], labels)
    picture = below([finished(walk, f"noise level in {len(path) - 1} moves"), rows])
    missing = (1 - mask).bool().expand_as(known)
    figures = {
        "known half, largest error": ((often - known) * mask).abs().max().item(),
        "other half, error if only replaced": (once - known)[missing].square().mean().item(),
        "other half, error of RePaint": (often - known)[missing].square().mean().item(),
    }
    return finish(options, picture, figures)


if __name__ == "__main__":
    run(main)

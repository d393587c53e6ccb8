"""DDPM: learn to remove noise from small pictures, then make new ones from noise alone.

Ho et al. 2020 (arXiv 2006.11239): Algorithm 1 trains, Algorithm 2 samples. The other recipes on
pictures take the network that is trained here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from drawing import sheet
from kit import (
    DenoiserObjective,
    Figures,
    Options,
    finish,
    fit,
    noisy_batches,
    read_options,
    run,
)
from networks import NO_LABEL, PatchUNet, label_context
from pictures import SIZE, Pictures, load_pictures
from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.guidance import plain
from shared.noise import NoiseStream, seeded_noise
from shared.parameterization import v
from shared.samplers import sample_ddpm
from shared.schedules import NoiseSchedule, linear_betas, trained

SHAPE = (1, SIZE, SIZE)
SAMPLES = 6
LABEL_DROPOUT = 0.15  # share of samples without their label: what guidance compares with


def trained_denoiser(data: Pictures, options: Options) -> tuple[Denoiser, Figures]:
    """The denoiser of DDPM's 1000 levels, told labels most of the time; its losses."""
    schedule = NoiseSchedule.from_betas(linear_betas())

    def context(index: Tensor, choice: Tensor) -> Tensor:
        return label_context(torch.where(choice < LABEL_DROPOUT, NO_LABEL, data.labels[index]))

    # L_simple (Eq. 14) in v, which small networks learn sooner; put eps here for the paper's own.
    torch.manual_seed(0)
    objective = DenoiserObjective(Denoiser(PatchUNet(), v(schedule), schedule))
    batches = noisy_batches(data.images, schedule.sigmas, context)
    name = f"ddpm-{data.name}"
    done, losses = fit(objective, batches, len(data.images), options, name, steps=600)
    assert isinstance(done, DenoiserObjective)
    return done.denoiser.eval().requires_grad_(False), losses


def labelled(labels: Sequence[int]) -> Conditioning:
    """What the network is told about each sample."""
    return Conditioning(context=label_context(torch.tensor(labels)))


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=True)
    data = load_pictures(options.data, options.download, options.quick)
    denoiser, losses = trained_denoiser(data, options)
    assert denoiser.schedule is not None

    sigmas = trained(10 if options.quick else 250, denoiser.schedule)
    seeds = range(options.seed, options.seed + SAMPLES)
    shown = [round(share * (len(sigmas) - 2)) for share in (0, 0.5, 0.65, 0.8)]
    moments: list[Tensor] = []

    def watch(step: int, x: Tensor, sigma: float, denoised: Tensor) -> None:
        if step in shown:  # the state as the paper has it, of unit variance; and what is seen in it
            moments.extend([x / (1 + sigma**2) ** 0.5, denoised])

    with torch.inference_mode():
        denoise = plain(denoiser, labelled(range(SAMPLES)))
        x = seeded_noise(seeds, SHAPE) * sigmas[0]
        x0 = sample_ddpm(denoise, x, sigmas, noise=NoiseStream(seeds, SHAPE), callback=watch)
    levels = [f"sigma {sigmas[step]:.1f}" for step in shown]
    labels = [label for level in levels for label in (level, "   denoised")]
    picture = sheet([*moments, x0, data.images[:SAMPLES]], [*labels, "samples", "data"])
    spread = {"standard deviation of samples": x0.std().item(), "of data": data.images.std().item()}
    return finish(options, picture, {**losses, **spread})


if __name__ == "__main__":
    run(main)

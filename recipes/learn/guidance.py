"""Classifier guidance against classifier-free guidance: two ways to get what the label says.

Dhariwal & Nichol 2021 (arXiv 2105.05233) add the gradient of a classifier that was trained on noisy
pictures to a network that knows no labels. Ho & Salimans 2022 (arXiv 2207.12598) do without it: one
network, told the label or not, and a step further from "not" to "told".
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm import SHAPE, labelled, trained_denoiser
from drawing import sheet
from kit import Figures, finish, fit, noisy_batches, read_options, run
from networks import NO_LABEL, NoisyClassifier
from pictures import CLASSES, Pictures, load_pictures
from shared.guidance import classifier, classifier_free, label_log_prob, plain
from shared.noise import seeded_noise
from shared.parameterization import Parameterization, v
from shared.samplers import sample_dpmpp_2m
from shared.schedules import trained

SCALES = (1.0, 2.0, 4.0)


class ClassifierObjective(nn.Module):
    """-log p(label | x; sigma): labels come as (b 1 1), where a denoiser's context would."""

    def __init__(self, network: nn.Module, parameterization: Parameterization) -> None:
        super().__init__()
        self.network, self.parameterization = network, parameterization

    def forward(self, x0: Tensor, noise: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        scalings, level = self.parameterization(sigma), sigma[:, None, None, None]
        x = (x0 + level * noise) * scalings.c_in[:, None, None, None]
        logits = self.network(x, scalings.c_noise)
        return F.cross_entropy(logits, labels.flatten(), reduction="none")


def nearest_labels(x: Tensor, data: Pictures) -> Tensor:
    """The label of the nearest training picture, (b,): a judge that guided nothing."""
    return data.labels[torch.cdist(x.flatten(1), data.images.flatten(1)).argmin(1)]


def main(argv: Sequence[str] | None = None) -> Figures:
    options = read_options(__file__, __doc__, argv, data=True)
    data = load_pictures(options.data, options.download, options.quick)
    denoiser, _ = trained_denoiser(data, options)
    assert denoiser.schedule is not None
    kind = v(denoiser.schedule)
    torch.manual_seed(0)
    objective = ClassifierObjective(NoisyClassifier(), kind)
    batches = noisy_batches(
        data.images, denoiser.schedule.sigmas, lambda index, _: data.labels[index][:, None, None]
    )
    name = f"classifier-{data.name}"
    done, losses = fit(
        objective, batches, len(data.images), options, name, steps=300, quick_steps=40
    )
    assert isinstance(done, ClassifierObjective)

    labels = torch.arange(CLASSES)
    cond, uncond = labelled(labels.tolist()), labelled([NO_LABEL] * CLASSES)
    log_prob = label_log_prob(done.network.requires_grad_(False), labels, kind)
    free = plain(denoiser, uncond)
    ways = {"no guidance": free}
    ways |= {f"classifier {s:g}": classifier(free, log_prob, scale=s) for s in SCALES}
    ways |= {f"free {s:g}": classifier_free(denoiser, cond, uncond, scale=s) for s in SCALES}
    sigmas = trained(4 if options.quick else 25, denoiser.schedule)
    start = seeded_noise(range(options.seed, options.seed + CLASSES), SHAPE) * sigmas[0]
    with torch.no_grad():
        rows = {name: sample_dpmpp_2m(denoise, start, sigmas) for name, denoise in ways.items()}
    picture = sheet(list(rows.values()), list(rows), [str(label) for label in labels.tolist()])
    right = {
        f"{name}: share with the label asked for": (nearest_labels(x, data) == labels)
        .float()
        .mean()
        for name, x in rows.items()
    }
    return finish(options, picture, losses | {name: share.item() for name, share in right.items()})


if __name__ == "__main__":
    run(main)

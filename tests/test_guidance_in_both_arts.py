"""Every guidance in the pipelines of both arts: it acts, and turned off it changes nothing.

That each is right is proven on exact answers elsewhere; here it goes with prompts, samplers and the
network of a tiny model, for a picture and for a clip of two windows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from test_autoguidance import weaken
from tiny_music import play_levels
from torch import Tensor, nn

from audiodiff import MusicPipeline
from imagediff import ImagePipeline
from shared.denoiser import DenoiseFn
from shared.generation import sample_latents
from shared.guidance import (
    Guidance,
    Loss,
    Step,
    autoguidance,
    average_pool,
    classifier,
    clipped_step,
    compose,
    consistent,
    ddim_step,
    ddpm_step,
    gradient,
    keep,
    known_region,
    label_log_prob,
    normalised_step,
    posterior,
    repaint_path,
    sample_path,
    sample_repaint,
    score_step,
    step_range,
    time_travel_path,
)
from shared.noise import NoiseFn
from shared.parameterization import eps
from shared.samplers import Callback
from shared.schedules import NoiseSchedule, make_sigmas
from shared.settings import GuidanceSettings

STEPS, SEED, LONG = 4, 3, 4.4  # seconds, of two windows
# What a network that never learned makes of a move from far up is anyone's guess.
LATE = (0.0, 10.0)


@dataclass(frozen=True)
class Art:
    """A pipeline as far as guidance sees it.

    Attributes:
        make: options of a pipeline's call -> its result.
        bound: sampler -> the denoiser with its prompt, settings and the shape of latents.
        folder: of the model.
    """

    make: Callable[..., Any]
    bound: Callable[[str], tuple[DenoiseFn, Any, tuple[int, int, int]]]
    folder: Path
    noise_schedule: NoiseSchedule
    kept: dict[str, Tensor] = field(default_factory=dict)

    @property
    def sigmas(self) -> Tensor:
        return make_sigmas("karras", STEPS, self.noise_schedule)

    def latents(self, *guidances: Guidance, sampler: str = "ddim", **options: Any) -> Tensor:
        """Those of a sample: samplers of first order end in the last estimate."""
        seen: list[Tensor] = []

        def callback(step: int, x: Tensor, sigma: float, denoised: Tensor) -> None:
            seen.append(denoised)

        self.make(guidances=guidances, sampler=sampler, callback=callback, **options)
        assert len(seen) == STEPS
        return seen[-1]

    def plain(self, sampler: str = "ddim") -> Tensor:
        """Those without any guidance but the prompt's, made once."""
        if sampler not in self.kept:
            self.kept[sampler] = self.latents(sampler=sampler)
        return self.kept[sampler]


def image_art(folder: Path) -> Art:
    pipeline = ImagePipeline.load(folder, device="cpu", dtype="float32")

    def bound(sampler: str) -> tuple[DenoiseFn, Any, tuple[int, int, int]]:
        plan = pipeline.plan("a red apple", seed=SEED, steps=STEPS, sampler=sampler)
        return pipeline.denoise_fn(plan), plan[0], pipeline.latent_shape(plan[0].size)

    make = partial(pipeline, "a red apple", seed=SEED, steps=STEPS)
    return Art(make, bound, folder, pipeline.noise_schedule)


def music_art(folder: Path) -> Art:
    pipeline = MusicPipeline.load(folder, device="cpu", dtype="float32")
    pipeline.codec.vocoder = play_levels  # what it sounds like is of no account here
    frames = pipeline.latent_frames(LONG)
    assert frames > pipeline.window

    def bound(sampler: str) -> tuple[DenoiseFn, Any, tuple[int, int, int]]:
        plan = pipeline.plan("a waltz", seconds=LONG, seed=SEED, steps=STEPS, sampler=sampler)
        return pipeline.denoise_fn(plan, frames), plan[0], pipeline.latent_shape(frames)

    make = partial(pipeline, "a waltz", seconds=LONG, seed=SEED, steps=STEPS)
    return Art(make, bound, folder, pipeline.noise_schedule)


ARTS = {"image": ("tiny_model", image_art), "music": ("tiny_music_model", music_art)}


@pytest.fixture(scope="module", params=ARTS)
def art(request: pytest.FixtureRequest) -> Art:
    folder, make = ARTS[request.param]
    return make(request.getfixturevalue(folder))


# By prompts, as settings say it


@pytest.mark.parametrize(
    "how",
    [
        GuidanceSettings(interval=(0.25, 0.75)),
        GuidanceSettings(rescale=0.7),
        GuidanceSettings(cfg_pp=0.6),
        GuidanceSettings(pag_scale=2.0),
    ],
    ids=["interval", "rescale", "cfg++", "pag"],
)
def test_settings_of_guidance_act(art: Art, how: GuidanceSettings) -> None:
    made, plain = art.latents(guidance=how), art.plain()
    assert made.isfinite().all() and (made - plain).abs().max() > 1e-3
    assert torch.equal(art.latents(guidance=GuidanceSettings()), plain)


def test_a_worse_model_guides(art: Art, tmp_path: Path) -> None:
    weak = weaken(art.folder, tmp_path / "weak")
    how = partial(GuidanceSettings, autoguidance=str(weak))
    plain = art.latents(guidance_scale=1.0)
    made = art.latents(guidance_scale=1.0, guidance=how(autoguidance_scale=2.0))
    assert (made - plain).abs().max() > 1e-3
    assert torch.equal(art.latents(guidance_scale=1, guidance=how(autoguidance_scale=1)), plain)


# By a classifier that knows noise


class Classifier(nn.Module):
    """Logits of two labels, (c_in x (b c h w), c_noise (b,)) -> (b 2), of random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(4, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        features = torch.tanh(self.first(x)).mean((2, 3))
        return self.last(features * torch.cos(c_noise / 1000)[:, None])


def test_a_noise_aware_classifier_says_which_label(art: Art) -> None:
    network, kind = Classifier().requires_grad_(False), eps(art.noise_schedule)
    said = []
    for label in (0, 1):
        log_prob = label_log_prob(network, torch.tensor([label]), kind)
        made = art.latents(partial(classifier, log_prob=log_prob, scale=30.0))
        said.append(log_prob(made, torch.tensor([0.1])).item())
        plain = art.plain()
        assert said[-1] > log_prob(plain, torch.tensor([0.1])).item() + 0.01
        assert torch.equal(art.latents(partial(classifier, log_prob=log_prob, scale=0)), plain)


# By gradients of losses


def brightness(denoised: Tensor) -> Tensor:
    return (denoised - 0.5).square().mean((1, 2, 3))


def evenness(denoised: Tensor) -> Tensor:
    return denoised.diff(dim=-1).square().mean((1, 2, 3))


FORMS: dict[str, tuple[str, Callable[[Tensor], Step]]] = {
    "paper's DDPM": ("ddpm", lambda sigmas: ddpm_step(2.0, sigmas)),
    "paper's DDIM": ("ddim", lambda sigmas: ddim_step(1500.0, sigmas)),  # the last step has none
    "score": ("ddim", lambda sigmas: score_step(20.0)),
    "normalised": ("ddim", lambda sigmas: normalised_step(0.3)),
    "clipped": ("ddim", lambda sigmas: clipped_step(score_step(200.0), 0.3)),
}


@pytest.mark.parametrize("form", FORMS)
def test_guidance_gradients_lower_their_loss(art: Art, form: str) -> None:
    sampler, step = FORMS[form]

    def guided(weight: float) -> Tensor:
        losses = [Loss(brightness, weight, LATE)]
        guide = partial(gradient, losses=losses, step=step(art.sigmas))
        return art.latents(guide, sampler=sampler)

    plain = art.plain(sampler)
    assert brightness(guided(1.0)).item() < 0.97 * brightness(plain).item()
    assert torch.equal(guided(0.0), plain)


def test_several_losses_have_their_weights_and_their_steps(art: Art) -> None:
    last = step_range(art.sigmas, STEPS - 2, STEPS)

    def guided(bright: float, even: float) -> Tensor:
        losses = [Loss(brightness, bright, LATE), Loss(evenness, even, last)]
        step = normalised_step(0.1)
        return art.latents(partial(gradient, losses=losses, step=step, through_denoiser=False))

    bright, both, even = guided(1, 0), guided(1, 1), guided(0, 1)
    assert brightness(bright).item() < brightness(both).item() < brightness(even).item()
    assert evenness(both).item() < evenness(bright).item()
    # One that counts in no step that is walked says nothing.
    nowhere = Loss(evenness, 5.0, (art.sigmas[0].item(), 1e6))
    step = normalised_step(0.1)
    assert torch.equal(art.latents(partial(gradient, losses=[nowhere], step=step)), art.plain())


# By what is known


def test_data_consistency_keeps_what_was_measured(art: Art) -> None:
    plain = art.plain()
    linear = average_pool(1, 2)
    y = linear.forward(plain.flip(-1)) / 2
    made = art.latents(partial(consistent, linear=linear, y=y))
    torch.testing.assert_close(linear.forward(made), y, atol=1e-5, rtol=1e-5)
    # By the estimate of the posterior it is held less exactly, and the rest follows.
    guide = partial(posterior, linear=linear, y=y, noise_std=0.1, data_std=1.0)
    off = [(linear.forward(one) - y).square().mean().item() for one in (art.latents(guide), plain)]
    assert off[0] < 0.6 * off[1]


def half(like: Tensor) -> Tensor:
    """The left half of it, true."""
    mask = torch.zeros_like(like, dtype=torch.bool)
    mask[..., : like.shape[-1] // 2] = True
    return mask


def test_a_known_region_stays_to_the_bit(art: Art) -> None:
    plain = art.plain()
    known, mask = plain.flip(-1), half(plain)
    made = art.latents(partial(known_region, known=known, mask=mask), sampler="euler")
    assert torch.equal(made[mask], known[mask]) and not torch.equal(made[~mask], known[~mask])
    nothing = partial(known_region, known=known, mask=torch.zeros_like(mask))
    assert torch.equal(art.latents(nothing), plain)


# By going back


def walked(art: Art, guides: tuple[Guidance, ...] = (), **options: Any) -> Tensor:
    """The latents of a walk with DDPM's steps along ``options``' path."""
    denoise, settings, shape = art.bound("ddpm")

    def walk(
        denoise: DenoiseFn, x: Tensor, sigmas: Tensor, noise: NoiseFn, callback: Callback | None
    ) -> Tensor:
        return sample_path(denoise, x, sigmas, noise=noise, callback=callback, **options)

    guided, cpu = compose(denoise, *guides), torch.device("cpu")
    return sample_latents(
        guided, settings, art.noise_schedule, [SEED], shape, cpu, walk=walk
    ).detach()


def test_repaint_settles_a_known_region(art: Art) -> None:
    plain = art.plain("ddpm")
    torch.testing.assert_close(walked(art, path=range(STEPS + 1)), plain)
    known, mask = plain.flip(-1), half(plain).float()
    found = [
        walked(art, path=repaint_path(STEPS, 2, count), known=known, mask=mask) for count in (1, 3)
    ]
    for made in found:
        torch.testing.assert_close(made * mask, known * mask, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found[0], found[1])
    # It is what the command line's method of that name does, by its own numbers.
    denoise, settings, shape = art.bound("ddpm")
    whole = sample_latents(
        denoise, settings, art.noise_schedule, [SEED], shape, torch.device("cpu"),
        walk=lambda denoise, x, sigmas, noise, callback: sample_repaint(
            denoise, x, sigmas, noise=noise, known=known, mask=mask, jump_length=2, jump_count=3
        ),
    )  # fmt: skip
    assert torch.equal(whole, found[1])


def test_recurrence_settles_a_guidance(art: Art) -> None:
    guide = partial(
        gradient, losses=[Loss(brightness, sigma_range=LATE)], step=normalised_step(0.2)
    )
    once, thrice = (
        walked(art, (guide,), path=time_travel_path(STEPS, repeats)) for repeats in (1, 3)
    )
    torch.testing.assert_close(once, art.latents(guide, sampler="ddpm"))
    assert not torch.allclose(once, thrice) and thrice.isfinite().all()


# All at once


def test_all_turned_off_together_change_nothing_to_the_bit(art: Art) -> None:
    plain = art.plain()
    nothing = torch.zeros_like(plain)
    off: list[Guidance] = [
        partial(classifier, log_prob=lambda x, sigma: x.sum((1, 2, 3)), scale=0.0),
        partial(autoguidance, weak=lambda x, sigma: x, scale=1.0),
        partial(gradient, losses=[], step=score_step(1.0)),
        partial(gradient, losses=[Loss(brightness, 0.0)], step=normalised_step(1.0)),
        partial(known_region, known=plain + 1, mask=nothing),
        partial(consistent, linear=keep(nothing), y=nothing),
    ]
    assert torch.equal(art.latents(*off), plain)


def test_several_at_once_each_do_their_part(art: Art) -> None:
    plain = art.plain()
    known, mask = plain.flip(-1), half(plain)
    guides = [
        partial(autoguidance, weak=lambda x, sigma: x, scale=1.1),
        partial(gradient, losses=[Loss(brightness, sigma_range=LATE)], step=normalised_step(0.3)),
        partial(known_region, known=known, mask=mask),
    ]
    how = GuidanceSettings(interval=(0, 0.75), rescale=0.5, pag_scale=1.0)
    made = art.latents(*guides, guidance=how)
    assert torch.equal(made[mask], known[mask])
    without = art.latents(guides[0], guides[2], guidance=how)
    error = [(one[~mask] - 0.5).square().mean().item() for one in (made, without)]
    assert error[0] < error[1]

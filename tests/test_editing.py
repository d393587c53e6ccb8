"""Filling a free region: each method on the exact denoiser of a mixture of Gaussians."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from analytic import Measured, gaussian_flow, single_gaussian, three_modes
from test_generation import SCHEDULE, SETTINGS
from torch import Tensor

from shared.edit_settings import FillSettings
from shared.editing import FILLINGS, Known, fill, fill_steps
from shared.errors import UserError
from shared.generation import Start, sample_latents
from shared.guidance import sample_repaint
from shared.noise import NoiseStream, seeded_noise
from shared.samplers import SAMPLERS
from shared.schedules import make_sigmas

MIXTURE = three_modes()
SHAPE = (1, 1, 2)
SEEDS = range(4)
MASK = torch.tensor([True, False])  # of the two coordinates the first is known
Y = 0.6
KNOWN = Known(torch.tensor([Y, 7.0]).view(1, *SHAPE), MASK)
METHODS = [FillSettings(method=name, jump_length=2, jump_count=2) for name in FILLINGS]
by_method = pytest.mark.parametrize("how", METHODS, ids=list(FILLINGS))


def filled(
    how: FillSettings,
    known: Known = KNOWN,
    seeds: Sequence[int] = SEEDS,
    sampler: str = "euler",
    steps: int = 8,
    denoise=MIXTURE.denoise,
    callback=None,
    start: Start | None = None,
) -> Tensor:
    return sample_latents(
        denoise,
        replace(SETTINGS, sampler=sampler, steps=steps),
        SCHEDULE,
        seeds,
        SHAPE,
        torch.device("cpu"),
        start=start,
        walk=fill(known, sampler, how, FILLINGS[how.method].told),
        callback=callback,
    )


@by_method
@pytest.mark.parametrize("sampler", ["euler", "dpm++2m", "heun", "dpm++2m-sde", "ddpm"])
def test_what_is_known_comes_out(how: FillSettings, sampler: str) -> None:
    x0 = filled(how, sampler=sampler, steps=32)
    if FILLINGS[how.method].keeps:
        assert torch.equal(x0[..., 0], torch.full_like(x0[..., 0], Y))
    else:
        assert (x0[..., 0] - Y).abs().max() < 0.1
    assert x0[..., 1].std() > 0.1  # what is free differs from seed to seed


@by_method
def test_where_nothing_is_known_it_is_the_sampler(how: FillSettings) -> None:
    nothing = Known(KNOWN.latents, torch.zeros(1, dtype=torch.bool))
    how = replace(how, jump_count=1)
    sampler = "ddpm" if how.method in ("repaint", "gradient") else "euler"
    settings = replace(SETTINGS, sampler=sampler)
    expected = sample_latents(
        MIXTURE.denoise, settings, SCHEDULE, SEEDS, SHAPE, torch.device("cpu")
    )
    torch.testing.assert_close(filled(how, nothing, sampler=sampler), expected)


@by_method
def test_where_all_is_known_it_is_that(how: FillSettings) -> None:
    everything = Known(torch.tensor([0.3, -0.2]).view(1, *SHAPE), torch.ones(2, dtype=torch.bool))
    x0 = filled(how, everything, steps=32)
    torch.testing.assert_close(
        x0, everything.latents.expand_as(x0), atol=0 if FILLINGS[how.method].keeps else 0.1, rtol=0
    )


@by_method
def test_a_sample_depends_on_its_seed_alone(how: FillSettings) -> None:
    together = filled(how, sampler="dpm++2m-sde")
    for seed in SEEDS:
        alone = filled(how, seeds=[seed], sampler="dpm++2m-sde")
        torch.testing.assert_close(alone[0], together[seed])


def test_a_network_that_is_told_nothing_is_no_good_for_every_method() -> None:
    with pytest.raises(UserError, match="'concat' needs a network that is told"):
        fill(KNOWN, "euler", FillSettings(method="concat"))


@by_method
def test_the_callback_is_called_as_often_as_told(how: FillSettings) -> None:
    calls = []
    filled(how, callback=lambda *_: calls.append(1))
    assert len(calls) == fill_steps(how, 8)
    assert (fill_steps(how, 8) > 8) == (how.method == "repaint")


def test_a_blend_by_hand() -> None:
    """DDIM's steps, what is known replaced before each, by the noise that no step of DDIM draws."""
    sigmas = make_sigmas("karras", 8, SCHEDULE)
    levels = sigmas.tolist()
    x = levels[0] * seeded_noise(SEEDS, SHAPE)
    fresh = NoiseStream(SEEDS, SHAPE)
    for step, (sigma, after) in enumerate(pairwise(levels)):
        x[..., 0] = Y + sigma * fresh(-1 - step)[..., 0]
        denoised = MIXTURE.denoise(x, torch.full((4,), sigma))
        x = denoised + after / sigma * (x - denoised)
    found = filled(FillSettings(method="blend"), sampler="ddim")
    torch.testing.assert_close(found[..., 1], x[..., 1])


def test_repaint_is_the_core_s() -> None:
    sigmas = make_sigmas("karras", 8, SCHEDULE)
    expected = sample_repaint(
        MIXTURE.denoise,
        sigmas[0].item() * seeded_noise(SEEDS, SHAPE),
        sigmas,
        noise=NoiseStream(SEEDS, SHAPE),
        known=KNOWN.latents,
        mask=MASK.float(),
        jump_length=3,
        jump_count=4,
    )
    how = FillSettings(method="repaint", jump_length=3, jump_count=4)
    assert torch.equal(filled(how), expected)


@pytest.mark.parametrize("method", ["consistency", "blend", "posterior"])
def test_what_is_independent_of_the_known_is_sampled_as_if_alone(method: str) -> None:
    """Of one isotropic Gaussian the coordinates are: the free one follows its own exact flow."""
    gaussian = single_gaussian()
    how = FillSettings(method=method)
    x0 = filled(how, sampler="heun", steps=128, denoise=gaussian.denoise)
    top = make_sigmas("karras", 128, SCHEDULE)[0].item()
    exact = gaussian_flow(gaussian, top * seeded_noise(SEEDS, SHAPE), top, 0.0)
    torch.testing.assert_close(x0[..., 1], exact[..., 1].to(x0), atol=2e-3, rtol=0)


def test_pseudo_inverse_guidance_finds_what_the_known_tells_of_the_free() -> None:
    """y lies where only one component reaches: the free coordinate must be that component's."""
    known = Known(torch.tensor([-1.9, 0.0]).view(1, *SHAPE), MASK)
    mean, _ = Measured(MIXTURE, MASK.double(), -1.9, 0.05).moments()
    free = filled(FillSettings(method="posterior"), known, range(256), "heun", 24)[..., 1]
    alone = filled(
        FillSettings(method="posterior"),
        Known(known.latents, torch.zeros(1, dtype=torch.bool)),
        range(256),
        "heun",
        24,
    )[..., 1]
    assert abs(free.mean() - mean[1]) < 0.2 < abs(alone.mean() - mean[1])


def test_a_start_fills_with_what_was_there_before() -> None:
    """At a low strength the free region stays near its start, whatever the known one is."""
    start = Start(torch.tensor([0.0, 0.8]).view(1, *SHAPE), 0.25)
    near = filled(FillSettings(method="consistency"), start=start)
    assert torch.equal(near[..., 0], torch.full_like(near[..., 0], Y))
    far = filled(FillSettings(method="consistency"))
    assert (near[..., 1] - 0.8).abs().mean() < 0.5 * (far[..., 1] - 0.8).abs().mean()


def test_gradients_work_inside_inference_mode() -> None:
    with torch.inference_mode():
        x0 = filled(FillSettings(method="gradient"), steps=4)
    assert x0.isfinite().all()


@pytest.mark.parametrize("name", ["restart", "predictor-corrector", "unipc", "lcm"])
def test_other_samplers_keep_what_is_known(name: str) -> None:
    assert name in SAMPLERS
    x0 = filled(FillSettings(method="blend"), sampler=name)
    torch.testing.assert_close(x0[..., 0], torch.full_like(x0[..., 0], Y))


def test_says_what_is_wrong() -> None:
    with pytest.raises(
        UserError, match=r"unknown filling method 'repent' \(did you mean 'repaint'"
    ):
        fill(KNOWN, "euler", FillSettings(method="repent"))
    with pytest.raises(UserError, match="a jump of 8 does not fit into 8 steps"):
        filled(FillSettings(method="repaint", jump_length=8))
    for wrong in (
        lambda: FillSettings(jump_length=0),
        lambda: FillSettings(jump_count=2000),
        lambda: FillSettings(xi=-1),
        lambda: FillSettings(xi=float("nan")),
    ):
        with pytest.raises(UserError, match="must be from"):
            wrong()
    with pytest.raises(UserError, match="must be bool"):
        Known(KNOWN.latents, torch.ones(1))
    with pytest.raises(UserError, match="does not fit latents"):
        Known(KNOWN.latents, torch.ones(3, dtype=torch.bool))

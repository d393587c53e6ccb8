"""Sampling from a bound denoiser, as both arts do it."""

import pytest
import torch
from analytic import three_modes

from imagediff.settings import Settings
from shared.errors import UserError
from shared.generation import Start, sample_latents
from shared.noise import seeded_noise
from shared.samplers import sample_euler
from shared.schedules import NoiseSchedule, make_sigmas

SHAPE = (2, 1, 1)
SCHEDULE = NoiseSchedule.from_betas(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
SETTINGS = Settings(
    prompt="-",
    negative_prompt="",
    seed=0,
    steps=8,
    guidance_scale=1.0,
    sampler="euler",
    schedule="karras",
    size=(8, 8),
    model="-",
    model_hash="-",
    device="cpu",
    dtype="float32",
    version="-",
    torch_version="-",
)
SEEDS = [5, 6, 7]


def sample(start=None, walk=None, settings=SETTINGS):
    return sample_latents(
        three_modes().denoise,
        settings,
        SCHEDULE,
        SEEDS,
        SHAPE,
        torch.device("cpu"),
        start=start,
        walk=walk,
    )


def test_without_a_start_it_is_the_sampler_on_seeded_noise():
    sigmas = make_sigmas("karras", 8, SCHEDULE)
    x = sigmas[0].item() * seeded_noise(SEEDS, SHAPE)
    assert torch.equal(sample(), sample_euler(three_modes().denoise, x, sigmas))


def test_strength_0_keeps_the_start_and_strength_1_all_of_the_noise():
    latents = torch.tensor([[[[0.4]], [[-1.0]]]])
    assert torch.equal(sample(Start(latents, 0.0)), latents.expand(3, 2, 1, 1))
    assert torch.equal(sample(Start(latents, 1.0)), sample())


def test_a_start_is_noised_to_where_its_strength_says():
    latents = torch.tensor([[[[0.4]], [[-1.0]]]])
    sigmas = make_sigmas("karras", 8, SCHEDULE)[8 - 4 :]  # half of the steps
    x = latents + sigmas[0].item() * seeded_noise(SEEDS, SHAPE)
    expected = sample_euler(three_modes().denoise, x, sigmas)
    assert torch.equal(sample(Start(latents, 0.5)), expected)


def test_a_walk_takes_the_sampler_s_place():
    def walk(denoise, x, sigmas, noise, callback):
        return denoise(x, sigmas[:1].expand(len(x))) + noise(3)

    found = sample(walk=walk)
    assert found.shape == (3, *SHAPE)
    assert not torch.equal(found, sample())


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_0_to_1_is_refused(strength):
    with pytest.raises(UserError, match="strength must be from 0 to 1"):
        Start(torch.zeros(1, *SHAPE), strength)

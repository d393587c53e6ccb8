"""Walks that go back: their paths, their noise, and RePaint's bias that resampling takes away."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers.schedulers.scheduling_repaint import RePaintScheduler
from torch import Tensor

from shared.errors import UserError
from shared.guidance import (
    known_region,
    repaint_path,
    sample_path,
    sample_repaint,
    time_travel_path,
)
from shared.noise import NoiseStream, seeded_noise
from shared.samplers import sample_ddim
from shared.schedules import exponential, karras
from tests.analytic import Measured, three_modes

MIXTURE = three_modes()
MASK = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
KNOWN = torch.tensor([0.6, 0.0]).view(1, 1, 1, 2)
SIGMAS = karras(20, 0.02, 10.0)


def start(n: int = 4) -> tuple[Tensor, NoiseStream]:
    return 10 * seeded_noise(range(n), (1, 1, 2)), NoiseStream(range(n), (1, 1, 2))


@pytest.mark.parametrize("numbers", [(250, 10, 10), (50, 10, 3), (20, 7, 2), (12, 1, 4), (9, 3, 1)])
def test_the_path_is_the_reference_s(numbers):
    """Theirs counts the steps that are left, minus one, and goes back one step at a time."""
    steps, length, count = numbers
    scheduler = RePaintScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(steps, jump_length=length, jump_n_sample=count)
    left = [steps, *(t // (1000 // steps) for t in scheduler.timesteps.tolist()), 0]
    left[1:-1] = [t + 1 for t in left[1:-1]]
    assert left[1] == steps  # the state of pure noise
    del left[1]
    # Single steps back to one jump: of a rise, only its ends stay.
    turns = [
        now
        for before, now, after in zip(left, left[1:], left[2:], strict=False)
        if not before < now < after
    ]
    expected = [steps, *turns, 0]
    assert repaint_path(steps, length, count) == [steps - t for t in expected]


def test_paths_by_hand():
    assert repaint_path(6, 2, 2) == [0, 1, 2, 3, 1, 2, 3, 4, 5, 3, 4, 5, 6]
    assert repaint_path(4, 2, 1) == [0, 1, 2, 3, 4]
    assert time_travel_path(3, 1) == [0, 1, 2, 3]
    assert time_travel_path(3, 2) == [0, 1, 0, 1, 2, 1, 2, 3, 2, 3]
    assert time_travel_path(4, 3, 1, 2) == [0, 1, 2, 1, 2, 1, 2, 3, 4]
    counts = [repaint_path(250).count(index) for index in (250, 249, 245, 9, 8)]
    assert counts == [1, 10, 10, 10, 1]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_straight_path_without_a_region_is_the_sampler_to_the_bit(eta):
    x, noise = start()
    expected = sample_ddim(MIXTURE.denoise, x, SIGMAS, noise=noise, eta=eta)
    straight = time_travel_path(20, 1)
    assert torch.equal(
        sample_path(MIXTURE.denoise, x, SIGMAS, straight, noise=noise, eta=eta), expected
    )
    nothing = sample_repaint(
        MIXTURE.denoise,
        x,
        SIGMAS,
        noise=noise,
        known=KNOWN,
        mask=torch.zeros(1),
        jump_count=1,
        eta=eta,
    )
    assert torch.equal(nothing, expected)


def test_repaint_with_count_one_is_plain_replacement():
    x, noise = start()
    mine = sample_repaint(
        MIXTURE.denoise, x, SIGMAS, noise=noise, known=KNOWN, mask=MASK, jump_count=1
    )
    state = x.double()
    levels = SIGMAS.double().tolist()
    for step, (sigma, after) in enumerate(pairwise(levels)):
        denoised = MIXTURE.denoise(state, torch.full((4,), sigma).double())
        mean = denoised + (after / sigma) ** 2 * (state - denoised)
        unknown = mean + after * math.sqrt(1 - (after / sigma) ** 2) * noise(step)
        state = MASK * (KNOWN + after * noise(20 + step)) + (1 - MASK) * unknown
    torch.testing.assert_close(mine.double(), state, rtol=1e-4, atol=1e-5)
    assert torch.equal(mine[..., 0], KNOWN[..., 0].expand(4, 1, 1))


def test_every_state_has_the_noise_of_its_level():
    """With a denoiser that knows x0 = 0, states are noise: their variances tell the schedule."""
    n = 20_000
    path = repaint_path(8, 1, 3)
    sigmas = exponential(8, 0.1, 4.0).double()
    seen: list[tuple[float, float]] = []

    def noise(k: int) -> Tensor:
        generator = torch.Generator().manual_seed(k)
        return torch.randn(n, 1, 1, 2, generator=generator, dtype=torch.float64)

    def watch(move: int, x: Tensor, sigma: float, denoised: Tensor) -> None:
        seen.append((x[..., 1].std().item(), sigma))

    sample_path(
        lambda x, sigma: torch.zeros_like(x), 4 * noise(999), sigmas, path,
        noise=noise, callback=watch, known=torch.zeros(1), mask=MASK,
    )  # fmt: skip
    steps_down = [here for here, there in pairwise(path) if there > here]
    assert [sigma for _, sigma in seen] == [sigmas[here].item() for here in steps_down]
    for std, sigma in seen:
        assert std == pytest.approx(sigma, rel=0.03)


def test_a_sample_depends_on_its_seed_alone():
    x, noise = start(3)
    settings = {"known": KNOWN, "mask": MASK, "jump_length": 4, "jump_count": 3}
    together = sample_repaint(MIXTURE.denoise, x, SIGMAS, noise=noise, **settings)
    for i in range(3):
        alone = NoiseStream([i], (1, 1, 2))
        single = sample_repaint(MIXTURE.denoise, x[i : i + 1], SIGMAS, noise=alone, **settings)
        torch.testing.assert_close(single, together[i : i + 1])
    assert not torch.equal(together[0], together[1])


Y = -1.2  # where the components that may have made it differ most in the other coordinate


def bias(x0: Tensor) -> tuple[float, float]:
    """Of the unknown coordinate's mean and variance; 500 samples err by (0.03, 0.03)."""
    assert torch.equal(x0[..., 0], torch.full_like(x0[..., 0], Y))
    mean, covariance = Measured(MIXTURE, MASK.flatten().double(), Y, 1e-6).moments()
    rest = x0[..., 1]
    return abs(rest.mean() - mean[1]).item(), abs(rest.var() - covariance[1, 1]).item()


def draws(k: int) -> Tensor:
    return torch.randn(500, 1, 1, 2, generator=torch.Generator().manual_seed(k))


def test_resampling_takes_replacement_s_bias_away():
    """Plain replacement lets the rest forget y: 0.33 in the mean, 0.36 in the variance."""
    known, sigmas = torch.tensor([Y, 0.0]).view(1, 1, 1, 2), exponential(48, 0.02, 10.0)
    for count, least, most in ((1, 0.2, 0.5), (12, 0.0, 0.12)):
        x0 = sample_repaint(
            MIXTURE.denoise, 10 * draws(10**6), sigmas,
            noise=draws, known=known, mask=MASK, jump_length=12, jump_count=count,
        )  # fmt: skip
        assert all(least <= error < most for error in bias(x0))


def test_time_travel_settles_what_guidance_imposed():
    """The same with the replacement made on the estimate, and steps made again and again."""
    known, sigmas = torch.tensor([Y, 0.0]).view(1, 1, 1, 2), exponential(24, 0.02, 10.0)
    denoise, errors = known_region(MIXTURE.denoise, known, MASK), {}
    for repeats in (1, 16):
        path = time_travel_path(24, repeats, 4)
        errors[repeats] = bias(sample_path(denoise, 10 * draws(10**6), sigmas, path, noise=draws))
    assert errors[1][0] > 0.2
    assert errors[16][0] < 0.6 * errors[1][0]


def test_says_what_is_wrong():
    x, noise = start()
    for numbers in ((0, 1, 1), (5, 0, 2), (5, 2, 0)):
        with pytest.raises(UserError, match="must be at least 1"):
            repaint_path(*numbers)
    with pytest.raises(UserError, match="a jump of 10 does not fit into 10 steps"):
        repaint_path(10)
    with pytest.raises(UserError, match=r"0 \.\. 5; got 2 times, 3 \.\. 3"):
        time_travel_path(5, 2, 3, 3)
    for path in ([0], [0, 1], [1, 20], [0, 2, *range(3, 21)], [0, 0, *range(1, 21)]):
        with pytest.raises(UserError, match="a path goes from 0 to 20"):
            sample_path(MIXTURE.denoise, x, SIGMAS, path, noise=noise)
    straight = time_travel_path(20, 1)
    with pytest.raises(UserError, match="takes both"):
        sample_path(MIXTURE.denoise, x, SIGMAS, straight, noise=noise, mask=MASK)
    with pytest.raises(UserError, match="eta must be between 0 and 1, not 3"):
        sample_path(MIXTURE.denoise, x, SIGMAS, straight, noise=noise, eta=3)
    with pytest.raises(UserError, match="descending"):
        sample_path(MIXTURE.denoise, x, SIGMAS.flip(0), straight, noise=noise)

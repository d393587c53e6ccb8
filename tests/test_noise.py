"""Noise belongs to its seed: not to the batch, the place in it, or what was drawn before."""

import pytest
import torch

from shared.errors import UserError
from shared.noise import MAX_SEED, NoiseStream, seeded_noise

SHAPE = (4, 8, 8)


def test_a_sample_does_not_depend_on_its_batch():
    batch = seeded_noise([7, 3, 7, 12], SHAPE)
    assert batch.shape == (4, *SHAPE) and batch.dtype == torch.float32
    assert torch.equal(batch[0], batch[2])
    for i, seed in enumerate([7, 3, 7, 12]):
        assert torch.equal(batch[i : i + 1], seeded_noise([seed], SHAPE))


def test_start_noise_is_what_a_seeded_torch_generator_gives():
    expected = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(42))
    assert torch.equal(seeded_noise([42], SHAPE), expected)


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = seeded_noise([5], SHAPE)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(seeded_noise([5], SHAPE), first)


def test_a_stream_depends_on_seed_and_step_only():
    stream = NoiseStream([7, 3], SHAPE)
    steps = [stream(step) for step in range(5)]
    assert torch.equal(stream(2), steps[2])  # again, out of order
    for step, noise in enumerate(steps):
        assert torch.equal(noise[1:], NoiseStream([3], SHAPE)(step))


def test_all_noises_are_independent_unit_gaussians():
    seeds = list(range(6))
    stream = NoiseStream(seeds, SHAPE)
    rows = torch.cat([seeded_noise(seeds, SHAPE), *(stream(step) for step in range(6))]).flatten(1)
    assert rows.mean().abs() < 0.03 and (rows.std() - 1).abs() < 0.02
    assert (torch.corrcoef(rows) - torch.eye(len(rows))).abs().max() < 0.3  # 42 rows of 256 numbers


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_that_would_repeat_others_are_refused(seed):
    for draw in (lambda: seeded_noise([seed], SHAPE), lambda: NoiseStream([seed], SHAPE)(0)):
        with pytest.raises(UserError, match=f"between 0 and {MAX_SEED}, not {seed}"):
            draw()
    assert seeded_noise([MAX_SEED], SHAPE).isfinite().all()

"""Riding the fader: estimates get as loud as was asked for, and nothing else of them changes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.curves import values_at
from audiodiff.fader import LAST, WINDOW, decibel, fader, levels, ride
from audiodiff.labels import FRAME_SECONDS, SAMPLES_PER_FRAME
from audiodiff.loudness import loudness_curve
from audiodiff.sketch import Curve
from audiodiff.spectrogram import FrontEnd
from audiodiff.steering_losses import smooth

FRONT_END = FrontEnd()
FRAMES = 40
HALF = FRAMES * FRAME_SECONDS / 2


class Codec:
    """One number a latent frame is the level of all its bands; another tells of something else."""

    channels, rows, samples_per_frame, front_end = 2, 1, 4096, FRONT_END
    vae = SimpleNamespace(parameters=lambda: iter([torch.zeros(1)]))

    def latents_to_mel(self, latents: Tensor) -> Tensor:
        each = latents.repeat_interleave(8, -1)  # (b 2 1 t)
        return each.expand(-1, -1, FRONT_END.n_mels, -1)

    def mel_to_latents(self, mel: Tensor) -> Tensor:
        return mel.mean(2, keepdim=True).unflatten(-1, (-1, 8)).mean(-1)


CODEC: Any = Codec()


@pytest.fixture
def estimate() -> Tensor:
    return torch.randn(2, 2, 1, FRAMES, generator=torch.manual_seed(0)) * 0.5


def heard(latents: Tensor) -> Tensor:
    return levels(CODEC.latents_to_mel(latents), FRONT_END, FRAMES)


def ridden(estimate: Tensor, curve: Curve, sigma: float = 1.0) -> Tensor:
    denoise = fader(curve, CODEC, FRAMES)(lambda x, sigma: estimate)
    return denoise(torch.zeros_like(estimate), torch.full((2,), sigma))


def test_a_decibel_is_a_decibel_and_nothing_else() -> None:
    one = decibel(CODEC)
    assert one.shape == (1, 2, 1, 1) and one[0, 1].item() == pytest.approx(0, abs=1e-6)
    quiet = torch.zeros(1, 2, 1, WINDOW)
    louder, before = (
        levels(CODEC.latents_to_mel(z), FRONT_END, WINDOW) for z in (quiet + 5 * one, quiet)
    )
    torch.testing.assert_close(louder - before, torch.full((1, WINDOW), 5.0), atol=0.3, rtol=0)


def test_levels_come_to_run_as_was_asked(estimate: Tensor) -> None:
    curve = Curve(points=((0, -30), (HALF, -18), (2 * HALF, -24)))
    wanted = smooth(torch.from_numpy(values_at(curve, FRAMES)).float()[None])
    made = ridden(estimate, curve)
    assert torch.equal(made[:, 1], estimate[:, 1])  # the something else

    def off(latents: Tensor) -> Tensor:
        return (smooth(heard(latents)) - wanted).std(dim=1)

    assert (off(made) < off(estimate) / 3).all() and (off(made) < 1).all()


def test_it_acts_at_its_noise_levels_and_by_its_weight(estimate: Tensor) -> None:
    points = ((0.0, -30.0), (2 * HALF, -18.0))
    whole = ridden(estimate, Curve(points=points)) - estimate
    half = ridden(estimate, Curve(points=points, weight=0.5)) - estimate
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(half, whole / 2)
    torch.testing.assert_close(ridden(estimate, Curve(points=points, weight=3.0)) - estimate, whole)
    for sigma in (0.01, 11.0):
        assert torch.equal(ridden(estimate, Curve(points=points), sigma), estimate)


def test_what_lies_outside_its_span_stays(estimate: Tensor) -> None:
    made = ridden(estimate, Curve(points=((0, -30), (HALF, -12)), span=(0.0, HALF)))
    assert torch.equal(made[..., FRAMES // 2 :], estimate[..., FRAMES // 2 :])
    assert not torch.equal(made[..., : FRAMES // 2], estimate[..., : FRAMES // 2])


def test_what_is_no_sound_speaks_for_no_other_frame() -> None:
    front_end = FrontEnd()
    mel = torch.zeros(1, 2, front_end.n_mels, 64)
    mel[..., 24:32] = 200.0  # whose level is no number
    found = levels(mel, front_end, 8)
    assert found.isfinite().all() and found.argmax() == 3
    assert (found[0, :3] - found[0, 0]).abs().max() < 1e-3


def test_the_finished_sound_is_ridden_within_its_span() -> None:
    rng = np.random.default_rng(0)
    tremble = 10 ** (rng.uniform(-4, 4, FRAMES) / 20)
    noise = rng.standard_normal((2, FRAMES * SAMPLES_PER_FRAME)) * 0.05
    samples = (noise * tremble.repeat(SAMPLES_PER_FRAME)).astype(np.float32)
    curve = Curve(points=((0, -30), (HALF, -22), (2 * HALF, -26)))
    wanted = smooth(torch.from_numpy(values_at(curve, FRAMES)).float()[None])

    def off(samples: np.ndarray) -> float:
        found = torch.from_numpy(loudness_curve(samples))[None]
        return (smooth(found) - wanted).std().item()

    made = ride(samples, curve)
    assert made.dtype == np.float32 and off(made) < 0.2 < 1 < off(samples)
    gain = 20 * np.log10(np.abs(made / samples))
    assert np.abs(gain).max() <= LAST + 1e-3 and np.abs(np.diff(gain)).max() < 0.01
    first = ride(samples, replace(curve, span=(0.0, HALF)))
    after = FRAMES // 2 * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME
    assert np.array_equal(first[:, after:], samples[:, after:])
    assert not np.array_equal(first, samples)
    assert np.array_equal(ride(np.zeros_like(samples), curve), np.zeros_like(samples))

"""Single sounds held to a course of levels and middles."""

from pathlib import Path

import numpy as np
import pytest
import torch

from audiodiff import MusicPipeline
from audiodiff.shaping import course, off_shape, shaped
from audiodiff.spectrogram import FrontEnd, waveform_to_mel

RATE = 44100
FALLING, RISING = ((0.0, 0.0), (0.8, -40.0)), ((0.0, 200.0), (0.8, 3200.0))


def test_the_course_of_a_tone_is_its_own():
    time = np.arange(RATE) / RATE
    # One falls by 20 dB a second, the other rises by two octaves.
    falls = 10 ** (-time) * np.sin(2 * np.pi * 1000 * time)
    glides = np.sin(2 * np.pi * np.cumsum(500 * 4**time) / RATE)
    waves = torch.from_numpy(np.stack([falls, glides])).float()[:, None].expand(-1, 2, -1)
    level, middle = course(waveform_to_mel(waves, FrontEnd()), FrontEnd())
    inside = slice(8, -8)
    at = ((np.arange(level.shape[1]) + 0.5) * 512 / RATE)[inside]
    slope = np.polyfit(at, level[0, inside].numpy(), 1)[0]
    assert slope == pytest.approx(-20, abs=0.2)
    assert middle[0, inside].numpy() == pytest.approx(np.log2(1000), abs=0.03)
    assert middle[1, inside].numpy() == pytest.approx(np.log2(500) + 2 * at, abs=0.05)


def test_guidance_brings_a_sound_to_its_course(tiny_music_model: Path):
    pipeline = MusicPipeline.load(tiny_music_model, device="cpu", dtype="float32")
    codec = pipeline.codec
    (settings,) = pipeline.plan("a slow waltz", seconds=1.0, steps=4)
    frames = pipeline.latent_frames(1.0)
    x = torch.randn(1, *pipeline.latent_shape(frames), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = pipeline.denoise_fn([settings], frames)
        sigma = torch.tensor([1.0])
        moved = shaped(codec, FALLING, RISING)(plain)(x, sigma)
        errors = [off_shape(codec, one, FALLING, RISING) for one in (plain(x, sigma), moved)]
    assert errors[1] < errors[0]


def test_of_two_samples_each_is_guided_by_itself(tiny_music_model: Path):
    codec = MusicPipeline.load(tiny_music_model, device="cpu", dtype="float32").codec
    latents = torch.randn(2, 4, 2, 16, generator=torch.Generator().manual_seed(1))
    both = off_shape(codec, latents, FALLING, RISING)
    alone = torch.cat([off_shape(codec, one[None], FALLING, RISING) for one in latents])
    torch.testing.assert_close(both, alone)

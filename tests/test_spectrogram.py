"""Spectrograms: exact lengths, exact inverses, what level, pan and width say of known signals."""

import math

import pytest
import torch

from audiodiff.losses import log_mel_distance, mr_stft_distance
from audiodiff.spectrogram import (
    FrontEnd,
    istft,
    log_channels,
    mel_bands,
    mel_filters,
    pack,
    silence,
    stft,
    unpack,
    waveform_to_mel,
)
from shared.errors import UserError

FRONT_END = FrontEnd()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sine(frequency: float, samples: int) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(samples).double() / 44100).float()


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 4096, 10_000])
def test_there_is_one_frame_a_hop(samples):
    frames = math.ceil(samples / 512)
    assert stft(noise(3, 2, samples), FRONT_END).shape == (3, 2, 1025, frames)
    assert waveform_to_mel(noise(3, 2, samples), FRONT_END).shape == (3, 2, 256, frames)
    assert istft(stft(noise(samples), FRONT_END), FRONT_END).shape == (512 * frames,)


@pytest.mark.parametrize("front_end", [FRONT_END, FrontEnd(n_fft=1024, hop_length=128)])
def test_the_transform_inverts_to_the_last_sample(front_end):
    samples = noise(2, 2, 9000)
    again = istft(stft(samples, front_end), front_end)
    torch.testing.assert_close(again[..., :9000], samples, atol=1e-6, rtol=0)
    assert again[..., 9000:].abs().max() < 1e-6


def test_frames_are_those_of_the_signal_around_them():
    samples = noise(2, 2, 512 * 40)
    whole = waveform_to_mel(samples, FRONT_END)
    part = waveform_to_mel(samples[..., 512 * 8 : 512 * 32], FRONT_END)
    torch.testing.assert_close(part[..., 2:-2], whole[..., 10:30], atol=1e-4, rtol=0)


def test_a_full_sine_has_magnitude_1():
    frequency = 44100 / 2048 * 100  # the middle of a bin
    tone = sine(frequency, 512 * 16)
    magnitudes = stft(tone, FRONT_END).abs()[:, 8]
    assert magnitudes.argmax() == 100
    assert magnitudes.max() == pytest.approx(1, abs=1e-4)
    mel = waveform_to_mel(torch.stack([tone, tone])[None], FRONT_END)
    assert unpack(mel, FRONT_END).level[0, :, 8].max() == pytest.approx(1.5, abs=0.5)


def test_no_band_is_empty():
    filters = mel_filters(FRONT_END)
    assert filters.shape == (256, 1025)
    assert filters.max(1).values.min() > 0


def stereo(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.stack([left, right])[None]


@pytest.mark.parametrize(
    "left, right, pan, width",
    [
        (1.0, 1.0, 0.0, 0.0),
        (1.0, -1.0, 0.0, 1.0),
        (1.0, 0.0, 1.0, math.sqrt(1 / 2)),
        (0.0, 1.0, -1.0, math.sqrt(1 / 2)),
        (0.6, 0.2, 0.5, math.sqrt(0.04 / (0.16 + 0.04))),
    ],
)
def test_pan_and_width_of_one_signal_on_both_sides(left, right, pan, width):
    signal = noise(512 * 20)
    found = unpack(waveform_to_mel(stereo(left * signal, right * signal), FRONT_END), FRONT_END)
    heard = slice(16, 128), slice(4, 16)  # away from the ends
    assert found.pan[0][heard].median() == pytest.approx(pan, abs=0.02)
    assert (found.width[0][heard] - width).abs().max() < 0.02


def test_unrelated_sides_are_half_wide():
    mel = waveform_to_mel(noise(1, 2, 512 * 100), FRONT_END)
    share = unpack(mel, FRONT_END).width.square().mean()
    assert share == pytest.approx(0.5, abs=0.02)


def test_packing_inverts():
    mel = waveform_to_mel(noise(2, 2, 512 * 20), FRONT_END)
    torch.testing.assert_close(pack(unpack(mel, FRONT_END), FRONT_END), mel, atol=1e-4, rtol=0)


def test_unpacking_gives_only_what_can_be():
    parts = unpack(noise(1, 2, 256, 9) * 500, FRONT_END)
    assert parts.level.min() == 0
    assert parts.pan.abs().max() == 1
    assert (parts.width.min(), parts.width.max()) == (0, 1)


def test_log_channels_are_the_sides_levels():
    signal = 20 * noise(512 * 20)
    samples = stereo(0.6 * signal, 0.2 * signal)
    found = log_channels(waveform_to_mel(samples, FRONT_END), FRONT_END)
    levels = mel_filters(FRONT_END) @ stft(samples, FRONT_END).abs()
    expected = (levels + FRONT_END.log_floor).log()
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_silence_is_what_zeros_give():
    mel = waveform_to_mel(torch.zeros(1, 2, 512 * 6), FRONT_END)[0]
    torch.testing.assert_close(mel, silence(6, FRONT_END))
    assert log_channels(mel[None], FRONT_END).exp().max() == pytest.approx(1e-4, rel=1e-3)


def test_a_clip_does_not_depend_on_its_batch():
    batch = noise(3, 2, 512 * 10)
    together = waveform_to_mel(batch, FRONT_END)
    alone = torch.cat([waveform_to_mel(each[None], FRONT_END) for each in batch])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_constants_made_while_sampling_serve_training():
    front_end = FrontEnd(n_mels=64)  # not yet in any cache
    with torch.inference_mode():
        waveform_to_mel(noise(1, 2, 4096), front_end)
    samples = noise(1, 2, 4096).requires_grad_()
    waveform_to_mel(samples, front_end)[:, 0].sum().backward()
    assert samples.grad is not None
    assert samples.grad.isfinite().all()


def test_a_front_end_survives_its_config():
    front_end = FrontEnd(n_mels=128, mean=-5.0)
    assert FrontEnd.from_config({"_class_name": "GriffinLim", **front_end.to_config()}) == front_end


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hop_length": 500}, "multiple"),
        ({"hop_length": 1024}, "4 or more"),
        ({"f_max": 30000.0}, "22050"),
        ({"n_mels": 255}, "even"),
        ({"n_fft": "2048"}, "n_fft must be a number"),
        ({"std": None}, "std must be a number"),
    ],
)
def test_impossible_front_ends_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        FrontEnd.from_config({**FRONT_END.to_config(), **change})


def test_mel_bands_are_the_filters_products_with_a_gradient():
    magnitudes = noise(2, 3, 1025, 5).abs().requires_grad_()
    dense = mel_filters(FRONT_END) @ magnitudes
    bands = mel_bands(magnitudes, FRONT_END)
    torch.testing.assert_close(bands, dense)
    weights = noise(*bands.shape, seed=1)
    found, expected = (
        torch.autograd.grad((each * weights).sum(), magnitudes)[0] for each in (bands, dense)
    )
    torch.testing.assert_close(found, expected)
    with torch.autocast("cpu", torch.bfloat16):  # levels are told by more digits than that
        assert torch.equal(mel_bands(magnitudes, FRONT_END), bands)


def test_distances_of_known_pairs():
    target = noise(2, 2, 8192)
    assert mr_stft_distance(target, target).max() < 1e-5
    assert log_mel_distance(target, target, FRONT_END).max() == 0
    # Half as loud: convergence 1/2, log magnitudes ln 2 apart.
    half = mr_stft_distance(target / 2, target)
    torch.testing.assert_close(half, torch.full((2,), 0.5 + math.log(2)), atol=2e-3, rtol=0)
    torch.testing.assert_close(
        log_mel_distance(target / 2, target, FRONT_END), torch.full((2,), math.log(2)),
        atol=0.02, rtol=0,
    )  # fmt: skip
    assert mr_stft_distance(-target, target).max() < 1e-5  # turned over: the same magnitudes


def test_distances_have_gradients_at_silence():
    for distance in (mr_stft_distance, lambda a, b: log_mel_distance(a, b, FRONT_END)):
        samples = torch.zeros(1, 2, 4096, requires_grad=True)
        distance(samples, torch.zeros(1, 2, 4096)).sum().backward()
        assert samples.grad is not None
        assert samples.grad.isfinite().all()

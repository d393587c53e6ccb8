"""The music codec: shapes, exact lengths, exact inverses with an orthonormal autoencoder."""

import pytest
import torch
from torch import nn

from audiodiff.codec import FOLD, MusicCodec, fold, unfold
from audiodiff.spectrogram import FrontEnd, waveform_to_mel
from audiodiff.vocoder import GriffinLim, write_vocoder
from shared.errors import UserError
from shared.linear_code import LinearCode, fit, fit_correction
from shared.vae import AutoencoderKL, Posterior
from shared.weights import save_component

FRONT_END = FrontEnd()
VAE = {
    "_class_name": "AutoencoderKL",
    "in_channels": 8,
    "out_channels": 8,
    "latent_channels": 6,
    "block_out_channels": [8, 8, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "mid_block_add_attention": False,
    "scaling_factor": 0.5,
    "shift_factor": 0.1,
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny_codec(**changes: object) -> MusicCodec:
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config({**VAE, **changes}).eval()
    return MusicCodec(vae, GriffinLim(FRONT_END), FRONT_END)


class Orthonormal(AutoencoderKL):
    """An autoencoder that loses nothing: 8x8 patches turned in their space of 512 numbers."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.config = {"in_channels": 8, "out_channels": 8, "scaling_factor": 2.0}
        self.downsampling, self.latent_channels, self.encoder = 8, 512, nn.Identity()
        generator = torch.Generator().manual_seed(1)
        self.turn = nn.Parameter(torch.linalg.qr(torch.randn(512, 512, generator=generator))[0])

    def encode(self, x):
        mean = torch.einsum("bphw,pz->bzhw", nn.functional.pixel_unshuffle(x, 8), self.turn)
        return Posterior(mean, torch.zeros_like(mean))

    def decode(self, z):
        return nn.functional.pixel_shuffle(torch.einsum("bzhw,pz->bphw", z, self.turn), 8)


def test_folding_puts_neighbouring_bands_into_channels():
    mel = torch.arange(2 * 256).float().view(1, 2, 256, 1)
    picture = fold(mel)
    assert picture.shape == (1, 2 * FOLD, 64, 1)
    assert picture[0, :, 5, 0].tolist() == [20, 21, 22, 23, 276, 277, 278, 279]
    assert torch.equal(unfold(picture), mel)


def test_shapes_and_lengths():
    codec = tiny_codec()
    assert (codec.channels, codec.rows, codec.samples_per_frame) == (6, 8, 4096)
    latents = codec.encode(noise(2, 2, 3 * 4096))
    assert latents.shape == (2, 6, 8, 3)
    assert codec.latents_to_mel(latents).shape == (2, 2, 256, 24)
    assert codec.decode(latents).shape == (2, 2, 3 * 4096)
    assert codec.decode(latents).dtype == torch.float32


def test_an_orthonormal_autoencoder_loses_nothing():
    codec = MusicCodec(Orthonormal(), GriffinLim(FRONT_END), FRONT_END)
    samples = noise(1, 2, 4 * 4096)
    mel = waveform_to_mel(samples, FRONT_END)
    latents = codec.encode(samples)
    torch.testing.assert_close(latents.square().sum(), 4 * mel.square().sum())
    torch.testing.assert_close(codec.latents_to_mel(latents), mel, atol=1e-4, rtol=0)
    torch.testing.assert_close(codec.mel_to_latents(mel), latents, atol=1e-4, rtol=0)
    with torch.no_grad():
        again = codec.decode(latents)
    # What comes back sounds like what went in, at the places where it did.
    levels = (waveform_to_mel(again, FRONT_END) - mel)[:, 0, 2:-4, 2:-2]
    assert levels.abs().mean() < 0.25


def test_scale_and_shift_are_the_codec_s():
    mel = waveform_to_mel(noise(1, 2, 4096), FRONT_END)
    raw = tiny_codec(scaling_factor=1.0, shift_factor=None).mel_to_latents(mel)
    torch.testing.assert_close(tiny_codec().mel_to_latents(mel), (raw - 0.1) * 0.5)
    plain = tiny_codec(scaling_factor=1.0, shift_factor=None).latents_to_mel(raw)
    torch.testing.assert_close(tiny_codec().latents_to_mel((raw - 0.1) * 0.5), plain)


def test_mels_can_be_differentiated_by_latents():
    codec = tiny_codec()
    latents = noise(1, 6, 8, 2).requires_grad_()
    codec.latents_to_mel(latents).square().sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().min() > 0


def test_a_clip_does_not_depend_on_its_batch():
    codec = tiny_codec()
    samples = noise(3, 2, 2 * 4096)
    with torch.inference_mode():
        together = codec.encode(samples)
        alone = torch.cat([codec.encode(each[None]) for each in samples])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
        # The mels may differ in the last digit, which Griffin-Lim's peaks can turn into another
        # phase; from equal mels the samples are equal.
        mels = codec.latents_to_mel(together)
        assert torch.equal(codec.vocoder(mels)[1:2], codec.vocoder(mels[1:2]))


def test_a_folder_is_loaded(tmp_path):
    codec = tiny_codec()
    save_component(codec.vae, tmp_path / "vae", torch.float32)
    write_vocoder(tmp_path / "vocoder", FRONT_END)
    again = MusicCodec.load(tmp_path)
    latents = noise(1, 6, 8, 2)
    torch.testing.assert_close(again.latents_to_mel(latents), codec.latents_to_mel(latents))
    assert again.front_end == FRONT_END
    rough = MusicCodec.load(tmp_path, dtype=torch.bfloat16)
    assert rough.latents_to_mel(latents).dtype == torch.float32
    assert MusicCodec.load(tmp_path, dtype=torch.float16).vae.config == VAE


def test_a_linear_code_encodes_and_corrects_the_decoder(tmp_path):
    codec = tiny_codec(scaling_factor=1.0, shift_factor=None)
    mel = waveform_to_mel(noise(2, 2, 8 * 4096), FRONT_END)
    save_component(codec.vae, tmp_path / "vae", torch.float32)
    write_vocoder(tmp_path / "vocoder", FRONT_END)
    fit([mel], 6, (32, 8)).save(tmp_path / "vae")
    plain_code = LinearCode.load(tmp_path / "vae")  # rounded as files are
    latents = plain_code.encode(mel)
    with torch.no_grad():
        uncorrected = codec.latents_to_mel(latents)
        held = MusicCodec.load(tmp_path)
        torch.testing.assert_close(held.mel_to_latents(mel), latents)
        torch.testing.assert_close(held.latents_to_mel(latents), uncorrected)
        code = fit_correction(plain_code, [(mel, uncorrected, latents)], (1, 3))
        code.save(tmp_path / "vae")
        found = MusicCodec.load(tmp_path).latents_to_mel(latents)
    torch.testing.assert_close(found, code.corrected(uncorrected, latents), atol=1e-2, rtol=1e-2)
    assert (found - mel).square().mean() < 0.9 * (uncorrected - mel).square().mean()
    fit([mel], 5, (32, 8)).save(tmp_path / "vae")
    with pytest.raises(UserError, match=r"in 5 numbers.* in 6; it belongs to another"):
        MusicCodec.load(tmp_path)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match="8 channels in and out, not 3 and 8"):
        tiny_codec(in_channels=3)
    vae = AutoencoderKL.from_config(VAE)
    with pytest.raises(UserError, match="multiple of 32"):
        MusicCodec(vae, GriffinLim(FRONT_END), FrontEnd(n_mels=80))
    with pytest.raises(ValueError, match="multiples of 4096"):
        tiny_codec().encode(noise(1, 2, 4095))
    with pytest.raises(UserError, match="vocoder"):
        MusicCodec.load(tmp_path)
    with pytest.raises(UserError, match="no encoder, and no linear code"):
        tiny_codec(_encoder="linear code")

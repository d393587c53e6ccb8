"""Stereo waveforms <-> latents: log-mel, a KL autoencoder, and a vocoder for the way back."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from audiodiff.spectrogram import FrontEnd, waveform_to_mel
from audiodiff.vocoder import Vocoder, load_vocoder
from shared.checkpoints import load_vae
from shared.errors import UserError
from shared.linear_code import LinearCode, load_code
from shared.vae import AutoencoderKL

FOLD = 4
"""Neighbouring mel bands that share a row of the autoencoder's picture, as its channels.

Its downsampling is the same both ways; folding lets a latent span four times as many bands as
frames.
"""


def fold(mel: Tensor) -> Tensor:
    """A log-mel (b 2 f t) -> the autoencoder's picture (b 2*FOLD f/FOLD t)."""
    return rearrange(mel, "b c (f k) t -> b (c k) f t", k=FOLD)


def unfold(picture: Tensor) -> Tensor:
    """The inverse of :func:`fold`."""
    return rearrange(picture, "b (c k) f t -> b c (f k) t", k=FOLD)


class MusicCodec:
    """An autoencoder of mel spectrograms that owns the scale of its latents, and a vocoder.

    Latents are (b z rows t): low frequencies in the first row, ``samples_per_frame`` samples a
    column.

    An autoencoder that was trained here keeps to a linear code: that is its encoder then, and its
    decoder is corrected by it (:meth:`shared.linear_code.LinearCode.corrected`).

    Raises:
        UserError: autoencoder and front end do not fit each other.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        vocoder: Vocoder,
        front_end: FrontEnd,
        code: LinearCode | None = None,
    ) -> None:
        if vae.config.get("in_channels") != 2 * FOLD or vae.config.get("out_channels") != 2 * FOLD:
            raise UserError(
                f"a music autoencoder has {2 * FOLD} channels in and out, "
                f"not {vae.config.get('in_channels')} and {vae.config.get('out_channels')}"
            )
        if front_end.n_mels % (FOLD * vae.downsampling):
            raise UserError(
                f"n_mels must be a multiple of {FOLD * vae.downsampling} for this autoencoder, "
                f"not {front_end.n_mels}"
            )
        if vae.encoder is None and code is None:
            raise UserError("this autoencoder has no encoder, and no linear code is beside it")
        # Float16 overflows in such decoders, as those of Stable Diffusion do.
        self.vae = vae.float() if _dtype(vae) == torch.float16 else vae
        self.vocoder = vocoder
        self.front_end = front_end
        self.code = code
        self.scaling_factor = float(vae.config.get("scaling_factor", 1.0))
        self.shift_factor = float(vae.config.get("shift_factor") or 0.0)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> MusicCodec:
        """The codec of a model folder: its ``vae`` and ``vocoder``.

        Raises:
            UserError: one of the two is missing or at fault.
        """
        root = Path(folder)
        vocoder, front_end = load_vocoder(root / "vocoder", device)
        vae = load_vae(root / "vae", device, dtype)
        patch = (2, FOLD * vae.downsampling, vae.downsampling)
        code = load_code(root / "vae", vae.latent_channels, patch)
        return cls(vae, vocoder, front_end, code)

    @property
    def channels(self) -> int:
        """Channels of a latent (z)."""
        return self.vae.latent_channels

    @property
    def rows(self) -> int:
        """Height of the latents."""
        return self.front_end.n_mels // (FOLD * self.vae.downsampling)

    @property
    def samples_per_frame(self) -> int:
        """Samples a column of the latents stands for."""
        return self.front_end.hop_length * self.vae.downsampling

    def encode(self, samples: Tensor) -> Tensor:
        """Samples (b 2 s) -> latents (b z rows s/samples_per_frame), float32.

        Raises:
            ValueError: ``s`` is no multiple of ``samples_per_frame``.
        """
        if samples.shape[-1] % self.samples_per_frame:
            raise ValueError(
                f"samples must come in multiples of {self.samples_per_frame}, "
                f"not {samples.shape[-1]}"
            )
        return self.mel_to_latents(waveform_to_mel(samples, self.front_end))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b z rows t) -> samples (b 2 t*samples_per_frame), float32, not clamped."""
        return self.vocoder(self.latents_to_mel(latents))

    def mel_to_latents(self, mel: Tensor) -> Tensor:
        """A log-mel (b 2 f t) -> latents (b z rows t/downsampling).

        The linear code's, or the mode of the autoencoder's posterior where there is none.
        """
        if self.code is not None:
            z = self.code.encode(mel.float())
        else:
            z = self.vae.encode(fold(mel).to(_dtype(self.vae))).mode()
        return (z.float() - self.shift_factor) * self.scaling_factor

    def latents_to_mel(self, latents: Tensor) -> Tensor:
        """Latents (b z rows t) -> log-mel (b 2 f t*downsampling), float32; differentiable."""
        z = latents / self.scaling_factor + self.shift_factor
        mel = unfold(self.vae.decode(z.to(_dtype(self.vae))).float())
        return mel if self.code is None else self.code.corrected(mel, z.float())


def _dtype(module: torch.nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype

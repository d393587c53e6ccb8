"""Latents of any length to samples, in pieces that are joined where nobody hears it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from audiodiff.codec import MusicCodec
from audiodiff.vocoder import Vocoder
from shared.windows import in_one_piece, window_profile, window_starts

# In latent frames: what the autoencoder decodes at once, about what it was trained on, and what
# neighbouring pieces share.
MEL_WINDOW = 64
MEL_OVERLAP = 16
# In spectrogram frames: what the vocoder makes at once; the frames at the edges of a piece that are
# not trusted, more than a convolutional vocoder's reach; those over which two pieces are faded.
VOCODER_WINDOW = 1024
VOCODER_MARGIN = 32
FADE = 16


def decode(codec: MusicCodec, latents: Tensor) -> Tensor:
    """Latents (b z rows t) -> samples (b 2 t*samples_per_frame), float32, not clamped.

    What fits into one piece is ``codec.decode(latents)`` itself. Memory beyond that grows only by
    the spectrogram and the samples.
    """
    return vocode(codec.vocoder, decode_mel(codec, latents), codec.front_end.hop_length)


def encode(codec: MusicCodec, samples: Tensor) -> Tensor:
    """Samples (b 2 s) of any length -> latents (b z rows s/samples_per_frame), float32.

    Raises:
        ValueError: ``s`` is no multiple of ``samples_per_frame``.
    """
    per_frame = codec.samples_per_frame
    length = samples.shape[-1] // per_frame
    if length <= in_one_piece(MEL_WINDOW):
        return codec.encode(samples)
    pieces, done = [], 0
    for start in window_starts(length, MEL_WINDOW, MEL_OVERLAP):
        here = samples[..., start * per_frame : (start + MEL_WINDOW) * per_frame]
        piece = codec.encode(here)
        # Each piece counts to the middle of what it shares with the next.
        end = length if start + MEL_WINDOW >= length else start + MEL_WINDOW - MEL_OVERLAP // 2
        pieces.append(piece[..., done - start : end - start])
        done = end
    return torch.cat(pieces, -1)


def decode_mel(codec: MusicCodec, latents: Tensor, keep: bool = True) -> Tensor:
    """Latents (b z rows t) -> log-mel (b 2 f t*downsampling), faded from window to window.

    ``keep`` False computes the windows of a long clip again when gradients are taken, which
    otherwise need memory for all of them.
    """
    length = latents.shape[-1]
    if length <= in_one_piece(MEL_WINDOW):
        return codec.latents_to_mel(latents)
    factor = codec.samples_per_frame // codec.front_end.hop_length
    weight = window_profile(MEL_WINDOW * factor, MEL_OVERLAP * factor).to(latents)
    total = latents.new_zeros(length * factor)
    mel = latents.new_zeros(len(latents), 2, codec.front_end.n_mels, length * factor)
    for start in window_starts(length, MEL_WINDOW, MEL_OVERLAP):
        part = latents[..., start : start + MEL_WINDOW]
        piece = (
            codec.latents_to_mel(part)
            if keep
            else checkpoint(codec.latents_to_mel, part, use_reentrant=False)
        )
        here = slice(start * factor, (start + MEL_WINDOW) * factor)
        total[here] += weight
        mel[..., here] = torch.lerp(mel[..., here], piece, weight / total[here])
    return mel


def vocode(vocoder: Vocoder, mel: Tensor, hop_length: int) -> Tensor:
    """Log-mel (b 2 f t) -> samples (b 2 t*hop_length).

    A convolutional vocoder gives the same samples in pieces as at once. Griffin-Lim finds other
    phases in each piece; the fade then keeps the power even (:func:`fade_over`).
    """
    length = mel.shape[-1]
    if length <= in_one_piece(VOCODER_WINDOW):
        return vocoder(mel)
    fade = FADE * hop_length
    samples = mel.new_zeros(len(mel), 2, length * hop_length)
    done = 0  # samples made so far
    for start in window_starts(length, VOCODER_WINDOW, 2 * VOCODER_MARGIN + FADE):
        piece = vocoder(mel[..., start : start + VOCODER_WINDOW])
        first = start * hop_length
        # The fade lies in the middle of what the two pieces share, a margin away from either end.
        begin = (first + done - fade) // 2 if done else first
        rest = piece[..., begin - first :]
        if done:
            before = samples[..., begin : begin + fade]
            rest = torch.cat([fade_over(before, rest[..., :fade]), rest[..., fade:]], -1)
        done = first + piece.shape[-1]
        samples[..., begin:done] = rest
    return samples


def fade_over(before: Tensor, after: Tensor) -> Tensor:
    """From one signal (b c s) to another, the power even on the way.

    Weights f and 1 - f give equal signals back as they are, but unrelated ones would dip by 3 dB in
    the middle: divide by sqrt(f^2 + (1 - f)^2 + 2 r f (1 - f)), where r is their correlation.
    """
    f = torch.sin(torch.linspace(0, torch.pi / 2, before.shape[-1]).to(before)).square()
    product = (before * after).sum((1, 2))
    energy = before.square().sum((1, 2)) * after.square().sum((1, 2))
    silent = energy <= 0
    r = torch.where(silent, 1, product / energy.clamp(min=1e-20).sqrt()).clamp(0, 1)
    spread = f.square() + (1 - f).square() + 2 * r[:, None, None] * f * (1 - f)
    return torch.lerp(before, after, f) / spread.sqrt()

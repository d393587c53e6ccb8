"""Waveforms <-> stereo log-mel spectrograms, the "pictures" that the music half works on.

A spectrogram has exactly one frame a hop: frame k is centred on the middle of the k-th hop, so n
frames stand for ``n * hop_length`` samples, no more and no less, and windows of frames can be cut
and joined like the audio itself.

Channel 0 of a mel is how loud each band is, both sides together. Channel 1 is where from: the pan
and the width of each pair of bands, in even and odd rows. The levels of left and right do not tell
how wide a recording sounds, as reverberation is as loud on both sides and yet not the same; and
both are bounded and mostly smooth, so that a lossy code that blurs them moves or narrows a sound
instead of silencing it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.errors import UserError


@dataclass(frozen=True)
class FrontEnd:
    """What a spectrogram is.

    Attributes:
        sample_rate: in Hz.
        n_fft: samples a frame, under a Hann window.
        hop_length: samples between frames; divides ``n_fft`` at least four times.
        n_mels: mel bands (Slaney's scale, triangles of height 1).
        f_min, f_max: where the bands begin and end, in Hz.
        log_floor: added to mel amplitudes before the logarithm; a sine of amplitude 1 has
            between 1 and 2.
        mean: subtracted from the natural logarithm of levels.
        std: what that is divided by then.
        pan_std: what pans are divided by. In music their deviation is half of this, so that a code
            with few numbers spends most of them on levels.
        width_mean, width_std: the same for widths, after the mean is subtracted.
    """

    sample_rate: int = 44100
    n_fft: int = 2048
    hop_length: int = 512
    n_mels: int = 256
    f_min: float = 20.0
    f_max: float = 20000.0
    log_floor: float = 1e-4
    mean: float = -6.2
    std: float = 1.5
    pan_std: float = 0.4
    width_mean: float = 0.45
    width_std: float = 0.6

    def __post_init__(self) -> None:
        if self.hop_length < 1 or self.n_fft % self.hop_length or self.n_fft < 4 * self.hop_length:
            raise UserError(
                f"n_fft must be a multiple, 4 or more, of hop_length, not {self.n_fft} of "
                f"{self.hop_length}"
            )
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise UserError(
                f"f_min and f_max must lie between 0 and {self.sample_rate / 2:g} Hz in that "
                f"order, not {self.f_min:g} and {self.f_max:g}"
            )
        if self.n_mels < 2 or self.n_mels % 2:
            raise UserError(f"n_mels must be even, as pan takes pairs, not {self.n_mels}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FrontEnd:
        """The front end that a ``config.json`` holds, among other keys.

        Raises:
            UserError: a field is missing, no number, or impossible.
        """
        values: dict[str, Any] = {}
        for field in fields(cls):
            value = config.get(field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UserError(f"the front end's {field.name} must be a number, not {value!r}")
            values[field.name] = type(field.default)(value)
        return cls(**values)

    def to_config(self) -> dict[str, Any]:
        """Its fields, for ``config.json``."""
        return asdict(self)

    @property
    def bins(self) -> int:
        """Frequencies of a linear spectrum."""
        return self.n_fft // 2 + 1


@dataclass(frozen=True)
class StereoMel:
    """What the two channels of a mel say.

    Attributes:
        level: (b f t) the mean of left's and right's mel amplitudes, not below 0.
        pan: (b f/2 t) their difference over their sum, from -1 (right only) to 1 (left only).
        width: (b f/2 t) the root of the side signal's share of the power, side being half the
            difference of left and right: 0 where they are equal, sqrt(1/2) where they are
            unrelated or only one sounds, 1 where they are opposite.
    """

    level: Tensor
    pan: Tensor
    width: Tensor


def waveform_to_mel(samples: Tensor, front_end: FrontEnd) -> Tensor:
    """Stereo samples (b 2 s) -> normalised mel (b 2 f t), t = ceil(s / hop_length).

    In music channel 0 has about unit variance, channel 1 a quarter of it; see :class:`StereoMel`.
    The last frame is filled up with silence.
    """
    spectra = stft(samples, front_end)
    mels = mel_bands(spectra.abs(), front_end)
    pairs = _pairs(mels)
    floor = front_end.log_floor
    pan = (pairs[:, 0] - pairs[:, 1]) / (pairs.sum(1) + 4 * floor)
    left, right = spectra.unbind(1)
    # Powers of the side signal, and of mid and side together, in pairs of bands.
    side = _pairs(mel_bands(_power(left - right), front_end)) / 4
    power = _pairs(mel_bands(_power(left) + _power(right), front_end)) / 2
    width = (side / (power + floor**2)).sqrt()
    return pack(StereoMel(mels.mean(1), pan, width), front_end)


def pack(mel: StereoMel, front_end: FrontEnd) -> Tensor:
    """What two channels say -> the channels, normalised: (b 2 f t)."""
    level = ((mel.level + front_end.log_floor).log() - front_end.mean) / front_end.std
    pan = mel.pan / front_end.pan_std
    width = (mel.width - front_end.width_mean) / front_end.width_std
    return torch.stack([level, torch.stack([pan, width], dim=2).flatten(1, 2)], dim=1)


def unpack(mel: Tensor, front_end: FrontEnd) -> StereoMel:
    """The inverse of :func:`pack`; what cannot be is moved to the nearest that can."""
    level = (mel[:, 0] * front_end.std + front_end.mean).exp() - front_end.log_floor
    pan = mel[:, 1, 0::2] * front_end.pan_std
    width = mel[:, 1, 1::2] * front_end.width_std + front_end.width_mean
    return StereoMel(level.clamp(min=0), pan.clamp(-1, 1), width.clamp(0, 1))


def log_channels(mel: Tensor, front_end: FrontEnd) -> Tensor:
    """A normalised mel (b 2 f t) -> natural logarithms of left's and right's levels (b 2 f t).

    The floor is added before, as it is to the level's own.
    """
    parts = unpack(mel, front_end)
    pan = parts.pan.repeat_interleave(2, dim=1)
    sides = torch.stack([parts.level * (1 + pan), parts.level * (1 - pan)], dim=1)
    return (sides + front_end.log_floor).log()


def silence(frames: int, front_end: FrontEnd) -> Tensor:
    """The normalised mel (2 f t) of silence."""
    none = torch.zeros(1, front_end.n_mels, frames)
    return pack(StereoMel(none, _pairs(none), _pairs(none)), front_end)[0]


def stft(samples: Tensor, front_end: FrontEnd) -> Tensor:
    """Samples (... s) -> complex spectra (... bins t), t = ceil(s / hop_length).

    A sine of amplitude 1 has a peak of magnitude 1. Beyond the ends lies silence.
    """
    hop, length = front_end.hop_length, samples.shape[-1]
    margin = (front_end.n_fft - hop) // 2
    padded = F.pad(samples, (margin, margin + -length % hop))
    spectra = torch.stft(
        padded.reshape(-1, padded.shape[-1]), front_end.n_fft, hop,
        window=hann_window(front_end, samples.device), center=False, return_complex=True,
    )  # fmt: skip
    return spectra.view(*samples.shape[:-1], *spectra.shape[1:])


def istft(spectra: Tensor, front_end: FrontEnd) -> Tensor:
    """The samples (... t * hop_length) whose spectra come nearest to these (... bins t).

    Least squares over all frames (Griffin & Lim 1984, equation 6). ``torch.istft`` does not allow
    this framing, in which no frame is centred on the first sample.
    """
    pieces = torch.fft.irfft(spectra.transpose(-1, -2), front_end.n_fft)
    pieces = pieces * hann_window(front_end, spectra.device)
    return within_margins(overlap_add(pieces, front_end), front_end)


def overlap_add(frames: Tensor, front_end: FrontEnd) -> Tensor:
    """Windowed frames (... t n_fft) -> samples (... t * hop_length), with a margin at both ends.

    Added at their places and divided by what the squared windows add up to. Where frames begin
    before the first sample or end after the last there is silence, (n_fft - hop_length)/2 of it.
    """
    scale = _overlap_scale(front_end, frames.shape[-2], frames.device)
    return _add(frames, front_end.hop_length) * scale


def within_margins(samples: Tensor, front_end: FrontEnd) -> Tensor:
    """What lies between the margins of :func:`overlap_add`."""
    margin = (front_end.n_fft - front_end.hop_length) // 2
    return samples[..., margin : samples.shape[-1] - margin]


# Constants that are kept must not be born as inference tensors: training could not use them.
@lru_cache(maxsize=4)
@torch.inference_mode(False)
def mel_filters(front_end: FrontEnd, device: torch.device | str = "cpu") -> Tensor:
    """What linear magnitudes are multiplied by to give mel ones: (n_mels bins)."""
    # Here, not above: importing torchaudio takes a while, and `shared` must have been imported.
    from torchaudio.functional import melscale_fbanks

    filters = melscale_fbanks(
        front_end.bins, front_end.f_min, front_end.f_max, front_end.n_mels,
        front_end.sample_rate, norm=None, mel_scale="slaney",
    )  # fmt: skip
    return filters.T.contiguous().to(device)


def mel_bands(magnitudes: Tensor, front_end: FrontEnd) -> Tensor:
    """Magnitudes (... bins t) -> mel amplitudes (... n_mels t), float32."""
    return mix_rows(_sparse_filters(front_end, magnitudes.device), magnitudes)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _sparse_filters(front_end: FrontEnd, device: torch.device) -> Tensor:
    return mostly_zeros(mel_filters(front_end), device)


def mostly_zeros(matrix: Tensor, device: torch.device) -> Tensor:
    """A matrix (o i) with few entries, for :func:`mix_rows`: thirty times as fast as a full one."""
    if device.type == "mps":  # it has no such matrices
        return matrix.to(device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return matrix.to_sparse_csr().to(device)


def mix_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """:func:`mostly_zeros` of (o i) times (... i t): (... o t), float32."""
    *batch, _, length = rows.shape
    side_by_side = rows.float().movedim(-2, 0).flatten(1)
    with torch.autocast(rows.device.type, enabled=False):
        mixed = matrix @ side_by_side
    return mixed.unflatten(1, (*batch, length)).movedim(0, -2)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def hann_window(front_end: FrontEnd, device: torch.device) -> Tensor:
    """The window (n_fft,), scaled so that its samples sum to 2."""
    window = torch.hann_window(front_end.n_fft, device=device)
    return window * (2 / window.sum())


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _overlap_scale(front_end: FrontEnd, count: int, device: torch.device) -> Tensor:
    """What the sum of so many frames is multiplied by, 0 in the margins."""
    n_fft, hop = front_end.n_fft, front_end.hop_length
    weight = _add(hann_window(front_end, device).square().expand(count, n_fft), hop)
    margin = (n_fft - hop) // 2
    return F.pad(1 / within_margins(weight, front_end), (margin, margin))


def _add(pieces: Tensor, hop: int) -> Tensor:
    """Pieces (... t n), n a multiple of hop, added at their places: (... (t - 1) * hop + n)."""
    *batch, frames, n = pieces.shape
    parts = pieces.reshape(*batch, frames, n // hop, hop)
    total = pieces.new_zeros(*batch, frames + n // hop - 1, hop)
    for i in range(n // hop):
        total[..., i : i + frames, :] += parts[..., i, :]
    return total.flatten(-2)


def _pairs(mel: Tensor) -> Tensor:
    """Sums of neighbouring bands: (... f t) -> (... f/2 t)."""
    return mel.unflatten(-2, (-1, 2)).sum(-2)


def _power(spectra: Tensor) -> Tensor:
    return spectra.real.square() + spectra.imag.square()

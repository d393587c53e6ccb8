"""What training takes from a folder of clips: crops of spectrograms, and windows of latents."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from audiodiff.audio_file import read_audio, resample
from audiodiff.controls import CHANNELS, draw_hidden, from_labels, hide, to_channels
from audiodiff.corpus import Row
from audiodiff.labels import SAMPLE_RATE, SAMPLES_PER_FRAME
from audiodiff.loudness import loudness_curve
from audiodiff.spectrogram import FrontEnd, waveform_to_mel
from shared.errors import UserError
from shared.latents import cached, fingerprint, read_ahead


@dataclass(frozen=True, eq=False)
class Clips:
    """Latents and controls of whole clips, end to end.

    Attributes:
        latents: (n z rows) float16, n latent frames in all. Frames come first so that a window is
            one piece of the file, of which memory holds no more than is in use.
        controls: (n CHANNELS) float16, each clip's :func:`audiodiff.controls.to_channels`.
        first: where each clip begins, and where the last one ends.
    """

    latents: Tensor
    controls: Tensor
    first: tuple[int, ...]

    def windows(self, items: Sequence[int], frames: int, offsets: Sequence[int]) -> Windows:
        """``frames`` latent frames of each clip from its frame ``offset`` on, nothing hidden."""
        starts = [self.first[item] + offset for item, offset in zip(items, offsets, strict=True)]
        latents = torch.stack([self.latents[start : start + frames] for start in starts])
        controls = torch.stack([self.controls[start : start + frames] for start in starts])
        return Windows(
            latents.permute(0, 2, 3, 1).float(), controls.permute(0, 2, 1).float()[:, :, None]
        )

    def random_windows(self, items: Sequence[int], frames: int, seeds: Sequence[int]) -> Windows:
        """A window of each clip, its place and what is hidden of its controls by its seed."""
        # A stream of its own: the seed's first numbers are the noise of the sample.
        generators = [torch.Generator().manual_seed(seed ^ 0xC119) for seed in seeds]
        offsets = [
            int(torch.randint(self.length(item) - frames + 1, (), generator=generator))
            for item, generator in zip(items, generators, strict=True)
        ]
        found = self.windows(items, frames, offsets)
        hidden = torch.stack([draw_hidden(frames, generator) for generator in generators])
        return replace(found, controls=hide(found.controls[:, :, 0], hidden)[:, :, None])

    def length(self, item: int) -> int:
        """Latent frames of a clip."""
        return self.first[item + 1] - self.first[item]


@dataclass(frozen=True, eq=False)
class Windows:
    """Latents (b z rows t) and controls (b CHANNELS 1 t) of one length, float32."""

    latents: Tensor
    controls: Tensor


def load_clips(
    rows: Sequence[Row],
    encode: Callable[[Tensor], Tensor],
    encoder: Sequence[Path],
    path: Path,
    frames: int,
    *settings: object,
) -> Clips:
    """All clips of a folder, their latents computed once and kept in ``path``.

    Clips are encoded as they are read: memory holds latents, about 6 KB a second, never all audio.
    A clip shorter than a window is filled up with silence; the last, begun frame of a longer one
    is left out. Where labels do not tell the dynamics, the audio does.

    Args:
        encode: samples (1 2 s), s a multiple of 4096, -> latents (1 z rows s/4096).
        encoder: the files that make it.
        frames: of a window.
        settings: whatever else the latents depend on, such as the front end.

    Raises:
        UserError: a file that cannot be read.
    """

    @torch.no_grad()  # of each thread its own
    def one(path: Path) -> tuple[Tensor, Tensor, float]:
        samples = _read_stereo(path)
        seconds = samples.shape[1] / SAMPLE_RATE
        samples = _whole_frames(samples, frames)
        latents = encode(torch.from_numpy(samples)[None])[0].permute(2, 0, 1).half()
        return latents, torch.from_numpy(loudness_curve(samples)), seconds

    def compute() -> dict[str, Tensor]:
        cores = os.cpu_count() or 1  # a clip each: one alone keeps a single core busy
        made = read_ahead(one, [row.path for row in rows], threads=cores, ahead=2 * cores)
        latents, levels, seconds = zip(*tqdm(made, "latents", len(rows), unit="clip"), strict=True)
        return {
            "latents": torch.cat(latents),
            "levels": torch.cat(levels),
            "lengths": torch.tensor([len(clip) for clip in latents]),
            "seconds": torch.tensor(seconds, dtype=torch.float64),
        }

    made_from = fingerprint([row.path for row in rows], encoder, frames, *settings)
    kept = cached(path, made_from, compute)
    first = [0, *kept["lengths"].cumsum(0).tolist()]
    controls = torch.empty(first[-1], CHANNELS, dtype=torch.float16)
    for row, start, end, seconds in zip(rows, first, first[1:], kept["seconds"], strict=False):
        labels = replace(
            row.labels,
            dynamics=row.labels.dynamics or tuple(kept["levels"][start:end].tolist()),
            duration=float(seconds),
        )
        controls[start:end] = to_channels(from_labels(labels, end - start)).T
    return Clips(kept["latents"], controls, tuple(first))


def mel_crop(path: Path, frames: int, place: float, front_end: FrontEnd) -> Tensor:
    """The second of :func:`crop`."""
    return crop(path, frames, place, front_end)[1]


def crop(path: Path, frames: int, place: float, front_end: FrontEnd) -> tuple[Tensor, Tensor]:
    """``frames`` frames of a clip: samples (2 s) and mel (2 f t), silence behind if it is shorter.

    Only what is needed is read. The frames at the ends are those of the whole clip, sounds around
    them included.

    Args:
        place: where, from 0 (as early as can be) to 1.

    Raises:
        UserError: the file cannot be read.
    """
    margin = front_end.n_fft // front_end.hop_length
    hop = front_end.hop_length
    samples = read_part(path, frames * hop, margin * hop, place, front_end.sample_rate)
    mel = waveform_to_mel(samples[None], front_end)[0, :, :, margin : margin + frames]
    return samples[:, margin * hop : (margin + frames) * hop], mel


def read_part(path: Path, length: int, margin: int, place: float, sample_rate: int) -> Tensor:
    """``length`` samples of a clip and ``margin`` on either side, stereo: (2 length + 2*margin).

    Silence is where the clip is not; ``place`` and errors as in :func:`crop`.
    """
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as sound:
            zoom = sound.samplerate / sample_rate
            wanted, around = round(length * zoom), round(margin * zoom)
            start = int(place * max(0, sound.frames - wanted)) - around
            sound.seek(max(0, start))
            count = wanted + 2 * around + min(0, start)
            samples = sound.read(count, dtype="float32", always_2d=True).T
            rate = sound.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read as audio: {error}") from error
    samples = np.pad(_stereo(samples), ((0, 0), (max(0, -start), 0)))
    if rate != sample_rate:
        samples = resample(samples, rate, sample_rate)
    whole = length + 2 * margin
    missing = max(0, whole - samples.shape[1])
    return torch.from_numpy(np.pad(samples[:, :whole], ((0, 0), (0, missing))))


def _read_stereo(path: Path) -> np.ndarray:
    return _stereo(read_audio(path, SAMPLE_RATE)[0])


def _stereo(samples: np.ndarray) -> np.ndarray:
    """(c s) -> (2 s): two channels stay, others are mixed and played by both."""
    if len(samples) == 2:
        return samples
    return np.repeat(samples.mean(0, keepdims=True), 2, axis=0)


def _whole_frames(samples: np.ndarray, at_least: int) -> np.ndarray:
    """Samples (2 s) cut or filled up to a number of latent frames of at least ``at_least``."""
    length = max(at_least, samples.shape[1] // SAMPLES_PER_FRAME) * SAMPLES_PER_FRAME
    return np.pad(samples[:, :length], ((0, 0), (0, max(0, length - samples.shape[1]))))

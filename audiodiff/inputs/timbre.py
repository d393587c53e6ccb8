"""How a recording sounds, whatever is played: its spectrum's mean and spread.

The statistics of a spectrogram's bands over time, without their order, are the timbre and not the
notes (as McDermott & Simoncelli 2011 have it for textures).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from audiodiff.inputs.audio import read_heard
from audiodiff.sketch import Timbre
from audiodiff.sound_curves import band_bins, band_hz
from audiodiff.spectrogram import FrontEnd, unpack, waveform_to_mel

HEARD_SECONDS = 60.0


def read_timbre(path: Path, option: str) -> Timbre:
    """The timbre of a recording, as the default front end hears it.

    Raises:
        UserError: it cannot be read, or is silent.
    """
    return timbre_of(read_heard(path, option, "sound"))


@torch.inference_mode()
def timbre_of(samples: np.ndarray) -> Timbre:
    """The timbre of samples (c s) at 44.1 kHz, of a minute from their middle at most."""
    from audiodiff.analysis import middle_part
    from audiodiff.labels import SAMPLE_RATE

    part = middle_part(samples, SAMPLE_RATE, HEARD_SECONDS)
    stereo = np.broadcast_to(part, (2, part.shape[1])) if len(part) == 1 else part[:2]
    front_end = FrontEnd()
    mel = waveform_to_mel(torch.from_numpy(np.array(stereo))[None], front_end)
    mean, spread = statistics(unpack(mel, front_end).level, front_end.log_floor)
    return Timbre(mean=_rounded(mean[0]), spread=_rounded(spread[0]))


def statistics(level: torch.Tensor, log_floor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean, less its own mean over the bands, and spread of log levels (b f t) over time: (b f)."""
    log = (level + log_floor).log()
    mean = log.mean(-1)
    return mean - mean.mean(-1, keepdim=True), log.std(-1)


def heard_by(timbre: Timbre, front_end: FrontEnd) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and spread of a timbre in the bands of a front end: (f) each.

    Timbres are kept in those of the default one. In others the levels between bands are
    interpolated, and a band that adds up more frequencies is so much louder.
    """
    mean, spread = torch.tensor(timbre.mean), torch.tensor(timbre.spread)
    own = FrontEnd()
    if front_end == own:
        return mean, spread
    here, there = band_hz(own).numpy(), band_hz(front_end).numpy()

    def moved(values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.interp(there, here, values.numpy())).float()

    mean = moved(mean - band_bins(own).log()) + band_bins(front_end).log()
    return mean - mean.mean(), moved(spread)


def _rounded(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(value, 2) for value in values.tolist())


def similarity(first: Timbre, second: Timbre) -> float:
    """Pearson's r of two timbres' band means: 1 for the same balance of low and high."""
    return float(np.corrcoef(first.mean, second.mean)[0, 1])

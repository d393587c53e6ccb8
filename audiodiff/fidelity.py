"""What a codec, and its vocoder alone, take from real clips."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from audiodiff.griffin_lim import griffin_lim
from audiodiff.labels import SAMPLE_RATE
from audiodiff.losses import log_mel_distance, mr_stft_distance
from audiodiff.metrics import stereo_drift_by_band_db, stereo_drift_db
from audiodiff.spectrogram import waveform_to_mel
from shared.report import Figure
from shared.statistics import mean_interval

if TYPE_CHECKING:
    from audiodiff.codec import MusicCodec


@torch.inference_mode()
def fidelity(
    codec: MusicCodec, clips: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], dict[str, Figure]]:
    """Send real clips through a codec, and their true mels through vocoders.

    The vocoder's own distances are told beside those of Griffin-Lim on the same mels, which a
    vocoder worth its weights is not above.

    Args:
        clips: (2 s) each at 44.1 kHz.

    Returns:
        The clips after the codec, and figures of distance, stereo image and speed.
    """
    device = next(codec.vae.parameters()).device
    front_end = codec.front_end

    def invert(mel: Tensor) -> Tensor:
        return griffin_lim(mel, front_end)

    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "codec": lambda samples: codec.decode(codec.encode(samples)),
        "vocoder": lambda samples: codec.vocoder(waveform_to_mel(samples, front_end)),
        "griffin_lim": lambda samples: invert(waveform_to_mel(samples, front_end)),
    }
    titles = {"codec": "codec", "vocoder": "vocoder alone", "griffin_lim": "Griffin-Lim alone"}
    found: dict[str, Figure] = {}
    copies: list[np.ndarray] = []
    for name, way in ways.items():
        distances: dict[str, list[float]] = {}
        start, spent = 0.0, 0.0
        for clip in tqdm(clips, titles[name], unit="clip", leave=False):
            whole = torch.from_numpy(clip)[None].to(device)
            whole = F.pad(whole, (0, -whole.shape[-1] % codec.samples_per_frame))
            start = time.perf_counter()
            again = way(whole)
            copy = again[0, :, : clip.shape[1]].float().cpu().numpy()
            spent += time.perf_counter() - start
            if name == "codec":
                copies.append(copy)
            both = again.float(), whole
            values = {
                "mr_stft": float(mr_stft_distance(*both)),
                "log_mel": float(log_mel_distance(*both, front_end)),
                "stereo": stereo_drift_db(clip, copy),
                "stereo_bands": stereo_drift_by_band_db(clip, copy),
            }
            for key, value in values.items():
                distances.setdefault(key, []).append(value)
        for key, (measure, unit) in _DISTANCES.items():
            found[f"{name}_{key}"] = _mean(f"{titles[name]}: {measure}", distances[key], unit)
        seconds = sum(clip.shape[1] for clip in clips) / SAMPLE_RATE
        found[f"{name}_speed"] = Figure(
            f"{titles[name]}: speed, times real time", seconds / spent, len(clips)
        )
    return copies, found


_DISTANCES = {
    "mr_stft": ("MR-STFT distance", ""),
    "log_mel": ("log-mel error, nat", ""),
    "stereo": ("stereo drift", "dB"),
    "stereo_bands": ("stereo drift by octaves", "dB"),
}


def _mean(title: str, values: Sequence[float], unit: str) -> Figure:
    array = np.array(values)
    return Figure(title, float(array.mean()), len(array), mean_interval(array), unit=unit)

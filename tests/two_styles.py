"""Two styles of sound that nobody confuses, a corpus of them, and a codec that does nothing."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from audiodiff.audio_file import write_audio
from audiodiff.labels import SAMPLE_RATE, Labels, to_json
from audiodiff.spectrogram import FrontEnd

STYLES = ("drone", "clicks")


def drone(seed: int, seconds: float = 2.0) -> np.ndarray:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 100 + 20 * np.random.default_rng(seed).random()
    wave = sum(np.sin(2 * np.pi * pitch * number * times) / number for number in range(1, 9))
    return np.stack([wave, wave]).astype(np.float32) * 0.2


def clicking(seed: int, seconds: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    envelope = np.exp(-30 * ((times + rng.random()) % (0.3 + 0.1 * rng.random())))
    wave = rng.normal(size=len(times)) * envelope * 0.2
    return np.stack([wave, wave]).astype(np.float32)


def write_two_styles(folder: Path, count: int = 20) -> None:
    """A corpus of clips of two seconds, one style and the other in turn."""
    rows = []
    for number in range(count):
        style, sound = (("drone", drone), ("clicks", clicking))[number % 2]
        write_audio(folder / f"{number}.flac", sound(number), SAMPLE_RATE)
        labels = Labels(kind="music", style=style, instruments=(("organ", "drums")[number % 2],))
        rows.append(json.dumps({"file_name": f"{number}.flac", "text": style} | to_json(labels)))
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")


class Echo:
    """A codec that gives back what it took, quieter."""

    samples_per_frame = 4096
    front_end = FrontEnd()

    def __init__(self) -> None:
        self.vae = nn.Linear(1, 1)

    def encode(self, samples: Tensor) -> Tensor:
        assert samples.shape[-1] % self.samples_per_frame == 0
        return samples / 2

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def vocoder(self, mel: Tensor) -> Tensor:
        return torch.zeros(len(mel), 2, mel.shape[-1] * self.front_end.hop_length)

"""The judge: a small classifier that names the style and the instruments of a few seconds of audio.

It learns from a corpus of rendered clips, and from the same clips after a codec's round trip, so
that it does not take the codec's blur for another style. It never sees a generated clip: what it
says of those is nobody's tuning. ``python -m audiodiff.judge --data DIR --model DIR --out DIR``
trains one.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import shared  # noqa: F401  (lets torchaudio import beside a CPU-only torch)
from audiodiff.audio_file import read_audio
from audiodiff.labels import SAMPLE_RATE
from shared.errors import UserError
from shared.weights import load_into, load_state, read_config, save_component

if TYPE_CHECKING:
    from audiodiff.codec import MusicCodec
    from audiodiff.corpus import Row

CARRIED = Path(__file__).with_name("judge_weights")
BASENAME = "model"
VERSION = 1  # of the network and of what it hears; another one makes old judges unusable
N_FFT = 2048
HOP_LENGTH = 1024
N_MELS = 64
F_MIN, F_MAX = 40.0, 11_025.0  # Hz
RANGE_DB = 80.0  # below the loudest that is told apart
FRAMES = 256  # of a training window: 5.9 s
CHANNELS = (24, 48, 96, 128)
WIDTH = 128
HELD_OUT = 10  # every tenth clip is for the check at the end


class Judge(nn.Module):
    """Convolutions of stride 2, mean and maximum over time, one hidden layer, two heads.

    Args:
        styles: that it tells apart, in the order of their logits.
        instruments: likewise; any number of them may sound together.
        channels: of the convolutions.
        width: of the hidden layer, whose values are the features of the Fréchet distance.
        round_trips: clips after a codec that it was trained on; 0 if it only knows clean ones.
    """

    def __init__(
        self,
        styles: Sequence[str],
        instruments: Sequence[str],
        channels: Sequence[int] = CHANNELS,
        width: int = WIDTH,
        round_trips: int = 0,
        version: int = VERSION,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "version": version,
            "styles": list(styles),
            "instruments": list(instruments),
            "channels": list(channels),
            "width": width,
            "round_trips": round_trips,
        }
        self.styles, self.instruments = list(styles), list(instruments)
        layers: list[nn.Module] = []
        for before, after in zip((1, *channels), channels, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*layers)
        rows = N_MELS // 2 ** len(channels)
        self.hidden = nn.Sequential(
            nn.Linear(2 * channels[-1] * rows, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()
        )
        self.style = nn.Linear(width, len(styles))
        self.instrument = nn.Linear(width, len(instruments))

    def forward(self, mels: Tensor) -> tuple[Tensor, Tensor]:
        """Mels (b 1 N_MELS t) as of `levelled` -> logits (b styles) and (b instruments)."""
        hidden = self.features(mels)
        return self.style(hidden), self.instrument(hidden)

    def features(self, mels: Tensor) -> Tensor:
        """Mels (b 1 N_MELS t) as of `levelled` -> the hidden layer's values (b width)."""
        heard = self.trunk(mels).flatten(1, 2)  # (b channels*rows t)
        return self.hidden(torch.cat((heard.mean(dim=-1), heard.amax(dim=-1)), dim=1))


@lru_cache
def _filters() -> Tensor:
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(N_FFT // 2 + 1, F_MIN, F_MAX, N_MELS, SAMPLE_RATE)


def mel_db(samples: np.ndarray) -> Tensor:
    """The mel spectrogram of the mono mix of samples (c s), power in dB: (N_MELS t)."""
    mono = torch.from_numpy(np.asarray(samples, dtype=np.float32).mean(axis=0))
    short = max(0, N_FFT - len(mono))
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(
        F.pad(mono, (0, short)), N_FFT, HOP_LENGTH, window=window, return_complex=True
    )
    power = _filters().T @ spectrum.abs().square()
    return 10 * power.clamp(min=1e-10).log10()


def levelled(mels: Tensor) -> Tensor:
    """Mels in dB (b N_MELS t) -> what the judge hears (b 1 N_MELS t): 0 to 1 below each's loudest.

    How loud a clip is as a whole tells nothing of its style.
    """
    loudest = mels.amax(dim=(1, 2), keepdim=True)
    return ((mels - loudest) / RANGE_DB + 1).clamp(0, 1)[:, None]


@dataclass(frozen=True)
class Opinion:
    """What the judge takes a clip for."""

    style: str
    instruments: frozenset[str]


@torch.inference_mode()
def listen(judge: Judge, clips: Iterable[np.ndarray]) -> list[Opinion]:
    """What the judge says of clips (c s) at 44.1 kHz, each alone."""
    opinions = []
    for samples in clips:
        style, instruments = judge(levelled(mel_db(samples)[None]))
        present = (instruments[0] > 0).nonzero()[:, 0].tolist()
        opinions.append(
            Opinion(
                judge.styles[int(style[0].argmax())],
                frozenset(judge.instruments[number] for number in present),
            )
        )
    return opinions


@torch.inference_mode()
def features_of(judge: Judge, pieces: Iterable[np.ndarray]) -> np.ndarray:
    """The judge's features of pieces of sound (c s) at 44.1 kHz, each alone: (n width)."""
    found = [judge.features(levelled(mel_db(piece)[None]))[0] for piece in pieces]
    return torch.stack(found).numpy()


def load_judge(folder: Path | None = None, say: Callable[[str], None] | None = None) -> Judge:
    """The judge of a folder, or the carried one.

    Args:
        folder: where `train_judge` put it.
        say: takes a line for the user about what the judge cannot be trusted with.

    Raises:
        UserError: there is none, or one of another version.
    """
    folder = folder or CARRIED
    if not (folder / "config.json").exists():
        raise UserError(
            f"{str(folder)!r} holds no judge; train one with "
            "`python -m audiodiff.judge --data CORPUS --model MODEL --out FOLDER`"
        )
    config = read_config(folder)
    if config.get("version") != VERSION:
        raise UserError(f"the judge in {str(folder)!r} is of another version; train a new one")
    if say is not None and not config.get("round_trips"):
        say("The judge was trained on clean clips only; it marks down a codec's blur")
    return load_into(lambda: Judge(**config), load_state(folder, BASENAME), folder)


@dataclass(frozen=True)
class JudgeTraining:
    """How the judge is trained: AdamW, one cycle of the rate; a quarter of an hour on a core."""

    clips: int = 6_000  # at most, drawn by lot
    round_trips: int = 1_000  # six-second windows that go through the codec
    steps: int = 3_000
    batch_size: int = 48
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class _Examples:
    """Mels in dB (N_MELS t), with the number of the style and the instruments of each."""

    mels: list[Tensor]
    styles: Tensor  # (n,)
    instruments: Tensor  # (n instruments), 0 or 1

    def pick(self, chosen: Sequence[int]) -> _Examples:
        return _Examples(
            [self.mels[i] for i in chosen], self.styles[chosen], self.instruments[chosen]
        )


def train_judge(
    data: Path,
    codec: MusicCodec | None = None,
    how: JudgeTraining | None = None,
    say: Callable[[str], None] | None = None,
) -> Judge:
    """Train a judge on a corpus; of every tenth clip it is told how well it knows them.

    Args:
        data: a folder of clips labelled with style and instruments.
        codec: whose round trips it shall know; without it, clean clips only.
        how: the recipe.
        say: takes a line with its shares of right answers on held-out clips.

    Raises:
        UserError: too few clips with labels, or a file that cannot be read.
    """
    from audiodiff.corpus import read_folder

    how = how or JudgeTraining()
    rows = [row for row in read_folder(data) if row.labels.style and row.labels.instruments]
    if len(rows) < 2 * HELD_OUT:
        raise UserError(
            f"{str(data)!r} has {len(rows)} clips labelled with style and instruments; "
            f"a judge needs {2 * HELD_OUT} or more"
        )
    rng = random.Random(how.seed)
    rows = rng.sample(rows, min(how.clips, len(rows)))
    styles = sorted({str(row.labels.style) for row in rows})
    instruments = sorted({name for row in rows for name in row.labels.instruments})
    clean, coded = _examples(rows, styles, instruments, codec, how.round_trips)
    sets = [part for part in (clean, coded) if part.mels]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        judge = Judge(styles, instruments, round_trips=len(coded.mels))
    _fit(judge, [part.pick(_numbers(part, held_out=False)) for part in sets], how)
    if say is not None:
        for name, part in zip(("clean clips", "codec round trips"), sets, strict=False):
            held_out = part.pick(_numbers(part, held_out=True))
            if held_out.mels:
                say(f"held-out {name}: {_check(judge, held_out)}")
    return judge


def _numbers(part: _Examples, held_out: bool) -> list[int]:
    # By the clip's number, so that no clip is learnt clean and asked coded.
    return [i for i in range(len(part.mels)) if (i % HELD_OUT == 0) == held_out]


def _examples(
    rows: Sequence[Row],
    styles: list[str],
    instruments: list[str],
    codec: MusicCodec | None,
    round_trips: int,
) -> tuple[_Examples, _Examples]:
    """The clips, and the first of them again after the codec, one window each."""
    clean, coded = [], []
    for row in tqdm(rows, "listening", unit="clip", leave=False):
        samples, _ = read_audio(row.path, SAMPLE_RATE)
        clean.append(mel_db(samples).half())
        if codec is not None and len(coded) < round_trips:
            coded.append(mel_db(round_trip(codec, samples[:, : FRAMES * HOP_LENGTH])).half())
    style = torch.tensor([styles.index(str(row.labels.style)) for row in rows])
    present = torch.tensor(
        [[float(name in row.labels.instruments) for name in instruments] for row in rows]
    )
    n = len(coded)
    return _Examples(clean, style, present), _Examples(coded, style[:n], present[:n])


@torch.inference_mode()
def round_trip(codec: MusicCodec, samples: np.ndarray) -> np.ndarray:
    """Samples (1 or 2, s) through the codec and back: (2 s) float32."""
    stereo = torch.from_numpy(np.asarray(samples, dtype=np.float32)).expand(2, -1)
    length = stereo.shape[1]
    whole = F.pad(stereo, (0, -length % codec.samples_per_frame))
    device = next(codec.vae.parameters()).device
    return codec.decode(codec.encode(whole[None].to(device)))[0, :, :length].float().cpu().numpy()


def _fit(judge: Judge, sets: Sequence[_Examples], how: JudgeTraining) -> None:
    rng = torch.Generator().manual_seed(how.seed)
    draw = random.Random(how.seed)
    optimizer = torch.optim.AdamW(
        judge.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay, fused=True
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, how.learning_rate, total_steps=how.steps, pct_start=0.15, cycle_momentum=False
    )
    judge.train()
    for _ in tqdm(range(how.steps), "training the judge", unit="step", leave=False):
        # Clean clips and round trips in equal parts, however many there are of each.
        batch = [
            part.pick(draw.choices(range(len(part.mels)), k=how.batch_size // len(sets)))
            for part in sets
        ]
        mels = torch.stack([_window(mel, draw) for part in batch for mel in part.mels])
        styles, instruments = judge(augment(levelled(mels.float()), rng))
        loss = F.cross_entropy(styles, torch.cat([part.styles for part in batch]))
        present = torch.cat([part.instruments for part in batch])
        loss = loss + 3 * F.binary_cross_entropy_with_logits(instruments, present)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
    judge.eval()


def _window(mel: Tensor, draw: random.Random) -> Tensor:
    """Six seconds of a mel (N_MELS t) from anywhere; what is shorter is repeated."""
    while mel.shape[1] < FRAMES:
        mel = torch.cat((mel, mel), dim=1)
    start = draw.randint(0, mel.shape[1] - FRAMES)
    return mel[:, start : start + FRAMES]


def augment(mels: Tensor, rng: torch.Generator) -> Tensor:
    """Mels (b 1 f t) of `levelled`, made softer, noisier, brighter or duller.

    Generated clips are softer and rougher than rendered ones; that shall not decide.
    """

    def draw(low: float, high: float) -> Tensor:
        return torch.empty((len(mels), 1, 1, 1)).uniform_(low, high, generator=rng)

    soft = F.avg_pool2d(mels, 3, stride=1, padding=1, count_include_pad=False)
    mels = torch.lerp(mels, soft, draw(-0.5, 1.2).clamp(0, 1))
    tilt = torch.linspace(-1, 1, mels.shape[2])[:, None] * draw(-0.1, 0.1)
    noise = torch.empty_like(mels).normal_(generator=rng)
    return (mels + tilt + draw(-0.05, 0.05) + noise * draw(-0.04, 0.06).clamp(0, 1)).clamp(0, 1)


@torch.inference_mode()
def _check(judge: Judge, examples: _Examples) -> str:
    mels = [_window(mel, random.Random(0)).float()[None] for mel in examples.mels]
    answers = [judge(levelled(mel)) for mel in mels]
    right = torch.cat([styles.argmax(dim=1) for styles, _ in answers]) == examples.styles
    found = torch.cat([instruments > 0 for _, instruments in answers])
    hits = (found & examples.instruments.bool()).sum()
    f1 = 2 * hits / (found.sum() + examples.instruments.sum()).clamp(min=1)
    return f"style {right.float().mean():.3f}, instrument F1 {f1:.3f}, n {len(mels)}"


def main(args: Sequence[str] | None = None) -> None:
    """Train a judge from the command line."""
    recipe = JudgeTraining()
    parser = argparse.ArgumentParser(description="Train the judge of styles and instruments.")
    parser.add_argument("--data", type=Path, required=True, help="labelled corpus of clips")
    parser.add_argument("--out", type=Path, default=CARRIED, help="folder to write")
    parser.add_argument("--model", type=Path, help="model folder whose codec it shall know")
    parser.add_argument("--clips", type=int, default=recipe.clips)
    parser.add_argument("--round-trips", type=int, default=recipe.round_trips)
    parser.add_argument("--steps", type=int, default=recipe.steps)
    parser.add_argument("--device", default="auto", help="of the codec")
    given = parser.parse_args(args)
    how = replace(recipe, clips=given.clips, round_trips=given.round_trips, steps=given.steps)

    from audiodiff.codec import MusicCodec
    from shared.devices import resolve_device

    try:
        codec = MusicCodec.load(given.model, resolve_device(given.device)) if given.model else None
        judge = train_judge(given.data, codec, how, lambda line: print(line, file=sys.stderr))
        save_component(judge, given.out, basename=BASENAME)
    except UserError as error:
        sys.exit(f"Error: {error}")
    print(given.out)


if __name__ == "__main__":
    main()

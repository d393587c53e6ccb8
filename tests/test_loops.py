"""Loops: bars to the sample, an end that goes on at the beginning, and files that say so."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command import Duotone, refused
from scipy.io import wavfile
from tiny_music import play_levels
from torch import Tensor

from audiodiff import MusicPipeline
from audiodiff.audio_file import FORMATS, Tags, read_audio, read_loop, write_audio
from audiodiff.loop_points import LoopPoints, loop_points, read_chunks
from audiodiff.loops import at, decode_circle
from audiodiff.theory import parse_key
from shared.denoiser import DenoiseFn
from shared.windows import circular, circular_starts

SIGMA = torch.tensor([2.0, 0.5])
LAYOUTS = [(64, 64, 24), (10, 64, 24), (41, 64, 24), (200, 64, 24), (7, 4, 1)]


@pytest.fixture(scope="module")
def pipeline(tiny_music_model: Path) -> MusicPipeline:
    loaded = MusicPipeline.load(tiny_music_model, device="cpu", dtype="float32")
    loaded.codec.vocoder = play_levels  # what it sounds like is of no account here
    return loaded


def blur(starts: object) -> DenoiseFn:
    """Sees two places to either side, and zeros beyond the window."""
    kernel = torch.ones(3, 1, 1, 5) / 5

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(x, kernel, padding=(0, 2), groups=3)

    return denoise


# Windows round a circle


@pytest.mark.parametrize("length, window, overlap", LAYOUTS)
@pytest.mark.parametrize("turn", [0.0, 0.4, 0.999])
def test_windows_cover_a_circle(length: int, window: int, overlap: int, turn: float) -> None:
    starts = sorted(circular_starts(length, window, overlap, turn))
    assert all(0 <= start < length for start in starts)
    gaps = [b - a for a, b in zip(starts, [*starts[1:], starts[0] + length], strict=True)]
    assert all(0 < gap <= window - overlap for gap in gaps)


@pytest.mark.parametrize("length, window, overlap", LAYOUTS)
def test_a_pointwise_denoiser_gives_the_same(length: int, window: int, overlap: int) -> None:
    x = torch.randn(2, 3, 2, length, generator=torch.Generator().manual_seed(0))
    denoise = circular(lambda starts: lambda x, sigma: x.tanh(), length, window, overlap)
    assert torch.allclose(denoise(x, SIGMA), x.tanh(), atol=1e-6)


def test_noise_rolled_gives_the_result_rolled() -> None:
    """By the spacing of windows it is exactly so; nothing knows where the circle begins."""
    x = torch.randn(2, 3, 2, 120, generator=torch.Generator().manual_seed(0))
    denoise = circular(blur, 120, 64, 24)
    assert len(circular_starts(120, 64, 24)) == 3
    rolled = denoise(x.roll(40, -1), SIGMA)
    assert torch.allclose(rolled, denoise(x, SIGMA).roll(40, -1), atol=1e-6)
    assert not torch.allclose(rolled, denoise(x, SIGMA), atol=0.1)


def test_the_end_sees_the_beginning() -> None:
    """What a window's edge does not see counts little: a smooth circle stays smooth at its end."""
    x = torch.sin(torch.arange(30) * 2 * torch.pi / 30).expand(1, 3, 2, 30)
    around = circular(blur, 30, 64, 24)(x, SIGMA[:1])
    true = blur(None)(torch.cat([x, x, x], -1), SIGMA)[..., 30:60]
    assert (around - true).abs().max() < 0.01
    assert (blur(None)(x, SIGMA) - true)[..., [0, -1]].abs().max() > 0.1  # what a plain window does


def test_windows_turn_from_level_to_level() -> None:
    seen: list[tuple[int, ...]] = []

    def windows(starts) -> DenoiseFn:  # type: ignore[no-untyped-def]
        seen.append(tuple(starts))
        return lambda x, sigma: x

    denoise = circular(windows, 86, 64, 24)
    for sigma in (80.0, 40.0, 20.0, 10.0, 5.0):
        denoise(torch.zeros(1, 1, 1, 86), torch.tensor([sigma]))
    assert len(set(seen)) >= 4


# Sound round a circle


def test_frames_between_frames_go_round() -> None:
    mel = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    same = (torch.arange(-4, 8, dtype=torch.float64) + 0.5) / 4
    assert torch.equal(at(mel, same), mel.repeat(1, 3))
    assert at(mel, torch.tensor([1.0, 0.25], dtype=torch.float64)).tolist() == [[1.5, 0.5]]


@pytest.mark.parametrize("samples", [16 * 4096, 16 * 4096 + 1999, 16 * 4096 - 2047])
def test_the_last_sample_leads_to_the_first(
    pipeline: MusicPipeline, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tone(mel: Tensor) -> Tensor:
        return torch.sin(torch.arange(mel.shape[-1] * 512) * torch.tensor([[[0.1], [0.13]]]))

    monkeypatch.setattr(pipeline.codec, "vocoder", tone)
    latents = torch.randn(1, 4, 2, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        made = decode_circle(pipeline.codec, latents, samples)
        straight = pipeline.codec.decode(latents)
    assert made.shape == (1, 2, samples)

    def leap(x: Tensor) -> float:
        """The second difference over the wrap, which a break makes large, against all others."""
        bends = torch.cat([x, x[..., :2]], -1).diff(n=2).abs().amax((0, 1))
        return (bends[-2:].max() / bends[:-2].quantile(0.99)).item()

    assert leap(made) < 1.5
    assert leap(straight) > 3


def test_lengths_are_exact_at_any_tempo_and_rate(pipeline: MusicPipeline) -> None:
    for bars, bpm, meter, rate in [(1, 131, 4, 44100), (1, 97.3, 3, 48000), (1, 180, 5, 22050)]:
        (clip,) = pipeline(
            "techno", loop=bars, bpm=bpm, meter=meter, sample_rate=rate, steps=1, guidance_scale=1
        )
        assert clip.samples.shape == (2, round(bars * meter * 60 / bpm * rate))
    assert pipeline.plan("a waltz, 120 bpm", loop=2)[0].seconds == 3
    assert pipeline.plan("techno", loop=2)[0].seconds == 4.8  # at 100 bpm
    assert "100 bpm" in pipeline.remarks("techno", loop=2)[0]


def test_beats_go_round_exactly(pipeline: MusicPipeline) -> None:
    from audiodiff.loops import stated_controls
    from audiodiff.wishes import read_wishes

    wishes = read_wishes("techno", 131)
    beats = stated_controls(wishes, 1, 20).values["beats"]  # 19.7 frames
    phase = torch.atan2(beats[2], beats[3]) / (2 * torch.pi) % 1  # of the bar
    assert torch.allclose(phase, (torch.arange(20) + 0.5) / 20, atol=1e-4)


# Files


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_tell_their_loop(tmp_path: Path, suffix: str) -> None:
    loop = loop_points(88200, 1, 4, 120.5, parse_key("F# minor"))
    path = tmp_path / f"x{suffix}"
    write_audio(path, np.zeros((2, 88200), np.float32), 44100, Tags("{}", "hello", loop))
    found = read_loop(path)
    assert found is not None
    assert (found.start, found.length, found.bpm) == (0, 88200, 120.5)
    if suffix == ".wav":
        assert found == loop == LoopPoints(0, 88200, 120.5, 4, 4, 6)
    assert read_audio(path)[0].shape == (2, 88200)
    write_audio(tmp_path / f"y{suffix}", np.zeros((2, 9000), np.float32), 44100, Tags("{}", "x"))
    assert read_loop(tmp_path / f"y{suffix}") is None


def test_chunks_are_as_their_formats_have_them(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    samples = np.linspace(-0.5, 0.5, 2 * 1000, dtype=np.float32).reshape(2, 1000)
    write_audio(path, samples, 48000, Tags("{}", "", loop_points(1000, 2, 3, 90, parse_key("A"))))
    content = path.read_bytes()
    assert struct.unpack_from("<I", content, 4)[0] == len(content) - 8
    smpl = content.index(b"smpl")
    numbers = struct.unpack_from("<16I", content, smpl + 4)
    assert numbers == (60, 0, 0, 20833, 69, 0, 0, 0, 1, 0, 0, 0, 0, 999, 0, 0)
    acid = struct.unpack_from("<IIHHfIHHf", content, content.index(b"acid") + 4)
    assert acid == (24, 6, 69, 0x8000, 0.0, 6, 4, 3, 90.0)
    with pytest.warns(wavfile.WavFileWarning):  # another reader, which passes over such chunks
        assert np.array_equal(wavfile.read(path)[1], soundfile.read(path, dtype="int16")[0])


def test_broken_chunks_are_no_loop() -> None:
    head = b"RIFF\0\0\0\0WAVE"
    assert read_chunks(head) is None
    assert read_chunks(head + b"smpl\x08\0\0\0" + bytes(8)) is None
    assert read_chunks(head + b"smpl\x3c\0\0\0" + bytes(60)) is None  # no loop in it
    assert read_chunks(head + b"smpl\xff\xff\xff\xff" + bytes(20)) is None


def test_a_loop_from_the_command_line(duotone: Duotone, tiny_music_model: Path) -> None:
    options = ["--model", tiny_music_model, "--steps", 1, "--seed", 3, "--bpm", 150]
    made = duotone("music", "techno in A minor", "--loop", 1, *options, "-o", "x.wav")
    assert made.code == 0, made.err
    record = json.loads(duotone("info", "x.wav", "--json").out[0])
    assert record["loop"] == 1 and record["meter"] is None and record["seconds"] == 1.6
    assert record["loop_points"] == {
        "start": 0, "length": 70560, "bpm": 150, "beats": 4, "meter": 4, "root": 9,
    }  # fmt: skip
    told = dict(line.split("  ", 1) for line in duotone("info", "x.wav").out if "  " in line)
    assert told["file's loop"].strip() == "samples 0 to 70559"
    assert told["file's loop root"].strip() == "A"
    replayed = duotone("replay", "x.wav", "--model", tiny_music_model)
    assert replayed.out == ["x-replay.wav", "identical"]


@pytest.mark.parametrize(
    "args, fragments",
    [
        (["--loop", 4, "--seconds", 6], ["--loop", "--seconds"]),
        (["--loop", 0], ["bars", "1 to 256", "0"]),
        (["--loop", "x"], ["--loop", "x"]),
        (["--loop", 250, "--bpm", 30], ["seconds", "600"]),
        (["--meter", 1], ["meter", "2 to 12"]),
    ],
)
def test_loops_that_cannot_be_are_refused(
    duotone: Duotone, args: list[object], fragments: list[str]
) -> None:
    refused(duotone("music", "techno", *args), *fragments)

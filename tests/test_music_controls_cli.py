"""``duotone music`` with controls: what is recorded, made again and refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import Duotone, names, refused

from audiodiff.audio_file import write_audio


@pytest.fixture
def music(duotone: Duotone, tiny_music_model: Path) -> Duotone:
    """Run ``duotone music ARGS`` with the tiny model: one step."""
    return lambda *args: duotone("music", "--model", tiny_music_model, "--steps", 1, *args)


def test_controls_are_recorded_and_made_again_without_their_files(
    music: Duotone, duotone: Duotone, tiny_music_model: Path
) -> None:
    time = np.arange(44100) / 44100
    write_audio(Path("hum.wav"), np.sin(time * 2 * np.pi * 220)[None].astype("f4") / 4, 44100)
    args = ["--melody", "hum.wav", "--chords", "Am F", "--rhythm", "x...x..."]
    args += ["--dynamics", "0:-30 1:-12", "--meter", "3/4", "--bpm", 120, "--seed", 3]
    args += ["--weight", "melody=2", "--span", "chords=0:1", "--seconds", 2]
    result = music("a folk tune", *args, "-o", "x.wav", "--json")
    assert result.code == 0
    record = json.loads(result.out[0])
    assert record["seconds"] == 2 and record["bpm"] == 120 and record["meter"] == 3
    told = record["sketch"]
    ((start, end, pitch),) = told["melody"]["notes"]
    assert pitch == 57 and start < 0.1 and end > 0.9 and told["melody"]["weight"] == 2
    assert told["chords"]["spans"] == [[0, 1.5, "Am"], [1.5, 2, "F"]]
    assert told["chords"]["span"] == [0, 1]
    assert told["rhythm"]["strokes"] == [0, 0.5, 1, 1.5]
    assert told["dynamics"]["points"] == [[0, -30], [1, -12]]
    assert -16 < record["loudness"] < -8
    Path("hum.wav").unlink()
    again = duotone("replay", "x.wav", "--model", tiny_music_model)
    assert again.out == ["x-replay.wav", "identical"]
    shown = "\n".join(duotone("info", "x.wav").out)
    assert "melody" in shown


def test_without_controls_nothing_is_recorded(music: Duotone) -> None:
    record = json.loads(music("a folk tune", "--seconds", 0.5, "--json").out[0])
    assert record["sketch"] is None and record["meter"] is None and record["loudness"] == -16


@pytest.mark.parametrize(
    "args, fragments",
    [
        (["--melody", "C4 X4"], ["--melody", "word 2", "'X4'"]),
        (["--melody", "C4:20", "--seconds", "6", "--bpm", "60"], ["--melody lasts 20.00 s"]),
        (["--chords", "Am Hm"], ["--chords", "word 2"]),
        (["--rhythm", "tune.mid"], ["--rhythm", "no file 'tune.mid'"]),
        (["--dynamics", "0:-30 x"], ["--dynamics", "word 2"]),
        (["--meter", "waltz"], ["--meter", "3/4"]),
        (["--meter", "40/4"], ["meter must be from 2 to 12"]),
        (["--weight", "melody=1"], ["--weight", "--melody", "not given"]),
        (["--control-by", "magic", "--chords", "C"], ["'magic'", "channels, gradient, both"]),
    ],
)
def test_what_cannot_be_is_refused(music: Duotone, args: list[str], fragments: list[str]) -> None:
    refused(music("a folk tune", *args), *fragments)
    assert names() == []

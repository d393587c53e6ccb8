"""``duotone samplers`` and ``samplers compare``, on tiny models."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import Duotone, refused
from PIL import Image

from audiodiff.audio_file import read_audio
from imagediff.sheets import CAPTION_LINES, GAP, LINE
from shared.comparison import parse_comparison
from shared.errors import UserError
from shared.samplers import SAMPLERS
from shared.schedules import SCHEDULES


def test_samplers_are_listed_a_line_each(duotone: Duotone) -> None:
    lines = duotone("samplers").out
    assert [line.split()[0] for line in lines] == list(SAMPLERS)
    heun = next(line for line in lines if line.startswith("heun "))
    assert "order 2   2 a step  deterministic  " in heun and heun.endswith("arXiv 2206.00364)")
    own = next(line for line in lines if line.startswith("adaptive "))
    assert "order adaptive      deterministic  " in own
    records = [json.loads(line) for line in duotone("samplers", "--json").out]
    assert [record["name"] for record in records] == list(SAMPLERS)
    assert records[0]["stochastic"] is True and records[0]["evaluations_per_step"] == 1


def test_schedules_are_listed_a_line_each(duotone: Duotone) -> None:
    assert [line.split()[0] for line in duotone("samplers", "--schedules").out] == list(SCHEDULES)
    records = [json.loads(line) for line in duotone("samplers", "--schedules", "--json").out]
    assert all(set(record) == {"name", "summary", "paper"} for record in records)


@pytest.mark.parametrize("command", ["image", "music"])
def test_help_says_where_the_names_are(duotone: Duotone, command: str) -> None:
    shown = " ".join(" ".join(duotone(command, "--help").out).split())
    assert "duotone samplers lists them" in shown and "duotone samplers --schedules" in shown


def test_a_comparison_is_samplers_by_steps() -> None:
    comparison = parse_comparison("euler, heun", "1,20")
    assert comparison.pairs() == [("euler", 1), ("euler", 20), ("heun", 1), ("heun", 20)]
    assert comparison.captions()[:2] == ["euler, 1 step", "euler, 20 steps"]
    for bad in (("euler,euler", "1"), ("euler", "1,1"), ("euler", "1,x"), ("euler", "0")):
        with pytest.raises(UserError):
            parse_comparison(*bad)


def test_pictures_are_compared_in_one_labelled_sheet(duotone: Duotone, tiny_model: Path) -> None:
    common = ("a cat", "--model", tiny_model, "--seed", 3)
    chosen = ("--samplers", "adaptive,ddpm", "--steps", "1,3", "-o", "x.png")
    assert duotone("samplers", "compare", *common, *chosen).out == ["x.png"]
    with Image.open("x.png") as picture:
        sheet = np.asarray(picture)
    side = 32 + GAP
    assert sheet.shape == (2 * (side + CAPTION_LINES * LINE) + GAP, 2 * side + GAP, 3)
    duotone("image", *common, "--sampler", "ddpm", "--steps", 1, "-o", "alone.png")
    top = GAP + side + CAPTION_LINES * LINE
    with Image.open("alone.png") as alone:
        assert np.array_equal(sheet[top : top + 32, GAP : GAP + 32], np.asarray(alone))

    record = json.loads(duotone("info", "x.png", "--json").out[0])
    assert record["samplers"] == ["adaptive", "ddpm"] and record["steps"] == [1, 3]
    assert record["prompt"] == "a cat" and record["seed"] == 3 and "sampler" not in record
    again = duotone("replay", "x.png", "--model", tiny_model)
    assert again.code == 2 and "sheet of several pictures" in again.err


def test_clips_are_compared_in_a_folder(duotone: Duotone, tiny_music_model: Path) -> None:
    common = ("a waltz", "--model", tiny_music_model, "--seed", 3, "--seconds", 0.5)
    chosen = ("--art", "music", "--samplers", "euler,ddpm", "--steps", "1", "-o", "clips")
    made = duotone("samplers", "compare", *common, *chosen).out
    assert made == [f"clips/{name}" for name in ("euler-1.wav", "ddpm-1.wav", "spectrograms.png")]
    duotone("music", *common, "--sampler", "ddpm", "--steps", 1, "-o", "alone.wav")
    alone, compared = read_audio(Path("alone.wav"))[0], read_audio(Path("clips/ddpm-1.wav"))[0]
    assert np.array_equal(alone, compared)
    with Image.open("clips/spectrograms.png") as sheet:
        assert sheet.height > 600  # one above the other
    again = duotone("samplers", "compare", *common, *chosen)
    assert again.code == 2 and "--overwrite" in again.err


@pytest.mark.parametrize(
    "options, fragments",
    [
        (["--samplers", "eulr"], ["eulr", "did you mean 'euler'"]),
        (["--samplers", "eulr", "--art", "music", "-o", "new"], ["eulr", "'euler'"]),
        (["--steps", "5,x"], ["steps", "5,x"]),
        (["--steps", "0"], ["steps", "1 to 10000"]),
        (["--samplers", "euler,euler"], ["samplers", "twice"]),
        (["--seconds", "3"], ["--seconds", "pictures"]),
        (["--art", "dance"], ["dance", "music"]),
        (["-o", "x.jpg"], ["x.jpg", ".png"]),
        (["--art", "music", "-o", "a/b"], ["no such folder"]),
    ],
)
def test_bad_input(
    duotone: Duotone,
    tiny_model: Path,
    tiny_music_model: Path,
    options: list[str],
    fragments: list[str],
) -> None:
    model = tiny_music_model if "music" in options else tiny_model
    refused(duotone("samplers", "compare", "cat", "--model", model, *options), *fragments)

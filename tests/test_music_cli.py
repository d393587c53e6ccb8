"""The commands about music, on a tiny model: what they print, write and refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import Duotone, names, refused
from PIL import Image

import cli
from audiodiff.audio_file import read_audio, write_audio


@pytest.fixture
def music(duotone: Duotone, tiny_music_model: Path) -> Duotone:
    """Run ``duotone music ARGS`` with the tiny model: half a second in one step."""
    return lambda *args: duotone(
        "music", "--model", tiny_music_model, "--steps", 1, "--seconds", 0.5, *args
    )


# What it makes


def test_music_prints_the_path_of_a_wav(music: Duotone) -> None:
    result = music("a slow waltz", "--seed", 7)
    assert (result.code, result.out) == (0, ["a-slow-waltz-7.wav"])
    samples, rate = read_audio(Path("a-slow-waltz-7.wav"))
    assert samples.shape == (2, 22050) and rate == 44100
    assert 0 < np.abs(samples).max() <= 10 ** (-1 / 20) + 2**-15
    assert "step" in result.err  # the progress bar
    assert names() == ["a-slow-waltz-7.wav"]


def test_json_is_one_complete_record_a_clip(music: Duotone) -> None:
    result = music("techno", "--count", 2, "--seed", 5, "--bpm", 130, "--key", "Am", "--json")
    first, second = map(json.loads, result.out)
    assert [list(one.pop("kept")) for one in (first, second)] == [["tempo", "key"]] * 2
    assert (first["seed"], second["seed"]) == (5, 6)
    assert first | {"seed": 6, "path": second["path"]} == second
    assert first["prompt"] == "techno" and first["bpm"] == 130 and first["key"] == "Am"
    assert first["seconds"] == 0.5 and first["sample_rate"] == 44100 and first["loudness"] == -16


def test_each_of_many_is_the_one_made_alone(music: Duotone) -> None:
    made = music("techno", "--count", 3, "--seed", 4).out
    assert made == ["techno-4.wav", "techno-5.wav", "techno-6.wav"]
    alone = music("techno", "--seed", 5, "-o", "alone.wav").out[0]
    assert Path(alone).read_bytes() == Path("techno-5.wav").read_bytes()


def test_unknown_words_and_contradictions_are_told_in_a_line_each(music: Duotone) -> None:
    result = music("a slow polka at 80 bpm", "--bpm", 90)
    notes = [line for line in result.err.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 2 and "80 bpm; 90 is taken" in notes[0] and "polka" in notes[1]
    assert result.code == 0 and len(result.out) == 1


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg"])
def test_every_format_tells_and_is_made_again(
    music: Duotone, duotone: Duotone, tiny_music_model: Path, suffix: str
) -> None:
    options = ["--seed", 3, "--sampler", "ddpm", "--bpm", 90, "--sample-rate", 48000]
    assert music("techno", "-o", f"x{suffix}", *options).out == [f"x{suffix}"]
    record = json.loads(duotone("info", f"x{suffix}", "--json").out[0])
    assert record["prompt"] == "techno" and record["bpm"] == 90 and record["sampler"] == "ddpm"
    assert record["analysis"]["seconds"] == 0.5 and record["analysis"]["sample_rate"] == 48000
    result = duotone("replay", f"x{suffix}", "--model", tiny_music_model)
    assert result.out == [f"x-replay{suffix}", "identical"]
    assert "Note" not in result.err
    assert Path(f"x{suffix}").read_bytes() == Path(f"x-replay{suffix}").read_bytes()


def test_replay_tells_what_differs(
    music: Duotone, duotone: Duotone, tiny_music_model: Path, tmp_path: Path
) -> None:
    music("techno", "-o", "x.wav")
    other = tmp_path / "other"
    shutil.copytree(tiny_music_model, other)
    config = json.loads((other / "vae" / "config.json").read_text())
    (other / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 2.0}))
    result = duotone("replay", "x.wav", "--model", other, "-o", "y.flac")
    assert result.code == 0
    assert result.out[0] == "y.flac" and result.out[1].startswith("differs: by at most")
    assert "Note: model hash was " in result.err


# What it refuses


@pytest.mark.parametrize(
    "args, fragments",
    [
        ([""], ["prompt is empty"]),
        (["techno", "--seconds", "0"], ["seconds", "0.5 to 600", "0"]),
        (["techno", "--seconds", "-3"], ["seconds", "-3"]),
        (["techno", "--seconds", "1e9"], ["seconds", "600"]),
        (["techno", "--seconds", "nan"], ["seconds", "nan"]),
        (["techno", "--seconds", "long"], ["--seconds", "long"]),
        (["techno", "--bpm", "0"], ["bpm", "30 to 300"]),
        (["techno", "--bpm", "9000"], ["bpm", "9000"]),
        (["techno", "--bpm", "nan"], ["bpm", "nan"]),
        (["techno", "--key", "H minor"], ["H minor", "A to G"]),
        (["techno", "--key", ""], ["unknown key"]),
        (["techno", "--sample-rate", "100"], ["sample rate", "8000 to 192000"]),
        (["techno", "--sample-rate", "96000", "-o", "x.mp3"], [".mp3", "96000 Hz"]),
        (["techno", "--loudness", "5"], ["loudness", "-60 to -6"]),
        (["techno", "--steps", "0"], ["steps", "1", "10000"]),
        (["techno", "--sampler", "eulr"], ["eulr", "did you mean 'euler'"]),
        (["techno", "--guidance-scale", "-1"], ["guidance scale"]),
        (["techno", "--seed", "-1"], ["seed"]),
        (["techno", "--count", "0"], ["count", "1 to 10000"]),
        (["techno", "-o", "x.aac"], ["x.aac", ".wav, .flac, .mp3 or .ogg"]),
        (["techno", "-o", "x"], ["'x'", ".wav"]),
        (["techno", "-o", "missing/x.wav"], ["missing", "no such folder"]),
        (["techno", "-o", "/dev/null/x.wav"], ["/dev/null", "not a folder"]),
        ([], ["PROMPT"]),
    ],
)
def test_bad_input(music: Duotone, args: list[str], fragments: list[str]) -> None:
    refused(music(*args), *fragments)


def test_a_folder_that_cannot_be_written(music: Duotone) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder that even root cannot write to")
    refused(music("techno", "-o", "/proc/self/x.wav"), "/proc/self")


def test_an_existing_file_is_kept(music: Duotone) -> None:
    Path("x-4.wav").write_text("old")
    result = music("techno", "-o", "x.wav", "--seed", 3, "--count", 2)
    assert result.code == 2 and result.out == []
    assert "x-4.wav" in result.err and "--overwrite" in result.err
    assert names() == ["x-4.wav"] and Path("x-4.wav").read_text() == "old"
    assert music("techno", "-o", "x-4.wav", "--overwrite").code == 0


def test_a_picture_model_makes_no_music(duotone: Duotone, tiny_model: Path) -> None:
    result = duotone("music", "techno", "--model", tiny_model)
    refused(result, "no music model", "DuotoneMusicPipeline")


def test_a_music_model_makes_no_pictures(duotone: Duotone, tiny_music_model: Path) -> None:
    refused(duotone("image", "cat", "--model", tiny_music_model), "no image model")


def test_a_missing_soundfont_tells_what_to_install(duotone: Duotone, tmp_path: Path) -> None:
    args = ["data", "music", "--hours", "0.01", "--out", "corpus"]
    refused(duotone(*args, "--soundfont", tmp_path / "none.sf2"), "none.sf2", "fluid-soundfont-gm")


@pytest.mark.parametrize("hours", ["0", "-1", "nan"])
def test_hours_that_cannot_be(duotone: Duotone, hours: str) -> None:
    refused(duotone("data", "music", "--hours", hours, "--out", "corpus"), "hours")


def test_missing_evaluation_prompts(duotone: Duotone, tiny_music_model: Path) -> None:
    args = ["evaluate", "music", "--model", tiny_music_model, "--prompts", "none.jsonl"]
    refused(duotone(*args), "none.jsonl")


# info, models, train


def chord(seconds: float = 3.0, rate: int = 22050) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    notes = sum(np.sin(2 * np.pi * 440 * 2 ** (n / 12) * time) for n in (0, 3, 7, 12))
    return np.stack([notes, notes]).astype(np.float32) / 20


def test_info_listens_to_any_recording(duotone: Duotone) -> None:
    write_audio(Path("theirs.flac"), chord(), 22050)
    lines = duotone("info", "theirs.flac").out
    told = dict(line.split("  ", 1) for line in lines)
    told = {name.strip(): value.strip() for name, value in told.items()}
    assert told["heard duration"] == "3.000 s" and told["heard sample rate"] == "22050 Hz"
    assert told["heard channels"] == "2" and told["heard loudness"].endswith(" LUFS")
    assert "heard tempo" in told and told["heard key"] == "probably A minor"
    record = json.loads(duotone("info", "theirs.flac", "--json").out[0])
    assert list(record) == ["analysis"] and record["analysis"]["key"] == "A minor"
    replay = duotone("replay", "theirs.flac")
    assert replay.code == 2 and "no record" in replay.err


def test_content_decides_what_a_file_is(duotone: Duotone) -> None:
    write_audio(Path("x.wav"), chord(1), 22050)
    Path("x.wav").rename("x.png")
    assert duotone("info", "x.png").out[0].split() == ["heard", "duration", "1.000", "s"]
    Image.new("RGB", (8, 8)).save("y.png")
    Path("y.png").rename("y.wav")
    assert "does not tell what made it" in duotone("info", "y.wav").err


def test_info_draws_a_spectrogram(duotone: Duotone) -> None:
    write_audio(Path("x.wav"), chord(), 22050)
    result = duotone("info", "x.wav", "--plot", "x.png")
    assert result.code == 0 and "Spectrogram: x.png" in result.err
    with Image.open("x.png") as picture:
        assert picture.format == "PNG" and picture.size[0] > 800
    again = duotone("info", "x.wav", "--plot", "x.png")
    assert again.code == 2 and "--overwrite" in again.err and again.out == []
    assert duotone("info", "x.wav", "--plot", "x.png", "--overwrite").code == 0


def test_info_refuses_what_is_no_audio(duotone: Duotone, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "empty.mp3").write_bytes(b"")
    write_audio(tmp_path / "whole.wav", chord(), 22050)
    (tmp_path / "part.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:9000])
    for command in ("info", "replay"):
        refused(duotone(command, tmp_path / "text.wav"), "text.wav", "not an audio file")
        refused(duotone(command, tmp_path / "empty.mp3"), "empty.mp3", "not an audio file")
        refused(duotone(command, tmp_path / "part.wav"), "part.wav", "damaged")
        refused(duotone(command, tmp_path / "none.wav"), "no file")
    refused(duotone("info", tmp_path / "whole.wav", "--plot", "x.jpg"), "x.jpg", ".png")
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    refused(duotone("info", tmp_path / "picture.png", "--plot", "x.png"), "--plot", "recording")


def test_models_lists_and_shows_music(
    duotone: Duotone, tiny_music_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUOTONE_MODELS", str(tiny_music_model.parent))
    line = next(line for line in duotone("models").out if line.startswith("tiny_music "))
    assert "MiB" in line and "apache-2.0" in line and "text to music" in line
    shown = "\n".join(duotone("models", "show", "tiny_music").out)
    assert "A tiny music model" in shown and "waltz" in shown
    refused(duotone("models", "show", "tiny_musik"), "did you mean 'tiny_music'")


@pytest.mark.parametrize("part", ["vae", "diffusion"])
def test_the_config_says_which_art_is_trained(
    duotone: Duotone, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    trained = []
    for art in ("image", "music"):
        monkeypatch.setitem(cli.TRAINERS[part], art, lambda *args, art=art: trained.append(art))
    for text in ("art: music\n", "art: image\n", "loop: {}\n"):
        Path("run.yaml").write_text(text)
        assert duotone("train", part, "--config", "run.yaml", "--data", "x", "--out", "y").code == 0
    assert trained == ["music", "image", "image"]
    Path("run.yaml").write_text("art: musik\n")
    result = duotone("train", part, "--config", "run.yaml", "--data", "x", "--out", "y")
    assert result.code == 2 and "did you mean 'music'" in result.err


def test_a_vocoder_is_music_s(duotone: Duotone, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    monkeypatch.setitem(cli.TRAINERS["vocoder"], "music", lambda *args: trained.append(args[0]))
    Path("run.yaml").write_text("loop: {}\n")
    args = ["train", "vocoder", "--config", "run.yaml", "--data", "x", "--out", "y"]
    assert duotone(*args).code == 0 and len(trained) == 1
    Path("run.yaml").write_text("art: image\n")
    assert "choose one of: music" in duotone(*args).err
    Path("run.yaml").unlink()
    refused(duotone(*args), "run.yaml")

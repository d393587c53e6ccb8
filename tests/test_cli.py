"""The command line, on a tiny model: what it prints, writes and refuses."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import Duotone, names, refused
from PIL import Image


@pytest.fixture
def image(duotone: Duotone, tiny_model: Path) -> Duotone:
    """Run ``duotone image ARGS`` with the tiny model in two steps."""
    return lambda *args: duotone("image", "--model", tiny_model, "--steps", 2, *args)


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


# What it makes


def test_image_prints_the_path_of_a_png(image: Duotone) -> None:
    result = image("a red apple", "--seed", 7)
    assert (result.code, result.out) == (0, ["a-red-apple-7.png"])
    assert pixels("a-red-apple-7.png").shape == (32, 32, 3)
    assert "step" in result.err  # the progress bar
    assert names() == ["a-red-apple-7.png"]


def test_without_a_seed_a_new_one_is_drawn_and_recorded(image: Duotone) -> None:
    records = [json.loads(image("a cat", "--json").out[0]) for _ in range(2)]
    assert records[0]["seed"] != records[1]["seed"]
    assert records[0]["path"] == f"a-cat-{records[0]['seed']}.png"


def test_json_is_one_complete_record_an_image(image: Duotone) -> None:
    result = image("a cat", "--count", 2, "--seed", 5, "--negative-prompt", "dog", "--json")
    first, second = map(json.loads, result.out)
    assert (first["seed"], second["seed"]) == (5, 6)
    assert first | {"seed": 6, "path": second["path"]} == second
    assert first["prompt"] == "a cat" and first["negative_prompt"] == "dog"
    assert first["steps"] == 2 and first["size"] == [32, 32] and first["model"] == "tiny"
    assert set(first) >= {"sampler", "schedule", "guidance_scale", "model_hash", "version"}


def test_each_of_many_is_the_one_made_alone(image: Duotone) -> None:
    made = image("a cat", "--count", 3, "--seed", 4).out
    assert made == ["a-cat-4.png", "a-cat-5.png", "a-cat-6.png"]
    alone = image("a cat", "--seed", 5, "-o", "alone.png").out[0]
    assert Path(alone).read_bytes() == Path("a-cat-5.png").read_bytes()
    assert not np.array_equal(pixels("a-cat-4.png"), pixels("a-cat-5.png"))


def test_output_may_be_a_file_a_stem_or_a_folder(image: Duotone) -> None:
    Path("folder").mkdir()
    assert image("a cat", "-o", "x.PNG").out == ["x.PNG"]
    assert image("a cat", "-o", "y.png", "--count", 2, "--seed", 8).out == ["y-8.png", "y-9.png"]
    assert image("a cat", "-o", "folder", "--seed", 1).out == [str(Path("folder/a-cat-1.png"))]


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat " * 1700,
        "🍎🍏",
        "قطة حمراء",
        "a\x00b\x1b[31m\nc\u202e\r",
        "\udcff cat",
        "../x/..",
        "नमस्ते",
    ],
    ids=["long", "emoji", "arabic", "control", "no-utf8", "dots", "marks"],
)
def test_any_prompt_is_drawn_recorded_and_named(
    image: Duotone, duotone: Duotone, prompt: str
) -> None:
    (path,) = image(prompt, "--seed", 1).out
    assert Path(path).parent == Path() and names() == [path]
    assert len(os.fsencode(path)) < 100 and path.isprintable()
    record = json.loads(duotone("info", path, "--json").out[0])
    assert record["prompt"] == prompt.replace("\udcff", "?")
    shown = duotone("info", path)
    assert shown.code == 0 and all(line.isprintable() for line in shown.out)


def test_unknown_words_and_a_cut_end_are_told_in_a_line_each(image: Duotone) -> None:
    result = image("a red appel " + "a cat " * 20)
    notes = [line for line in result.err.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 2
    assert "never saw: appel (nearest: apple" in notes[0]
    assert "10 tokens" in notes[1]
    assert result.code == 0 and len(result.out) == 1


def test_overwrite_replaces(image: Duotone) -> None:
    Path("x.png").write_text("old")
    assert image("a cat", "-o", "x.png", "--overwrite").code == 0
    assert pixels("x.png").shape == (32, 32, 3)


def test_size_is_width_by_height(image: Duotone) -> None:
    image("a cat", "--size", "40x24", "-o", "x.png")
    with Image.open("x.png") as picture:
        assert picture.size == (40, 24)


# What it refuses


@pytest.mark.parametrize(
    "args, fragments",
    [
        ([""], ["prompt is empty"]),
        ([" \n"], ["prompt is empty"]),
        (["cat", "--steps", "0"], ["steps", "1", "10000"]),
        (["cat", "--steps", "10001"], ["steps", "1", "10000"]),
        (["cat", "--size", "30x32"], ["30x32", "multiple of 8", "from 8 to 256", "32x32"]),
        (["cat", "--size", "32x0"], ["32x0", "multiple of 8"]),
        (["cat", "--size", "32x264"], ["32x264", "256"]),
        (["cat", "--size", "big"], ["WIDTHxHEIGHT", "big"]),
        (["cat", "--sampler", "eulr"], ["eulr", "did you mean 'euler'", "ddim", "dpm++2m"]),
        (["cat", "--schedule", "kraras"], ["kraras", "did you mean 'karras'", "exponential"]),
        (["cat", "--guidance-scale", "nan"], ["guidance scale", "nan"]),
        (["cat", "--guidance-scale", "inf"], ["guidance scale", "inf"]),
        (["cat", "--guidance-scale", "-1"], ["guidance scale", "0 to 1000"]),
        (["cat", "--seed", "-1"], ["seed", "4294967295"]),
        (["cat", "--seed", "4294967295", "--count", "2"], ["seed", "4294967296"]),
        (["cat", "--count", "0"], ["count", "1 to 10000"]),
        (["cat", "--count", "10001"], ["count", "1 to 10000"]),
        (["cat", "--device", "tpu"], ["tpu", "cpu"]),
        (["cat", "--dtype", "int8"], ["int8", "bfloat16"]),
        (["cat", "-o", "x.jpg"], ["x.jpg", ".png"]),
        (["cat", "-o", "x"], ["'x'", ".png"]),
        (["cat", "-o", "missing/x.png"], ["missing", "no such folder"]),
        (["cat", "-o", "/dev/null/x.png"], ["/dev/null", "not a folder"]),
        (["cat", "-o", "x" * 300 + ".png"], ["name too long"]),
        (["cat", "--step", "3"], ["--step"]),
        ([], ["PROMPT"]),
    ],
)
def test_bad_input(image: Duotone, args: list[str], fragments: list[str]) -> None:
    refused(image(*args), *fragments)


def test_cuda_is_refused_where_there_is_none(image: Duotone) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    refused(image("cat", "--device", "cuda"), "cuda")


def test_a_folder_that_cannot_be_written(image: Duotone) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder that even root cannot write to")
    refused(image("cat", "-o", "/proc/self/x.png"), "/proc/self")


def test_an_existing_file_is_kept(image: Duotone) -> None:
    Path("x-4.png").write_text("old")
    result = image("a cat", "-o", "x.png", "--seed", 3, "--count", 2)
    assert result.code == 2 and result.out == []
    assert "x-4.png" in result.err and "--overwrite" in result.err
    assert names() == ["x-4.png"] and Path("x-4.png").read_text() == "old"


def test_a_missing_model(duotone: Duotone, tmp_path: Path) -> None:
    refused(duotone("image", "cat", "--model", tmp_path / "none"), "none")


def truncate_weights(model: Path) -> None:
    file = model / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def become_another_kind(model: Path) -> None:
    index = json.loads((model / "model_index.json").read_text())
    index["_class_name"] = "AudioLDMPipeline"
    (model / "model_index.json").write_text(json.dumps(index))


def add_a_layer_to_the_config(model: Path) -> None:
    config = json.loads((model / "unet" / "config.json").read_text())
    (model / "unet" / "config.json").write_text(json.dumps(config | {"layers_per_block": 2}))


def drop_a_level_from_the_config(model: Path) -> None:
    config = json.loads((model / "vae" / "config.json").read_text())
    for key in ("block_out_channels", "down_block_types", "up_block_types"):
        config[key] = config[key][:-1]
    (model / "vae" / "config.json").write_text(json.dumps(config))


def keep_a_pickle_only(model: Path) -> None:
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")


def lose_the_tokenizer(model: Path) -> None:
    shutil.rmtree(model / "tokenizer")


@pytest.mark.parametrize(
    "spoil, fragments",
    [
        (truncate_weights, ["unet", "truncated"]),
        (become_another_kind, ["AudioLDMPipeline", "StableDiffusionPipeline"]),
        (add_a_layer_to_the_config, ["unet", "missing (", "down_blocks"]),
        (drop_a_level_from_the_config, ["vae", "unexpected (", "blocks"]),
        (keep_a_pickle_only, ["diffusion_pytorch_model.bin", "pickle"]),
        (lose_the_tokenizer, ["tokenizer", "missing"]),
    ],
)
def test_a_spoilt_model(
    duotone: Duotone,
    tiny_model: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    fragments: list[str],
) -> None:
    model = tmp_path / "spoilt"
    shutil.copytree(tiny_model, model)
    spoil(model)
    refused(duotone("image", "cat", "--model", model), *fragments)


def test_a_pickle_file_as_model(duotone: Duotone, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04.")
    refused(duotone("image", "cat", "--model", tmp_path / "model.ckpt"), "pickle")


# info, replay, models


def test_info_reads_what_other_tools_wrote(duotone: Duotone) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("parameters", "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Seed: 5")
    Image.new("RGB", (8, 8)).save("theirs.png", pnginfo=text)
    assert duotone("info", "theirs.png").out[0].split() == ["Prompt", "a", "cat"]
    record = json.loads(duotone("info", "theirs.png", "--json").out[0])
    assert record == {
        "Prompt": "a cat",
        "Negative prompt": "dog",
        "Steps": "20",
        "Sampler": "Euler a",
        "Seed": "5",
    }
    replay = duotone("replay", "theirs.png")
    assert replay.code == 2 and "no record" in replay.err


def test_info_refuses_what_is_no_picture(duotone: Duotone, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    refused(duotone("info", tmp_path / "text.png"), "no picture that can be read")
    refused(duotone("info", tmp_path / "bare.png"), "does not tell")
    refused(duotone("info", tmp_path / "none.png"), "no file")
    refused(duotone("info", tmp_path), "cannot read")


def test_info_refuses_a_truncated_picture(duotone: Duotone, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "part.png").write_bytes((tmp_path / "whole.png").read_bytes()[:4000])
    refused(duotone("info", tmp_path / "part.png"), "part.png")


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++2m"])
def test_replay_makes_the_same_pixels(
    image: Duotone, duotone: Duotone, tiny_model: Path, sampler: str
) -> None:
    image("a cat", "--sampler", sampler, "--guidance-scale", 2.5, "--size", "24x40", "-o", "x.png")
    result = duotone("replay", "x.png", "--model", tiny_model)
    assert result.code == 0
    assert result.out == ["x-replay.png", "identical"]
    assert "Note" not in result.err
    assert Path("x.png").read_bytes() == Path("x-replay.png").read_bytes()


def test_replay_tells_what_differs(
    image: Duotone, duotone: Duotone, tiny_model: Path, tmp_path: Path
) -> None:
    image("a cat", "-o", "x.png")
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    config = json.loads((other / "vae" / "config.json").read_text())
    (other / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.1}))
    result = duotone("replay", "x.png", "--model", other, "-o", "y.png")
    assert result.code == 0
    assert result.out[0] == "y.png" and result.out[1].startswith("differs: by at most")
    assert "Note: model hash was " in result.err
    again = duotone("replay", "x.png", "--model", other, "-o", "y.png")
    assert again.code == 2 and "--overwrite" in again.err


def test_replay_needs_the_model(image: Duotone, duotone: Duotone) -> None:
    image("a cat", "-o", "x.png")
    result = duotone("replay", "x.png")
    assert result.code == 2 and "'tiny'" in result.err


def test_models_lists_and_shows(
    duotone: Duotone, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUOTONE_MODELS", str(tiny_model.parent))
    line = next(line for line in duotone("models").out if line.startswith("tiny "))
    assert "MiB" in line and "apache-2.0" in line and "text to image" in line
    shown = "\n".join(duotone("models", "show", "tiny").out)
    assert "A tiny model" in shown and "apple" in shown
    refused(duotone("models", "show", "tinny"), "did you mean 'tiny'")

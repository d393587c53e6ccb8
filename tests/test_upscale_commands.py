"""``duotone upscale``, its training and its measurement, on a tiny model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import Duotone, names, refused
from PIL import Image
from test_generation import SETTINGS
from tiny_upscaler import tiny_upscaler, write_tiny_upscaler

from imagediff.adherence import draw_by_lot, read_evaluation
from imagediff.enlarged_settings import Enlarged
from imagediff.evaluate import REAL_SEEDS, real_pictures
from imagediff.evaluate_upscale import evaluate_upscale
from imagediff.judge import load_judge
from imagediff.metrics import psnr
from imagediff.objects import FONT
from imagediff.shrink import enlarge, shrink
from imagediff.upscaler import Upscaler

CONFIG = """
unet:
  sample_size: 8
  in_channels: 24
  out_channels: 12
  block_out_channels: [8, 8]
  down_block_types: [DownBlock2D, DownBlock2D]
  up_block_types: [UpBlock2D, UpBlock2D]
  mid_block_type: UNetMidBlock2D
  layers_per_block: 1
  norm_num_groups: 4
  num_class_embeds: 2
scheduler: {beta_schedule: squaredcos_cap_v2, prediction_type: v_prediction}
residual_std: [0.3, 0.4]
crop: 16
loop: {steps: 4, batch_size: 4, sample_every: 2, checkpoint_every: 2}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upscalers") / "tiny"
    write_tiny_upscaler(folder)
    return folder


def draw(name: str = "in.png", size: tuple[int, int] = (12, 10)) -> Image.Image:
    levels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    image = Image.fromarray(levels)
    image.save(name)
    return image


def test_a_picture_is_made_larger_told_of_and_made_again(duotone: Duotone, model: Path) -> None:
    picture = draw()
    options = ("--model", model, "--dtype", "float32", "--seed", 4, "--steps", 2)
    (path,) = duotone("upscale", "in.png", "--factor", 4, *options).out
    assert path == "in-x4.png"
    with Image.open(path) as made:
        expected = Upscaler.load(model, "cpu", "float32")(picture, 4, steps=2, seed=4)
        assert np.array_equal(np.asarray(made), np.asarray(expected))
        assert "Upscale: 4" in made.info["parameters"]
    record = json.loads(duotone("info", path, "--json").out[0])
    assert (record["task"], record["factor"], record["size"]) == ("upscale", 4, [48, 40])
    replayed = duotone("replay", path, "--model", model)
    assert replayed.out == ["in-x4-replay.png", "identical"]
    record = json.loads(duotone("upscale", "in.png", *options, "--json", "-o", "x.png").out[0])
    assert record["path"] == "x.png" and record["size"] == [24, 20]
    draw(size=(13, 10))
    again = duotone("replay", path, "--model", model, "--overwrite")
    assert again.code == 2 and "no longer the file" in again.err


def test_a_picture_is_made_larger_once_it_is_drawn(duotone: Duotone, tiny_model: Path) -> None:
    """With its own seed and by the carried upscaler, which its record names."""
    how = ("image", "a cat", "--seed", 3, "--steps", 2, "--model", tiny_model)
    (plain,) = duotone(*how, "-o", "plain.png").out
    (path,) = duotone(*how, "--upscale", 2, "-o", "large.png").out
    with Image.open(plain) as drawn, Image.open(path) as made:
        upscaler = Upscaler.load("builtin", "cpu", json.loads(drawn.info["duotone"])["dtype"])
        assert made.size == (2 * drawn.width, 2 * drawn.height)
        assert np.array_equal(np.asarray(made), np.asarray(upscaler(drawn, 2, seed=3)))
        assert "Size: 32x32, Hires upscale: 2" in made.info["parameters"]
    record = json.loads(duotone("info", path, "--json").out[0])
    assert record["upscale"] == {
        "factor": 2, "model": upscaler.name, "model_hash": upscaler.hash
    }  # fmt: skip
    assert duotone("replay", path, "--model", tiny_model).out == ["large-replay.png", "identical"]
    assert duotone("replay", plain, "--model", tiny_model).out == ["plain-replay.png", "identical"]


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (("--upscale", 3), "the factor must be 2 or 4, not 3"),
        (("--upscale", 2, "--tile"), "a tile made larger has a seam"),
        (("--upscale", 4, "--size", "128x40000"), "size"),
    ],
)
def test_what_cannot_be_made_larger_is_one_line(
    duotone: Duotone, tiny_model: Path, args: tuple[object, ...], fault: str
) -> None:
    refused(duotone("image", "a cat", "--steps", 1, "--model", tiny_model, *args), fault)


def test_another_upscaler_is_told_of() -> None:
    before = replace(SETTINGS, upscale=Enlarged(2, "builtin", "one"))
    (line,) = before.changes(replace(SETTINGS, upscale=Enlarged(2, "builtin", "two")))
    assert line.startswith("upscaler was") and "'one'" in line and "'two'" in line
    assert before.changes(before) == []


def test_the_prompt_of_a_made_picture_stays_known(
    duotone: Duotone, model: Path, tiny_model: Path
) -> None:
    (made,) = duotone("image", "a red apple", "--model", tiny_model, "--steps", 2).out
    (path,) = duotone("upscale", made, "--model", model).out
    assert json.loads(duotone("info", path, "--json").out[0])["prompt"] == "a red apple"


def test_bad_input_is_one_line(duotone: Duotone, model: Path, tiny_model: Path) -> None:
    refused(duotone("upscale", "none.png", "--model", model), "there is no file 'none.png'")
    refused(duotone("upscale", "x.png", "--factor", 3, "--model", model), "2 or 4, not 3")
    refused(duotone("upscale", "x.png", "--model", tiny_model), "is no upscaler model")
    refused(duotone("image", "a cat", "--model", model), "is no image model")
    for name, told in (("in.txt", "is neither"), ("in.jpg", None), ("in.gif", "mode RGB")):
        draw()
        result = duotone("upscale", "in.png", "--model", model, "-o", name)
        Path("in.png").unlink()
        if told is None:
            assert result.code == 0
            Path(name).unlink()
        else:
            refused(result, told)
    draw(size=(2100, 2000))
    result = duotone("upscale", "in.png", "--factor", 4, "--model", model)
    assert result.code == 2 and "too many" in result.err and names() == ["in.png"]
    frames = [Image.new("L", (4, 4), level) for level in (0, 255)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    result = duotone("upscale", "moving.gif", "--model", model)
    assert result.code == 2 and "animated" in result.err


def test_models_tells_of_it(duotone: Duotone, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUOTONE_MODELS", str(model.parent))
    line = next(line for line in duotone("models").out if line.startswith("tiny "))
    assert "upscaling" in line


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = []
    for number in range(6):
        draw(str(folder / f"{number}.png"), (37, 33))
        rows.append(json.dumps({"file_name": f"{number}.png", "text": "grain"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


def test_training_makes_a_model_that_upscales(
    duotone: Duotone, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    command = ("train", "upscaler", "--config", tmp_path / "run.yaml", "--data", pictures)
    assert duotone(*command, "--out", tmp_path / "own").code == 0
    log = (tmp_path / "own" / "runs" / "upscaler" / "log.jsonl").read_text().splitlines()
    last = json.loads(log[-1])
    assert last["step"] == 4 and np.isfinite(last["loss"])
    assert {"psnr_ours_x2", "psnr_bicubic_x4"} < set(last)
    assert duotone(*command, "--out", tmp_path / "own").code == 2  # a run is there
    draw()
    (path,) = duotone("upscale", "in.png", "--model", tmp_path / "own").out
    with Image.open(path) as made:
        assert made.size == (24, 20)

    # The first two steps, then the rest: as in one piece.
    (tmp_path / "run.yaml").write_text(CONFIG.replace("steps: 4", "steps: 2"))
    assert duotone(*command, "--out", tmp_path / "parts").code == 0
    half = weights(tmp_path / "parts")
    (tmp_path / "run.yaml").write_text(CONFIG)
    assert duotone(*command, "--out", tmp_path / "parts", "--resume").code == 0
    assert weights(tmp_path / "parts") != half

    (tmp_path / "run.yaml").write_text(CONFIG.replace("crop: 16", "crop: 12"))
    result = duotone(*command, "--out", tmp_path / "other")
    assert result.code == 2 and "multiple of 4 pixels times the 2" in result.err
    (tmp_path / "run.yaml").write_text(CONFIG.replace("crop: 16", "crop: 40"))
    result = duotone(*command, "--out", tmp_path / "other")
    assert result.code == 2 and "37x33" in result.err


def weights(folder: Path) -> bytes:
    return (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.mark.skipif(not FONT.exists(), reason="the emoji font is not installed")
def test_every_way_stands_beside_bicubic_and_the_scenes_themselves() -> None:
    upscaler = tiny_upscaler()
    prompts = read_evaluation()
    report = evaluate_upscale(
        upscaler, load_judge(), prompts, limit=1, steps=2, cases=((2, 32), (4, 16))
    )
    rows = {(row.factor, row.side, row.method): row for row in report.rows}
    ways = ["bicubic", "lanczos", "ours", "real"]
    assert list(rows) == [(*case, way) for case in ((2, 32), (4, 16)) for way in ways]
    for (factor, side, way), row in rows.items():
        low, high = row.top1_interval
        assert row.n >= 4 and low <= row.top1 <= high and row.top1 <= row.top5
        assert (row.psnr is None) == (way == "real")
        assert (row.gain is None) == (way in ("bicubic", "real"))
        if row.gain is not None:
            base = rows[factor, side, "bicubic"].psnr
            assert base is not None and row.psnr == pytest.approx(base + row.gain)
    these = draw_by_lot(prompts, 1, 0)
    scenes = real_pictures(these, REAL_SEEDS[0], 64)
    values = [
        psnr(np.asarray(scene)[None], np.asarray(enlarge(shrink(scene, 4, "bicubic"), 4))[None])
        for scene in scenes
    ]
    assert rows[4, 16, "bicubic"].psnr == pytest.approx(np.mean(values))
    table = report.table()
    assert "32 to 64 px" in table and f"n {rows[2, 32, 'ours'].n}" in table
    assert json.dumps(report.record())

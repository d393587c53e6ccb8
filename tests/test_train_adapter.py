"""`duotone train adapter` from end to end, on a tiny model."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import Duotone
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from imagediff import ImagePipeline
from imagediff.adapter_objective import AdapterConfig
from imagediff.data import read_folder
from imagediff.layout_settings import Region
from imagediff.region_data import SHAPES, draw_hole, draw_shares, grow, lies_in, read_regions
from imagediff.shapes import coarse, to_hex
from shared.config import read_config
from shared.errors import UserError

CONFIG = """
model: {model}
rank: 2
phrases: 3
loop: {{steps: {steps}, batch_size: 3, warmup: 1, sample_every: 2, learning_rate: 1.0e-2,
  checkpoint_every: 1}}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    rows = []
    for i, boxes in enumerate([[(2, 2, 12, 12)], [(0, 8, 12, 8), (18, 4, 10, 20)]] * 10):
        image = Image.new("RGB", (32, 32), "white")
        outlines = []
        for x, y, width, height in boxes:
            ImageDraw.Draw(image).rectangle((x, y, x + width - 1, y + height - 1), fill="red")
            inside = np.zeros((32, 32))
            inside[y : y + height, x : x + width] = 1
            outlines.append(to_hex(inside))
        image.save(folder / f"{i}.png")
        row = {"file_name": f"{i}.png", "text": "a red apple", "boxes": boxes, "shapes": outlines}
        rows.append(row | {"phrases": ["a red apple", "a dog"][: len(boxes)]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def train(
    duotone: Duotone,
    model: Path,
    data: Path,
    out: Path,
    *more: str,
    steps: int = 2,
    begin: str = "",
) -> str:
    """Its message; "" if it went well."""
    config = out.parent / f"{out.name}.yaml"
    config.write_text(CONFIG.format(model=model, steps=steps) + begin)
    result = duotone("train", "adapter", "--config", config, "--data", data, "--out", out, *more)
    return "" if result.code == 0 else result.err.strip().splitlines()[-1]


def differences(out: Path) -> dict:
    return load_file(out / "adapter" / "unet" / "pytorch_lora_weights.safetensors")


def test_a_run_gives_a_model_that_takes_layouts(
    duotone: Duotone, tiny_model: Path, scenes: Path, tmp_path: Path
):
    out = tmp_path / "out"
    assert train(duotone, tiny_model, scenes, out) == ""
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        for path in (tiny_model / name).iterdir():
            assert path.read_bytes() == (out / name / path.name).read_bytes()
    last = json.loads((out / "runs" / "adapter" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2 and set(last["layout_gap"]) == set(last["hole_gap"])
    assert (out / "runs" / "adapter" / "samples" / "000002.png").exists()
    pipeline = ImagePipeline.load(out, "cpu", "float32").adapted
    layout = (Region("a dog", box=(0, 0, 16, 16)),)
    with_it, without = (pipeline("a dog", steps=2, layout=these)[0] for these in (layout, ()))
    assert with_it.tobytes() != without.tobytes()

    assert "holds a model already" in train(duotone, tiny_model, scenes, out)
    assert train(duotone, tiny_model, scenes, out, "--resume", steps=3) == ""
    again = tmp_path / "again"
    assert train(duotone, tiny_model, scenes, again, steps=3) == ""
    # Resumed, it is what a run in one piece is.
    for key, tensor in differences(again).items():
        assert (tensor - differences(out)[key]).abs().max() < 2e-3

    further = tmp_path / "further"
    assert train(duotone, out, scenes, further, steps=1, begin=f"init: {out}") == ""
    key = "unet.conv_in.more_inputs.weight"
    moved = (differences(further)[key] - differences(out)[key]).abs().max()
    assert 0 < moved < 0.05
    other = train(duotone, out, scenes, tmp_path / "x", begin=f"init: {tiny_model}")
    assert "has no adapter/" in other


def test_rows_without_places_are_refused(
    duotone: Duotone, tiny_model: Path, scenes: Path, tmp_path: Path
):
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (32, 32)).save(data / "a.png")
    good = json.loads((scenes / "metadata.jsonl").read_text().splitlines()[0])
    good |= {"file_name": "a.png"}
    for fault in (
        {"boxes": None},
        {"boxes": [[0, 0, 40, 4]]},
        {"boxes": [[0, 0, 4]]},
        {"phrases": []},
        {"phrases": ["a", "b"]},
        {"shapes": ["00"]},
    ):
        (data / "metadata.jsonl").write_text(json.dumps(good | fault))
        message = train(duotone, tiny_model, data, tmp_path / "out", "--resume")
        assert "duotone data scenes" in message or "hexadecimal digits" in message


def test_the_project_s_own_config_is_valid():
    path = Path(__file__).parents[1] / "imagediff" / "configs" / "adapter.yaml"
    assert read_config(path, AdapterConfig).rank == 3
    with pytest.raises(UserError, match="rankk"):
        bad = path.parent / "none.yaml"
        read_config(bad if bad.exists() else _with_fault(path), AdapterConfig)


def _with_fault(path: Path) -> Path:
    import tempfile

    folder = Path(tempfile.mkdtemp())
    (folder / "x.yaml").write_text(path.read_text() + "\nrankk: 3\n")
    return folder / "x.yaml"


# What is drawn by lot


def test_shares_of_every_shape_lie_around_the_object(scenes: Path):
    regions = read_regions(read_folder(scenes), (32, 32)).items[1]
    rng = np.random.default_rng(0)
    box = np.zeros((32, 32))
    box[8:16, 0:12] = 1
    exact = coarse(box, (8, 8))
    for shape in SHAPES:
        shares = shape(regions.boxes[0], regions.outlines[0], (8, 8), rng)
        assert shares.shape == (8, 8) and shares.min() >= 0 and shares.max() <= 1 + 1e-6
        assert shares[exact == 1].mean() > 0.75 and not shares[:, 6:].any()
    several = [draw_shares(regions, (8, 8), rng) for _ in range(30)]
    assert all(shares.shape == (2, 8, 8) and shares.sum(0).max() <= 1 + 1e-6 for shares in several)
    assert len({shares.tobytes() for shares in several}) > 3


def test_holes_leave_something_and_differ(scenes: Path):
    regions = read_regions(read_folder(scenes), (32, 32)).items[1]
    rng = np.random.default_rng(0)
    holes = [draw_hole(regions, (8, 8), rng) for _ in range(200)]
    assert all(hole.any() and not hole.all() for hole in holes)
    assert len({hole.tobytes() for hole in holes}) > 50
    within = [lies_in(regions, hole) for hole in holes]
    assert {tuple(these) for these in within} == {(), (0,), (1,), (0, 1)}


def test_growing_takes_the_neighbours():
    inside = np.zeros((5, 6), bool)
    inside[2, 3] = True
    assert grow(inside, 1).sum() == 9 and grow(inside, 1)[1:4, 2:5].all()
    assert grow(inside, 2)[0, 1] and not grow(inside, 2)[0, 0]
    assert grow(inside, 0).sum() == 1

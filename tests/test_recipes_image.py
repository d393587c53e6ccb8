"""The recipes for pictures: each runs quickly on a tiny model, and keeps what it promises."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from recipe_runs import Run, runner
from scipy.ndimage import binary_dilation
from tiny_adapter import write_tiny_adapter
from tiny_upscaler import tiny_upscaler

from imagediff import ImagePipeline
from imagediff.png import open_png, read_record
from recipes import contact_sheets, studio
from recipes.image import (
    mockup,
    palette,
    restoration,
    seamless_pattern,
    sketch,
    sticker_sheet,
    story,
)


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> ImagePipeline:
    return ImagePipeline.load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture
def run(
    pipeline: ImagePipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    monkeypatch.setattr(studio, "pictures", lambda _: pipeline)
    return runner("image", tmp_path, capsys)


def test_a_sticker_is_cut_out_with_an_edge(run: Run):
    picture = Image.new("RGB", (64, 64), (250, 251, 249))
    ImageDraw.Draw(picture).ellipse((20, 20, 44, 44), (200, 30, 30), (20, 20, 20), 2)
    made = np.asarray(sticker_sheet.sticker(picture))
    assert made.shape == (128, 128, 4)
    alpha = made[..., 3]
    assert alpha[0].max() == 0 and alpha[64, 64] == 255
    # Ten pixels of white beyond the drawing, on each side.
    inside = np.flatnonzero(alpha[64] > 127)
    assert inside[0] == pytest.approx(40 - 10, abs=2) and inside[-1] == pytest.approx(
        90 + 10, abs=2
    )
    assert made[64, inside[0] + 2, :3].min() > 240
    assert made[64, 64, :3] == pytest.approx([200, 30, 30], abs=2)
    figures, files = run("sticker_sheet")
    assert len(figures) == 2
    white, grey = torch.ones(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    framed = white.clone()
    framed[..., 8:24, 8:24] = -1
    assert [sticker_sheet.off_white(one).item() for one in (white, framed, grey)] == [0, 0, 1]
    with Image.open(files["sticker_sheet.png"]) as sheet:
        assert sheet.mode == "RGBA" and sheet.size == (2 * 64, 64)


def test_a_pattern_s_tile_goes_on_at_its_other_side(run: Run):
    _, files = run("seamless_pattern")
    tile, page = (
        np.asarray(Image.open(files[name])) for name in ("tile.png", "seamless_pattern.png")
    )
    assert np.array_equal(page, np.tile(tile, (2, 3, 1)))
    ramp = np.tile(np.arange(16.0), (16, 1))[..., None]
    found = seamless_pattern.seam(ramp)
    assert found["step from left to right over steps inside"] == 15
    assert found["step from top to bottom over steps inside"] == 0


def test_the_panels_of_a_story_share_their_noise_and_it_stays_noise(run: Run):
    noise = torch.cat([story.beginning((8, 32, 32), 1, own, 0.85) for own in range(2, 6)])
    assert noise.std() == pytest.approx(1, abs=0.01)
    left, right = noise[..., :16].flatten(1), noise[..., 16:].flatten(1)
    assert torch.corrcoef(left)[0, 1] == pytest.approx(0.85, abs=0.03)
    assert torch.corrcoef(right)[0, 1] == pytest.approx(0.425, abs=0.04)
    figures, _ = run("story")
    assert figures["left halves apart, levels"] < figures["with noise of their own"]


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_day_is_as_long_as_its_time_line(run: Run, suffix: str):
    _, files = run("day_to_night", "--format", suffix)
    if suffix == "mp4":
        with av.open(files["day_to_night.mp4"]) as movie:
            assert len(list(movie.decode(video=0))) == 5
    else:
        with Image.open(files["day_to_night.gif"]) as movie:
            assert movie.n_frames == 5  # pyright: ignore[reportAttributeAccessIssue]


def test_guidance_brings_pictures_to_the_palette(run: Run):
    figures, _ = run("palette", "gray")
    assert figures["with it"] < figures["distance to the palette without guidance, levels"]


def test_the_loss_of_a_palette_is_least_for_its_own_colours():
    own = [(0.5, (255, 0, 0)), (0.5, (0, 0, 255))]

    def loss(*columns: tuple[int, int, int]) -> float:
        pixels = torch.tensor(columns, dtype=torch.float32).T[None, :, None] / 127.5 - 1
        return palette.off_palette(pixels, own).item()

    assert loss((255, 0, 0), (0, 0, 255)) == pytest.approx(0, abs=1e-3)
    assert loss((255, 0, 0), (255, 0, 0)) > 0.4  # one colour is missing
    assert loss((255, 0, 0), (0, 255, 0)) > 0.4  # one is another


def test_what_is_sketched_stays_where_it_is(run: Run):
    assert sketch.overlap(sketch.a_sketch(), sketch.a_sketch()) == 1
    moved = Image.new("RGB", (128, 128), (165, 212, 245))
    moved.paste(sketch.a_sketch(), (60, 0))
    assert sketch.overlap(sketch.a_sketch(), moved) < 0.3
    figures, files = run("sketch")
    assert len(figures) == 1 and "strength-0.5.png" in files


def test_a_product_stands_where_the_layout_says(
    run: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_tiny_adapter(tiny_model, tmp_path / "adapted")
    loaded = ImagePipeline.load(tmp_path / "adapted", "cpu", "float32")
    monkeypatch.setattr(studio, "pictures", lambda _: loaded)
    _, files = run("mockup", "a dog")
    layout = read_record(files["mockup-1.png"], open_png(files["mockup-1.png"])[1])["layout"]
    assert [region["what"] for region in layout] == ["a dog", "a bouquet of flowers"]
    assert list(layout[0]["box"]) == [9, 8, 16, 19]  # of 32 by 32 pixels
    # Off its backdrop only within the place: as much as can be.
    page = Image.new("RGB", (100, 100), "pink")
    page.paste("black", (28, 25, 78, 85))
    assert mockup.off(page) > 1e5


def test_scratches_are_found_and_nothing_else_is_touched(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = Image.new("RGB", (64, 64), (90, 120, 60))
    ImageDraw.Draw(whole).ellipse((16, 16, 48, 48), (250, 250, 250))  # white, but no scratch
    old = restoration.scratched(whole, seed=1)
    shows = np.asarray(old, int)[..., 2] - np.asarray(whole)[..., 2] > 100  # not on the disc
    found = restoration.scratches(old) > 0
    assert found[shows].mean() > 0.9
    assert not restoration.scratches(whole).any()
    old.save(tmp_path / "old.png")
    monkeypatch.setattr(studio, "upscaler", lambda _: tiny_upscaler())
    _, files = run("restoration", str(tmp_path / "old.png"), "--prompt", "a red apple")
    filled = np.asarray(Image.open(files["filled.png"]))
    near = np.asarray(binary_dilation(found, iterations=2), bool)
    assert np.array_equal(filled[~near], np.asarray(old)[~near])
    with Image.open(files["restored.png"]) as restored:
        assert restored.size == (128, 128)


def test_sheets_show_every_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What was made is not made again, so that with all pictures there nothing runs."""
    names = {
        kind: sorted(path.stem for path in (contact_sheets.ROOT / kind).glob("*.py"))
        for kind in contact_sheets.COLOURS
    }
    assert (len(names["sound"]), len(names["image"])) == (15, 8)
    for name in (name for kind in names.values() for name in kind):
        (tmp_path / name).mkdir()
        Image.new("RGB", (300, 100), "teal").save(tmp_path / name / f"{name}.png")
    contact_sheets.main(["--out", str(tmp_path), "--sheets", str(tmp_path / "sheets")])
    assert len(capsys.readouterr().out.splitlines()) == 2
    with Image.open(tmp_path / "sheets" / "sound.png") as sheet:
        assert sheet.size == (3 * 408, 5 * 276)
        teal = np.asarray(sheet.convert("RGB"))[40, 100]
    assert teal.tolist() == [0, 128, 128]

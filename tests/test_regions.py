"""Layouts as people write them, and as shares of a grid."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imagediff.layout_settings import Region
from imagediff.regions import check_layout, read_layout, read_legend, shares_of, stacked
from imagediff.shapes import box_of, box_shares, from_hex, to_hex
from shared.errors import UserError

SIZE = (64, 32)


def draw_map(path: str, size: tuple[int, int] = SIZE, red: str = "#ff0000") -> None:
    """The left half red, a green disc at the right, the rest white."""
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    width, height = size
    pen.rectangle((0, 0, width // 2 - 1, height - 1), fill=red)
    pen.ellipse((width * 5 // 8, height // 4, width * 7 // 8, height * 3 // 4), fill="#00ff00")
    image.save(path)


# Shapes


def test_shares_of_a_box_are_the_exact_areas():
    shares = box_shares((10, 3, 25, 9.5), (64, 32), (4, 8))
    area = np.zeros((32 * 10, 64 * 10))
    area[30:125, 100:350] = 1
    assert np.allclose(shares, area.reshape(4, 80, 8, 80).mean((1, 3)), atol=1e-6)


def test_an_outline_comes_back_from_its_text():
    inside = np.random.default_rng(0).random((12, 20)) > 0.5
    assert np.array_equal(from_hex(to_hex(inside, (12, 20)), (12, 20)), inside)
    for wrong in ("zz", "00", ""):
        with pytest.raises(UserError, match="60 hexadecimal digits"):
            from_hex(wrong, (12, 20))


def test_the_box_of_nothing_is_empty():
    inside = np.zeros((5, 7), bool)
    assert box_of(inside) == (0, 0, 0, 0)
    inside[1:3, 4] = True
    assert box_of(inside) == (4, 1, 1, 2)


def test_later_regions_lie_over_earlier_ones():
    below, above = np.full((2, 2), 0.8), np.array([[1, 0.5], [0, 0]])
    assert np.allclose(stacked([below, above]), [[[0, 0.4], [0.8, 0.8]], above])


# Files


def test_boxes_keep_what_they_say(tmp_path: Path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{"box": [40, 4, 20, 10], "what": "a dog"}]))
    (region,) = read_layout(path, None).at(SIZE)
    assert region == Region("a dog", box=(40, 4, 20, 10))
    assert shares_of(region, SIZE, (32, 64)).sum() == 200


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_map_of_any_size_gives_the_same_regions(tmp_path: Path, factor: int, suffix: str):
    path = tmp_path / f"map{suffix}"
    draw_map(str(path), (SIZE[0] * 2 * factor, SIZE[1] * 2 * factor))
    layout = read_layout(path, "red=a dog, #00ff00 = a tree").at(SIZE)
    assert [region.what for region in layout] == ["a dog", "a tree"]
    left, disc = (shares_of(region, SIZE, (8, 16)) for region in layout)
    assert np.array_equal(left, np.pad(np.ones((8, 8)), ((0, 0), (0, 8))))
    assert disc[4, 12] == 1 and not disc[:, :9].any()
    assert disc.sum() == pytest.approx(np.pi * 16 * 16 / 4 / 16, rel=0.25)
    assert read_layout(path, "red=a dog, lime=a tree").prompt() == "a dog to the left of a tree"


def test_a_legend_may_name_white(tmp_path: Path):
    path = tmp_path / "map.png"
    draw_map(str(path))
    layout = read_layout(path, "red=a dog, lime=a tree, white=the sea").at(SIZE)
    assert shares_of(layout[2], SIZE, (8, 16))[0, 15] == 1


def test_transparent_is_background(tmp_path: Path):
    image = Image.new("RGBA", SIZE, (0, 0, 255, 0))
    image.paste((255, 0, 0, 255), (0, 0, 32, 32))
    image.save(tmp_path / "map.png")
    (region,) = read_layout(tmp_path / "map.png", "red=a dog").at(SIZE)
    assert shares_of(region, SIZE, (1, 2)).tolist() == [[1, 0]]


def test_a_legend_from_a_file(tmp_path: Path):
    path = tmp_path / "legend.json"
    path.write_text('{"red": "a dog", "#0000ff": "a tree, a green one"}')
    assert read_legend(str(path)) == {(255, 0, 0): "a dog", (0, 0, 255): "a tree, a green one"}


# Faults


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[]", "holds no boxes"),
        ("{", "not valid JSON"),
        ('[{"box": [1, 2, 3], "what": "a dog"}]', "is no region"),
        ('[{"box": [1, 2, 3, 4.5], "what": "a dog"}]', "is no region"),
        ('[{"box": [1, 2, 3, 4]}]', "is no region"),
        ('[{"box": [60, 2, 10, 10], "what": "a dog"}]', "does not lie in the picture of 64x32"),
        ('[{"box": [-1, 2, 10, 10], "what": "a dog"}]', "does not lie in the picture"),
        ('[{"box": [1, 2, 0, 10], "what": "a dog"}]', "does not lie in the picture"),
        ('[{"box": [1, 2, 3, 4], "what": " "}]', "does not say what it is to hold"),
        (
            json.dumps([{"box": [n, 0, 1, 1], "what": "a dog"} for n in range(5)]),
            "at most 4 regions, not 5",
        ),
    ],
)
def test_boxes_at_fault(tmp_path: Path, content: str, fault: str):
    path = tmp_path / "boxes.json"
    path.write_text(content)
    with pytest.raises(UserError, match=fault):
        read_layout(path, None).at(SIZE)


@pytest.mark.parametrize(
    ("legend", "fault"),
    [
        (None, "a map needs --legend"),
        ("red", "COLOUR=PHRASE"),
        ("red=", "COLOUR=PHRASE"),
        ("mauvish=a dog", "'mauvish' is no colour"),
        ("red=a dog, #ff0000=a cat", "twice"),
        ("red=a dog", "has the colour #00ff00, which the legend does not name"),
        ("red=a dog, lime=a tree, blue=a car", "no region of #0000ff, the legend's 'a car'"),
        ("none.json", "cannot read 'none.json'"),
    ],
)
def test_maps_at_fault(tmp_path: Path, legend: str | None, fault: str):
    draw_map(str(tmp_path / "map.png"))
    with pytest.raises(UserError, match=fault):
        read_layout(tmp_path / "map.png", legend)


def test_a_map_of_other_proportions_is_refused(tmp_path: Path):
    draw_map(str(tmp_path / "map.png"))
    drawn = read_layout(tmp_path / "map.png", "red=a dog, lime=a tree")
    with pytest.raises(UserError, match=r"64x32 pixels, which are other proportions .* 32x32"):
        drawn.at((32, 32))


@pytest.mark.parametrize(
    ("region", "fault"),
    [
        (Region("a dog"), "needs a box or an outline"),
        (Region("a dog", box=(0, 0, 4, 4), outline="00"), "needs a box or an outline"),
        (Region("a dog", outline="00" * 16), "is empty"),
        (Region("a dog", outline="ff"), "128 cells"),
    ],
)
def test_regions_at_fault(region: Region, fault: str):
    with pytest.raises(UserError, match=fault):
        check_layout((region,), SIZE)

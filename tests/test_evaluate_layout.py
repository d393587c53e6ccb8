"""The measurement of layouts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from test_adapter import adapted_model  # noqa: F401  (a fixture)

from imagediff import ImagePipeline
from imagediff.evaluate_layout import cases, evaluate_layout, overlap, region_view, swapped
from imagediff.judge import SIDE, load_judge
from imagediff.layout_settings import Region
from imagediff.objects import FONT
from imagediff.regions import cells
from imagediff.shapes import to_hex

needs_font = pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji not installed")


def picture(*boxes: tuple[int, int, int, int]) -> Image.Image:
    image = Image.new("RGB", (64, 64), (250, 218, 60))
    for x, y, width, height in boxes:
        ImageDraw.Draw(image).rectangle((x, y, x + width - 1, y + height - 1), fill=(40, 60, 200))
    return image


def outline(x: int, y: int, width: int, height: int) -> str:
    inside = np.zeros((64, 64))
    inside[y : y + height, x : x + width] = 1
    return to_hex(inside, cells((64, 64)))


def test_overlap_of_boxes_is_the_exact_share():
    asked = (Region("a dog", box=(8, 8, 20, 20)),)
    assert overlap(picture((8, 8, 20, 20)), asked) == 1
    assert overlap(picture((18, 8, 20, 20)), asked) == pytest.approx(200 / 600)
    assert overlap(picture(), asked) == 0
    # A speck does not stretch the box.
    assert overlap(picture((8, 8, 20, 20), (60, 60, 1, 1)), asked) == 1


def test_each_box_is_held_against_what_is_near_it():
    asked = (Region("a dog", box=(4, 4, 20, 20)), Region("a cat", box=(36, 36, 24, 24)))
    assert overlap(picture((4, 4, 20, 20), (36, 36, 24, 24)), asked) == 1
    assert overlap(picture((4, 4, 20, 20)), asked) == 0.5
    half = overlap(picture((4, 4, 10, 20), (36, 36, 24, 24)), asked)
    assert half == pytest.approx((0.5 + 1) / 2)


def test_overlap_of_outlines_is_that_of_the_areas():
    asked = (Region("a dog", outline=outline(8, 8, 16, 16)),)
    asked += (Region("a cat", outline=outline(40, 40, 16, 16)),)
    both = [(8, 8, 16, 16), (40, 40, 16, 16)]
    # The corners of a square are specks to the filter.
    assert overlap(picture(*both), asked) == pytest.approx(1, abs=0.02)
    assert overlap(picture(both[0]), asked) == pytest.approx(0.5, abs=0.01)


def test_the_judge_sees_the_region_and_its_surroundings():
    seen = region_view(picture((40, 0, 24, 24)), (40, 0, 24, 24))
    assert seen.shape == (SIDE, SIDE, 3)
    blue = (seen[..., 2] > 120).mean()
    # Beyond the frame it goes on as it ends: background is at the left and below only.
    assert blue == pytest.approx((0.83 + 0.085) ** 2, abs=0.03)
    inside = region_view(picture((20, 20, 24, 24)), (20, 20, 24, 24))
    assert (inside[..., 2] > 120).mean() == pytest.approx(0.83**2, abs=0.03)


@needs_font
def test_cases_ask_for_boxes_and_outlines_of_scenes():
    these = cases(12, 0, 64)
    assert [case.boxes for case in these] == [True, False] * 6
    for case in these:
        assert overlap(case.drawing.picture, case.layout) > 0.4
        assert all(region.what in case.prompt for region in case.layout)
    for case, other in zip(these, swapped(these), strict=True):
        assert case.group == other.group
    assert sum(a is b for a, b in zip(these, swapped(these), strict=True)) < 6


@needs_font
def test_the_report_stands_beside_real_and_swapped(adapted_model: Path) -> None:  # noqa: F811
    pipeline = ImagePipeline.load(adapted_model, "cpu", "float32")
    report = evaluate_layout(pipeline, load_judge(), limit=4, steps=1)
    figures = report.figures
    assert {"iou", "iou_boxes", "iou_outlines", "iou_alone", "region_top1"} < set(figures)
    assert figures["iou"].n == 4
    real = figures["iou"].real
    assert real is not None and real > figures["iou"].value
    assert "swapped" in report.table() and report.record()["settings"]["layouts"] == 4

"""The measurement of filled pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagediff import ImagePipeline
from imagediff.adherence import read_evaluation
from imagediff.evaluate_edit import (
    FEATHER,
    PASTE,
    border_gradient,
    cases,
    evaluate_edit,
    outside_error,
)
from imagediff.judge import load_judge
from imagediff.objects import FONT
from shared.editing import FILLINGS


def free() -> np.ndarray:
    hidden = np.zeros((40, 40), dtype=bool)
    hidden[10:30, 10:30] = True
    return hidden


def flat(level: int) -> np.ndarray:
    return np.full((40, 40, 3), level, np.uint8)


def test_a_change_outside_is_seen_and_one_in_the_border_is_not() -> None:
    before, after = flat(90), flat(90)
    after[10 - FEATHER : 30, 10:30] = 255
    assert outside_error(Image.fromarray(before), Image.fromarray(after), free()) == 0
    after[10 - FEATHER - 1, 20, 1] = 83
    assert outside_error(Image.fromarray(before), Image.fromarray(after), free()) == 7


def test_a_step_counts_the_same_however_wide_it_is() -> None:
    sharp, soft = flat(0), flat(0)
    sharp[:, 10:] = 100
    soft[:, 8:12] = np.array([20, 40, 60, 80])[:, None]
    soft[:, 12:] = 100
    hidden = np.zeros((40, 40), dtype=bool)
    hidden[:, 10:] = True
    first, second = (border_gradient(Image.fromarray(one), hidden) for one in (sharp, soft))
    assert first == pytest.approx(second) == pytest.approx(100 / (2 * FEATHER))
    assert border_gradient(Image.fromarray(flat(9)), hidden) == 0


@pytest.mark.skipif(not FONT.exists(), reason="the emoji font is not installed")
def test_every_method_stands_beside_the_paste_and_the_real_scenes(tiny_model: Path) -> None:
    pipeline = ImagePipeline.load(tiny_model, "cpu", "float32")
    prompts = read_evaluation()
    hidden = cases(prompts, 1, 0, 32)
    assert [case.edit.task for case in hidden] == ["inpaint", "extend"] * 2
    assert [case.free.mean() for case in hidden[:2]] == [(24 / 32) ** 2, 1 / 4]

    def blank(scene, free, prompt, seed):
        return Image.new("RGB", scene.size, (9, 99, 9))  # a colour that no scene has

    methods = ["consistency", "repaint"]
    report = evaluate_edit(
        pipeline,
        load_judge(),
        prompts,
        methods=methods,
        others={"blank": blank},
        limit=1,
        steps=6,
    )
    rows = {(row.task, row.method): row for row in report.rows}
    assert list(rows) == [
        (task, way) for task in ("inpaint", "extend") for way in (*methods, PASTE, "blank", "real")
    ]
    assert set(methods) < set(FILLINGS)
    for (task, way), row in rows.items():
        # Of so small a scene the box and its border leave nothing outside.
        assert (row.unchanged == 0) == (way != "blank" or task == "inpaint")
        assert row.frechet is not None and row.frechet >= 0
    assert rows["inpaint", "real"].border == 1 and rows["inpaint", "real"].top5 == 1
    assert "consistency" in report.table() and "unchanged" in report.table()

"""The measurement of filled pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagediff import ImagePipeline
from imagediff.adherence import read_evaluation, see
from imagediff.edit_cases import FEATHER, FILLED, cases
from imagediff.evaluate_edit import (
    STRENGTHS,
    apart,
    border_gradient,
    evaluate_edit,
    outside_error,
)
from imagediff.judge import load_judge
from imagediff.objects import FONT
from shared.editing import FILLINGS
from shared.errors import UserError


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
def test_what_is_wanted_is_hidden_where_the_judge_looks() -> None:
    """With the hole left grey it sees none of it, in the real scenes nearly all."""
    by_task = cases(read_evaluation(), 8, 0, 128)
    assert {task: len(these) for task, these in by_task.items()} == dict.fromkeys(
        ("inpaint", "extend", "restyle", "vary", "blend"), 16
    )
    judge = load_judge()
    for task, share in (("inpaint", (96 / 128) ** 2), ("extend", 1 / 2)):
        these = by_task[task]
        assert {case.free.mean() for case in these if case.free is not None} == {share}
        seen = []
        for hide in (True, False):
            pictures = [
                Image.fromarray(
                    np.where(case.free[..., None] & hide, 127, np.asarray(case.scene)).astype(
                        np.uint8
                    )
                )
                for case in these
                if case.free is not None
            ]
            sights = see(judge, [case.prompt for case in these], pictures)
            seen.append(
                [s.rank(c.place, c.wanted[0]) == 1 for c, s in zip(these, sights, strict=True)]
            )
        assert np.mean(seen[0]) <= 1 / 16 and np.mean(seen[1]) >= 14 / 16


@pytest.mark.skipif(not FONT.exists(), reason="the emoji font is not installed")
def test_every_way_stands_beside_the_rules_and_the_real_scenes(tiny_model: Path) -> None:
    pipeline = ImagePipeline.load(tiny_model, "cpu", "float32")

    def blank(scene, free, prompt, seed):
        return Image.new("RGB", scene.size, (9, 99, 9))  # a colour that no scene has

    methods = ["consistency", "repaint"]
    report = evaluate_edit(
        pipeline,
        load_judge(),
        read_evaluation(),
        methods=methods,
        others={"blank": blank},
        limit=1,
        steps=6,
    )
    rows = {(row.task, row.way): row for row in report.rows}
    fills = ["unfilled", *methods, "naive paste", "blank", "real"]
    walks = [*(f"strength {strength:g}" for strength in STRENGTHS), "real"]
    assert list(rows) == [
        *((task, way) for task in ("inpaint", "extend") for way in fills),
        *((task, way) for task in ("restyle", "vary") for way in walks),
        *(("blend", way) for way in ("cross-fade", *walks)),
    ]
    assert set(methods) < set(FILLINGS)
    for (task, way), row in rows.items():
        if task in FILLED:
            # Of so small a scene the box and its border leave nothing outside.
            assert (row.unchanged == 0) == (way != "blank" or task == "inpaint")
        else:
            assert row.unchanged is None and row.border is None
        assert row.n == 2 and row.frechet is not None and row.frechet >= 0
    for task in ("inpaint", "extend"):
        assert rows[task, "real"].border == 1 and rows[task, "real"].apart == 0
    assert rows["inpaint", "real"].top5 == rows["restyle", "real"].top5 == 1
    # Of a tiny model no more is known than that it leaves the scene step by step, and where it does
    # not look at it any more: the same seed and prompt make the same of every scene.
    distances = [rows["vary", way].apart for way in walks[:-1]]
    assert distances == sorted(distances)
    assert rows["blend", "cross-fade"].apart == pytest.approx(
        rows["restyle", "real"].apart / 2, abs=1
    )
    assert "consistency" in report.table() and "unchanged" in report.table()


def test_prompts_of_no_single_object_are_refused() -> None:
    pairs = [prompt for prompt in read_evaluation() if prompt.kind == "pair"]
    with pytest.raises(UserError, match="none of the prompts is of a single object"):
        cases(pairs, 1, 0, 32)


def test_apart_is_the_root_mean_square_where_it_is_free() -> None:
    before, after = flat(90), flat(90)
    after[10:30, 10:20] = 96
    pictures = Image.fromarray(before), Image.fromarray(after)
    assert apart(*pictures, free()) == pytest.approx(6 / 2**0.5)
    assert apart(*pictures, None) == pytest.approx(6 / 8**0.5)

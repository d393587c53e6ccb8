"""The evaluation of controls: what is drawn, given and printed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_music import play_levels

from audiodiff import MusicPipeline, evaluate_control
from audiodiff.adherence import PROMPTS, Prompt, read_evaluation
from audiodiff.evaluate_control import Row, created, extracted
from audiodiff.judge import load_judge
from audiodiff.prompts import SECONDS
from audiodiff.settings import MusicSettings
from audiodiff.theory import parse_chord, parse_key
from shared.errors import DivergenceError, UserError


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return [prompt for prompt in read_evaluation(PROMPTS) if prompt.kind == "controls"]


def tones(name: str) -> tuple[int, ...]:
    return parse_chord(name).pitch_classes


def test_created_controls_lie_in_the_clip_and_its_key(prompts: list[Prompt]) -> None:
    for prompt in prompts[:12]:
        sketch = created(prompt)
        assert sketch == created(prompt)
        assert sketch.melody and sketch.chords and sketch.rhythm and sketch.dynamics
        scale = {*parse_key(prompt.labels.key or "").pitch_classes}
        assert {pitch % 12 for _, _, pitch in sketch.melody.notes} <= scale
        assert {tone for _, _, name in sketch.chords.spans for tone in tones(name)} <= scale
        bar = sketch.rhythm.downbeats[1]
        for start, _, pitch in sketch.melody.notes:  # what falls on a strong beat fits its chord
            place = start / bar + 1e-6
            if 2 * place % 1 < 1e-4:
                assert pitch % 12 in tones(sketch.chords.spans[int(place)][2])
        assert max(sketch.melody.end, sketch.dynamics.end) <= SECONDS + 1e-9
        assert sketch.rhythm.tempo == pytest.approx(prompt.labels.tempo)


def test_extracted_controls_are_the_labels(prompts: list[Prompt]) -> None:
    for prompt in prompts[:12]:
        sketch = extracted(prompt)
        assert sketch.melody and sketch.melody.notes == prompt.labels.melody
        assert sketch.chords and sketch.chords.spans[-1][2] == prompt.labels.chords[-1]
        assert sketch.dynamics and len(sketch.dynamics.points) == len(prompt.labels.dynamics)


def test_rows_and_table(
    prompts: list[Prompt], tiny_music_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_control, "PARTS", ("dynamics",))
    monkeypatch.setattr(evaluate_control, "PAIR", ("chords", "dynamics"))
    pipeline = MusicPipeline.load(tiny_music_model, "cpu")
    object.__setattr__(pipeline.codec, "vocoder", play_levels)
    without_score = [dataclasses.replace(prompts[0], seed="")]
    report = evaluate_control.evaluate_control(
        pipeline, load_judge(), without_score, steps=2, guidance_scale=1.0, sampler="euler"
    )
    kinds = [(row.origin, row.given, row.measure) for row in report.rows]
    alone, pair = ("r", "shape_error_db"), ("overlap", "r", "shape_error_db")
    assert kinds == [
        ("asked", "tempo", "kept"),
        ("asked", "key", "kept"),
        *(
            (origin, given, measure)
            for origin in ("extracted", "created")
            for given, measures in (
                ("dynamics", alone), ("chords and dynamics", pair), ("all", alone)
            )
            for measure in measures
        ),
    ]  # fmt: skip
    asked, given = report.rows[:2], report.rows[2:]
    assert all(list(row.values) == ["none", "channels"] for row in asked)
    assert all(list(row.values) == ["none", "channels", "gradient", "both"] for row in given)
    published = {(row.origin, row.given): row.published for row in given if row.measure == "r"}
    assert published[("extracted", "dynamics")] == 0.888
    assert published[("created", "dynamics")] == 0.985
    assert published[("created", "all")] is None
    table = report.table()
    assert "extracted, dynamics, r" in table and "created, all: dynamics, r" in table
    assert "created, chords and dynamics: chords, overlap" in table and "asked, tempo" in table
    assert "seconds a clip" in table and "style heard" in table
    assert {*report.style} == {*report.seconds} == {"none", "channels", "gradient", "both"}
    with pytest.raises(UserError, match="kind controls"):
        evaluate_control.evaluate_control(
            pipeline, load_judge(), [], guidance_scale=1.0, sampler="euler"
        )


def test_what_counts_as_kept_is_starred() -> None:
    values = {"none": 0.1, "channels": 0.95, "gradient": 0.94, "both": 1.0}
    row = Row("created", "melody", "melody", "accuracy", values, 1, 1.0, None)
    report = evaluate_control.ControlReport({"seed": 0}, (row,), {}, {})
    line = next(line for line in report.table().splitlines() if line.startswith("created"))
    assert line.split()[3:7] == ["0.100", "0.950*", "0.940", "1.000*"]


def test_a_clip_that_diverges_counts_as_one_without_controls(
    prompts: list[Prompt], tiny_music_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_control, "PARTS", ("dynamics",))
    monkeypatch.setattr(evaluate_control, "PAIR", ("dynamics",))
    pipeline = MusicPipeline.load(tiny_music_model, "cpu")
    object.__setattr__(pipeline.codec, "vocoder", play_levels)
    generate = MusicPipeline.generate

    def generate_or_diverge(self: MusicPipeline, settings: Sequence[MusicSettings]) -> Any:
        (one,) = settings
        if one.sketch is not None and one.sketch.parts()["dynamics"].by == "gradient":
            raise DivergenceError("the gradient of dynamics diverged")
        return generate(self, settings)

    monkeypatch.setattr(MusicPipeline, "generate", generate_or_diverge)
    lines: list[str] = []
    report = evaluate_control.evaluate_control(
        pipeline, load_judge(), [dataclasses.replace(prompts[0], seed="")],
        steps=2, guidance_scale=1.0, sampler="euler", say=lines.append,
    )  # fmt: skip
    given = [row.values for row in report.rows if row.measure == "r"]
    assert given and all(values["gradient"] == values["none"] for values in given)
    assert any(values["channels"] != values["none"] for values in given)
    runs = [line for line in lines if "diverged" in line]
    assert len(runs) == report.settings["diverged"] == 2 * 2  # alone, and as all there are

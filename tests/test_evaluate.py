"""The figures that `duotone evaluate image` prints, and the judge behind them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.nn.functional import cross_entropy

from cli import cli
from imagediff import evaluate as evaluation
from imagediff.adherence import (
    QUESTIONS,
    Prompt,
    Sight,
    adherence,
    draw_by_lot,
    in_order,
    in_top,
    judge_features,
    read_evaluation,
    see,
    swap_labels,
)
from imagediff.data import render, scene_at
from imagediff.judge import (
    CARRIED,
    SIDE,
    Judge,
    JudgeTraining,
    augment,
    cache_folder,
    load_judge,
    look,
    places,
    to_tensor,
    train_judge,
    view,
    vocabulary,
)
from imagediff.metrics import background_name, paint_name, psnr
from imagediff.objects import BACKGROUNDS, FONT, TINTS, objects
from imagediff.pipeline import ImagePipeline
from imagediff.scenes import Scene
from shared.errors import UserError
from shared.statistics import frechet_distance, mean_interval, wilson
from shared.weights import save_component

needs_font = pytest.mark.skipif(not FONT.exists(), reason="the emoji font is not installed")


def test_wilson_s_interval() -> None:
    assert wilson(9, 10) == pytest.approx((0.59585, 0.98212), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0, 0.27753), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.72247, 1), abs=1e-4)


def test_a_mean_s_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.normal(3, 2, 100)) for _ in range(400)]
    inside = [interval is not None and interval[0] < 3 < interval[1] for interval in intervals]
    assert 0.92 < np.mean(inside) < 0.98
    assert mean_interval(np.ones(1)) is None


def gaussian(rng: np.random.Generator, n: int = 200, d: int = 5) -> np.ndarray:
    """Features whose sample mean and covariance are exactly those of a standard Gaussian."""
    features = rng.normal(size=(n, d))
    features -= features.mean(axis=0)
    return features @ np.linalg.inv(np.linalg.cholesky(np.cov(features, rowvar=False))).T


def test_frechet_distance_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    standard = gaussian(rng)
    assert frechet_distance(standard, standard) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(standard, standard + 2) == pytest.approx(5 * 4)
    assert frechet_distance(standard, 3 * standard) == pytest.approx(5 * (3 - 1) ** 2)
    # Covariances that do not commute: against the general formula by another way.
    first, second = (gaussian(rng) @ rng.normal(size=(5, 5)) for _ in range(2))
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    cross = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1])).sum().real
    expected = sum(np.trace(covariance) for covariance in covariances) - 2 * cross
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_psnr() -> None:
    pictures = np.full((2, 4, 4, 3), 100, dtype=np.uint8)
    other = pictures.copy()
    other[1] += 10
    assert psnr(pictures, other)[1] == pytest.approx(20 * math.log10(255 / 10))
    assert np.isfinite(psnr(pictures, other)[0])


@needs_font
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_of_real_scenes_have_their_names(background: str) -> None:
    scene = Scene("single", ("dog",), None, None, background, False, "", 7)
    assert background_name(render(scene)) == background


@needs_font
@pytest.mark.parametrize("paint", TINTS)
def test_paints_of_real_scenes_have_their_names(paint: str) -> None:
    name = next(name for name, thing in objects().items() if paint in thing.tints)
    assert paint_name(render(Scene("recolour", (name,), None, paint, None, False, "", 7))) == paint


def test_a_picture_of_nothing_has_colours_too() -> None:
    empty = Image.new("RGB", (32, 32), BACKGROUNDS["teal"])
    assert background_name(empty) == "teal"
    assert paint_name(empty) in TINTS


SINGLE = Prompt(0, "a dog", "single", ("dog",))
PAIR = Prompt(1, "a cat to the right of a dog", "pair", ("cat", "dog"), "right of")


def sight(**scores: dict[str, float]) -> Sight:
    everything = dict.fromkeys(objects(), -9.0)
    return Sight(
        scores={place: everything | known for place, known in scores.items()},
        features={place: np.zeros(2) for place in scores},
        background="red",
        paint="blue",
    )


def test_in_top_looks_at_each_object_s_own_half() -> None:
    seen = sight(right={"cat": -1, "dog": -2}, left={"fox": -1, "wolf": -2, "dog": -3})
    assert not in_top(PAIR, seen, 2)
    assert in_top(PAIR, seen, 3)
    assert not in_top(replace(PAIR, relation="left of"), seen, 3)
    assert in_top(SINGLE, sight(whole={"dog": -1}), 1)
    assert not in_top(SINGLE, sight(whole={"dog": -2, "cat": -1}), 1)


def test_in_order_compares_the_halves() -> None:
    seen = sight(right={"cat": -3, "dog": -2}, left={"cat": -4, "dog": -1})
    assert in_order(PAIR, seen)
    assert not in_order(replace(PAIR, relation="left of"), seen)
    assert not in_order(PAIR, sight(right={"cat": -3, "dog": -1}, left={"cat": -4, "dog": -2}))


def test_colours_are_asked_of_prompts_that_name_them() -> None:
    prompts = [
        SINGLE,
        replace(SINGLE, number=2, background="red"),
        replace(SINGLE, number=3, background="green"),
        Prompt(4, "a blue dog", "recolour", ("dog",), colour="blue"),
    ]
    figures = adherence(prompts, [sight(whole={"dog": -1})] * 4)
    assert (figures["background"].value, figures["background"].n) == (0.5, 2)
    assert (figures["recolour_both"].value, figures["recolour_both"].n) == (1, 1)
    assert (figures["object_top1"].value, figures["object_top1"].n) == (1, 3)
    assert "relation" not in figures
    assert figures["object_top1"].real is None


def test_swapped_labels_are_another_s_of_the_same_sort() -> None:
    prompts = read_evaluation()
    swapped = swap_labels(prompts)
    assert sorted(prompt.number for prompt in swapped) == [prompt.number for prompt in prompts]
    for prompt, other in zip(prompts, swapped, strict=True):
        assert prompt is not other
        assert prompt.group == other.group
    assert swapped == swap_labels(prompts)


def test_a_picture_of_every_prompt_answers_yes_and_of_another_no() -> None:
    prompts = draw_by_lot(read_evaluation(), 20, 0)
    seen = [
        replace(
            sight(
                **{
                    name: {asked: 0.0}
                    for name, asked in zip(places(prompt.relation), prompt.objects, strict=True)
                }
            ),
            background=prompt.background or "",
            paint=prompt.colour or "",
        )
        for prompt in prompts
    ]
    for pair in (one for prompt, one in zip(prompts, seen, strict=True) if prompt.kind == "pair"):
        for half in ("left", "right", "top", "bottom"):
            pair.scores.setdefault(half, dict.fromkeys(objects(), -9.0))
    figures = adherence(prompts, seen, [(prompts, seen)])
    assert set(figures) == set(QUESTIONS)
    assert all(figure.value == figure.real == 1 for figure in figures.values())
    assert all((figure.swapped or 0) < 0.5 for figure in figures.values())


def test_the_project_s_prompts() -> None:
    prompts = read_evaluation()
    assert len(prompts) == 1333
    plain = [prompt.objects[0] for prompt in prompts if prompt.group == ("single", False)]
    assert sorted(plain) == sorted(objects())


def test_a_limit_takes_from_every_group() -> None:
    prompts = read_evaluation()
    few = draw_by_lot(prompts, 3, seed=1)
    assert len(few) == 3 * len({prompt.group for prompt in prompts})
    assert few == draw_by_lot(prompts, 3, seed=1) != draw_by_lot(prompts, 3, seed=2)
    assert [prompt.number for prompt in few] == sorted(prompt.number for prompt in few)
    assert draw_by_lot(prompts, None, seed=1) == prompts


ROW = {"prompt": "a dog", "kind": "single", "objects": ["dog"]}


@pytest.mark.parametrize(
    "line, told",
    [
        ("a dog", "JSON"),
        ("[]", "JSON"),
        (json.dumps({"prompt": "a dog"}), "kind"),
        (json.dumps(ROW | {"prompt": " "}), "empty"),
        (json.dumps(ROW | {"kind": "triple"}), "pair"),
        (json.dumps(ROW | {"kind": "pair"}), "two objects"),
        (json.dumps(ROW | {"objects": ["snark"]}), "vocabulary"),
        (json.dumps(ROW | {"objects": [["dog"]]}), "vocabulary"),
        (json.dumps(ROW | {"kind": "pair", "objects": ["dog", "cat"], "relation": "in"}), "above"),
        (json.dumps(ROW | {"kind": "recolour"}), "purple"),
        (json.dumps(ROW | {"colour": "red"}), "colour"),
        (json.dumps(ROW | {"background": "puce"}), "light blue"),
        ("", "no prompts"),
    ],
)
def test_faulty_prompts_are_refused(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "prompts.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=told):
        read_evaluation(tmp_path / "prompts.jsonl")


def test_captions_of_scenes_serve_as_prompts(tmp_path: Path) -> None:
    row = {key: value for key, value in ROW.items() if key != "prompt"} | {"text": "a tiger"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row | {"file_name": "0.png"}) + "\n")
    (prompt,) = read_evaluation(tmp_path / "metadata.jsonl")
    assert prompt.text == "a tiger" and prompt.objects == tuple(ROW["objects"])


def test_missing_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_evaluation(tmp_path / "none.jsonl")


def test_views_are_halves_of_the_picture() -> None:
    picture = Image.new("RGB", (128, 128), "red")
    picture.paste("blue", (64, 0, 128, 128))
    means = {name: view(picture, name).mean(axis=(0, 1)) for name in ("left", "right", "top")}
    assert means["left"] == pytest.approx([255, 0, 0], abs=3)
    assert means["right"] == pytest.approx([0, 0, 255], abs=3)
    assert means["top"] == pytest.approx([127.5, 0, 127.5], abs=3)
    assert view(picture, "whole").shape == (SIDE, SIDE, 3)


def some_views(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8), rng.integers(0, 9, n)


def test_training_a_judge_is_repeatable_and_lowers_its_loss() -> None:
    views, targets = data = some_views(16)
    how = JudgeTraining(steps=15, batch_size=16)
    judge, again = train_judge(how, data), train_judge(how, data)
    assert all(map(torch.equal, judge.state_dict().values(), again.state_dict().values()))
    assert not judge.training
    # A few steps are too few for running averages: normalise by the batch itself.
    loss = cross_entropy(judge.train()(to_tensor(views)), torch.from_numpy(targets)).item()
    assert loss < math.log(len(judge.names)) - 1


def test_augmented_views_stay_recognisable() -> None:
    views = to_tensor(some_views(8)[0]) * 0 + 0.5
    changed = augment(views, torch.Generator().manual_seed(0))
    assert changed.shape == views.shape
    assert (changed - views).abs().mean() < 0.3


def test_a_judge_is_found_again(tmp_path: Path) -> None:
    judge = Judge(vocabulary(), channels=(4, 4), width=8).eval()
    save_component(judge, tmp_path / "judge", torch.float32, basename="model")
    again = load_judge(tmp_path / "judge")
    views = list(some_views(2)[0])
    assert torch.equal(look(judge, views)[0], look(again, views)[0])


def test_a_folder_of_something_else_is_no_judge(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no judge"):
        load_judge(tmp_path)


def test_a_judge_of_other_objects_is_refused(tmp_path: Path) -> None:
    save_component(Judge({"dog": "🐕"}, (4,), 8), tmp_path / "judge", basename="model")
    with pytest.raises(UserError, match="another vocabulary"):
        load_judge(tmp_path / "judge")


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUOTONE_CACHE", "/somewhere")
    assert cache_folder().parent == Path("/somewhere")


def test_the_carried_judge_is_small() -> None:
    assert sum(file.stat().st_size for file in CARRIED.iterdir()) < 1.2 * 2**20


@needs_font
def test_the_carried_judge_names_fresh_real_scenes() -> None:
    scenes = [scene_at(123_456_789, index) for index in range(120)]
    judge = load_judge()
    views = [view(render(scene), place) for scene in scenes for place in places(scene.relation)]
    names = [name for scene in scenes for name in scene.objects]
    best = look(judge, views)[0].argmax(-1).tolist()
    right = [judge.names[k] == name for k, name in zip(best, names, strict=True)]
    assert np.mean(right) >= 0.9


def test_features_are_those_of_every_object() -> None:
    judge = Judge(vocabulary(), channels=(4, 4), width=8).eval()
    picture = Image.new("RGB", (32, 32), "red")
    sights = see(judge, [SINGLE, PAIR], [picture, picture])
    assert set(sights[1].scores) == {"left", "right", "top", "bottom"}
    assert judge_features([SINGLE, PAIR], sights).shape == (3, 8)


@pytest.fixture(scope="module")
def tiny_pipeline(tiny_model: Path) -> ImagePipeline:
    return ImagePipeline.load(tiny_model, "cpu", "float32")


@needs_font
def test_all_figures_of_a_model(tiny_pipeline: ImagePipeline, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    report = evaluation.evaluate(
        tiny_pipeline, load_judge(), read_evaluation(), limit=2, steps=1, sheet=sheet
    )
    record = json.loads(json.dumps(report.record(), allow_nan=False))
    figures = record["figures"]
    assert {"object_top1", "background", "recolour", "relation", "frechet", "psnr"} <= set(figures)
    assert figures["object_top1"]["n"] == 4
    assert figures["frechet"]["value"] > figures["frechet"]["real"]
    assert figures["seconds"]["value"] > 0
    for figure in report.figures.values():
        assert figure.title in report.table()
    with Image.open(sheet) as picture:
        assert picture.width > 8 * 32


def test_without_the_font_generated_pictures_are_judged(
    tiny_pipeline: ImagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "FONT", tmp_path / "none.ttf")
    told: list[str] = []
    report = evaluation.evaluate(
        tiny_pipeline, load_judge(), read_evaluation(), limit=1, steps=1, say=told.append
    )
    assert len(told) == 1
    assert report.figures["relation"].real is None
    assert "psnr" not in report.figures


@needs_font
def test_the_autoencoder_is_measured_on_real_scenes(tiny_pipeline: ImagePipeline) -> None:
    values = evaluation.reconstruction_psnr(tiny_pipeline.codec, 2, 32)
    assert values.shape == (2,)
    assert (values < 30).all()  # its weights are random


def test_the_command_prints_json(tiny_model: Path) -> None:
    args = ["evaluate", "image", "--model", str(tiny_model), "--limit", "1", "--steps", "1"]
    result = CliRunner().invoke(cli, [*args, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    record = json.loads(result.stdout.splitlines()[-1])
    assert record["settings"]["prompts"] == 4
    assert record["figures"]["object_top5"]["n"] == 2


def test_the_command_refuses_a_sheet_that_is_no_png(tiny_model: Path) -> None:
    args = ["evaluate", "image", "--model", str(tiny_model), "--sheet", "sheet.jpg"]
    assert isinstance(CliRunner().invoke(cli, args).exception, UserError)

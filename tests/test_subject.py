"""The ways to say what a picture is to show: a class, nothing at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Duotone
from PIL import Image

from imagediff import ImagePipeline
from imagediff.judge import load_judge, look, view
from imagediff.objects import objects
from imagediff.png import open_png
from imagediff.subject import class_phrase
from shared.conditioning import Conditioning
from shared.errors import UserError

OPTIONS = ("--steps", 2, "--seed", 1)


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_class_is_what_captions_call_it(duotone: Duotone, tiny_model: Path):
    (made,) = duotone("image", "--class", "Apple", "--model", tiny_model, *OPTIONS).out
    phrase = objects()["apple"].phrases[0]
    record = json.loads(open_png(Path(made))[1]["duotone"])
    assert record["prompt"] == phrase
    (told,) = duotone("image", phrase, "--model", tiny_model, *OPTIONS, "-o", "told.png").out
    assert np.array_equal(pixels(made), pixels(told))


def test_all_classes_have_a_phrase():
    for name, thing in objects().items():
        assert class_phrase(f" {name.upper()} ") == thing.phrases[0]


@pytest.mark.parametrize(("name", "near"), [("appel", "apple"), ("guitr", "guitar")])
def test_an_unknown_class_tells_the_nearest(name: str, near: str):
    with pytest.raises(UserError, match=rf"no class '{name}' among the \d+ objects; .*{near}"):
        class_phrase(name)
    with pytest.raises(UserError, match=r"among the \d+ objects$"):
        class_phrase("q" * 500)


def test_unconditional_is_the_empty_caption_alone(duotone: Duotone, tiny_model: Path):
    made = duotone("image", "--unconditional", "--model", tiny_model, *OPTIONS)
    (path,) = made.out
    assert path == "untitled-1.png"
    record = json.loads(open_png(Path(path))[1]["duotone"])
    assert record["prompt"] == "" and record["guidance_scale"] == 1
    assert duotone("replay", path, "--model", tiny_model).out[-1] == "identical"

    pipeline = ImagePipeline.load(tiny_model, "cpu", "float32")
    (settings,) = pipeline.plan("", steps=2, guidance_scale=1.0)
    x, sigma = torch.randn(1, 4, 8, 8), torch.tensor([3.0])
    empty = Conditioning(context=pipeline.text_encoder.encode([""]))
    expected = pipeline.denoiser(x, sigma, empty)
    torch.testing.assert_close(pipeline.denoise_fn([settings])(x, sigma), expected)


def test_the_carried_model_draws_a_class_and_without_words_what_it_likes(duotone: Duotone):
    """As the judge sees it; without words and guidance there is a picture too, of another thing."""
    judge = load_judge()
    pictures = []
    for told in (("--class", "guitar"), ("--unconditional",)):
        (path,) = duotone("image", *told, "--seed", 1, "--steps", 10).out
        with Image.open(path) as picture:
            pictures.append(picture.convert("RGB"))
    log_probs = look(judge, [view(picture, "whole") for picture in pictures])[0]
    first = [judge.names[row.argmax()] for row in log_probs]
    assert first[0] == "guitar" != first[1]
    assert np.asarray(pictures[1]).std() > 10  # not blank


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        ((), "say what to make in one way"),
        (("a dog", "--class", "dog"), "say what to make in one way"),
        (("a dog", "--unconditional"), "say what to make in one way"),
        (("--class", "dog", "--unconditional"), "say what to make in one way"),
        (("--unconditional", "--guidance-scale", "3"), "--guidance-scale is of no use"),
        (("--unconditional", "--negative-prompt", "red"), "--negative-prompt is of no use"),
        (("--class", "dgo"), "the nearest are dragon, dog,"),
        ((" ",), "the prompt is empty"),
    ],
)
def test_faults_are_one_line(duotone: Duotone, tiny_model: Path, args: tuple[str, ...], fault: str):
    result = duotone("image", *args, "--model", tiny_model, *OPTIONS)
    assert result.code == 2 and fault in result.err and not result.out
    assert len(result.err.strip().splitlines()) == 1

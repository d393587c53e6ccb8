import dataclasses
import itertools
import json
import random
import re

import numpy as np
import pytest
from PIL import Image

from imagediff.data import _background, layout, read_folder, render, scene_at, write_dataset
from imagediff.objects import BACKGROUNDS, FONT, TINTS, glyph, measure, objects
from imagediff.scenes import (
    RELATIONS,
    Scene,
    compose,
    evaluation_scenes,
    held_out,
    read_prompts,
    with_adjective,
    write_prompts,
)
from shared.errors import UserError

needs_font = pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji not installed")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene_at(7, index) for index in range(6000)]


def pair(relation: str) -> Scene:
    return Scene("pair", ("tomato", "frog"), relation, None, None, False, "", 3)


# The vocabulary


def test_vocabulary_is_large_and_unambiguous():
    things = objects().values()
    assert len(things) >= 600
    assert len({thing.emoji for thing in things}) == len(things)
    phrases = [phrase for thing in things for phrase in thing.phrases]
    assert len(set(phrases)) == len(phrases)
    for thing in things:
        assert re.fullmatch(r"[a-z][a-z-]*( [a-z-]+){0,4}", thing.name)
        articles = ("", "a ", "an ", "the ", "a pair of ", "a piece of ")
        assert thing.phrases[0] in [article + thing.name for article in articles]
        assert all(phrase.isascii() and phrase.islower() for phrase in thing.phrases)
        assert set(thing.clashes) < set(BACKGROUNDS)
        assert set(thing.tints) <= set(TINTS)
        assert thing.tints


# Composing and captions


def test_equal_states_give_equal_scenes(scenes):
    assert scenes[5] == scene_at(7, 5)
    assert compose(random.Random(1)) == compose(random.Random(1))
    assert scenes[5] != scene_at(8, 5)


def test_every_kind_object_colour_and_relation_comes_up(scenes):
    assert {name for scene in scenes for name in scene.objects} == set(objects())
    assert {scene.relation for scene in scenes} == {None, *RELATIONS}
    assert {scene.colour for scene in scenes} == {None, *TINTS}
    assert {scene.background for scene in scenes} == {None, *BACKGROUNDS}
    share = sum(scene.kind == "single" for scene in scenes) / len(scenes)
    assert 0.5 < share < 0.6


def test_held_out_combinations_never_come_up(scenes):
    keys = {scene.key for scene in scenes}
    assert not keys & held_out()
    # The filter has something to do: without it some of them would come up.
    rng = random.Random(0)
    free = {compose(rng, exclude=frozenset()).key for _ in range(6000)}
    assert free & held_out()


def test_a_pair_is_the_same_whichever_way_it_is_told():
    told = pair("left of")
    turned = dataclasses.replace(told, objects=("frog", "tomato"), relation="below")
    assert told.key == turned.key


def test_captions_read_like_english(scenes):
    for scene in scenes:
        words = scene.caption.split()
        assert len(words) <= 26
        assert scene.caption.isascii()
        for article, word in itertools.pairwise(words):
            if article in ("a", "an"):
                vowel = word[0] in "aeiou" and not word.startswith(("unicorn", "ufo"))
                takes_an = vowel or word.startswith("herb")
                assert article == ("an" if takes_an else "a"), scene.caption


def test_captions_name_what_the_labels_say(scenes):
    for scene in scenes:
        assert len(scene.objects) == (2 if scene.kind == "pair" else 1)
        for name in scene.objects:
            nouns = [re.sub("^(a|an|the) ", "", phrase) for phrase in objects()[name].phrases]
            assert any(noun in scene.caption for noun in nouns), scene.caption
        for colour in (scene.colour, scene.background):
            assert colour is None or colour in scene.caption.replace("grey", "gray")


@pytest.mark.parametrize(
    ("phrase", "adjective", "expected"),
    [
        ("an apple", "blue", "a blue apple"),
        ("a cat", "orange", "an orange cat"),
        ("grapes", "red", "red grapes"),
        ("the earth", "pink", "the pink earth"),
    ],
)
def test_adjectives_take_the_article(phrase, adjective, expected):
    assert with_adjective(phrase, adjective) == expected


# The evaluation prompts


def test_prompt_file_is_what_the_code_writes(tmp_path):
    write_prompts(tmp_path / "prompts.jsonl")
    assert read_prompts(tmp_path / "prompts.jsonl") == read_prompts()


def test_prompts_cover_every_object_and_kind():
    rows = read_prompts()
    assert len({row["prompt"] for row in rows}) == len(rows)
    plain = [row["objects"][0] for row in rows if row["kind"] == "single" and not row["background"]]
    assert plain == list(objects())
    assert sum(row["kind"] == "pair" for row in rows) == 240
    assert sum(row["kind"] == "recolour" for row in rows) == 200
    assert len(held_out()) == len(evaluation_scenes()) - len(plain)


# Pixels


@needs_font
def test_every_object_has_its_own_drawing():
    drawings = {glyph(name, side=32).tobytes() for name in objects()}
    assert len(drawings) == len(objects())


@needs_font
def test_vocabulary_holds_what_is_measured():
    for name in ("apple", "ghost", "bomb"):
        assert measure(objects()[name]) == objects()[name]


@needs_font
@pytest.mark.parametrize("size", [64, 128])
def test_render_is_deterministic(scenes, size):
    picture = render(scenes[0], size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))
    assert picture.tobytes() == render(scenes[0], size).tobytes()
    other = dataclasses.replace(scenes[0], seed=scenes[0].seed + 1)
    assert picture.tobytes() != render(other, size).tobytes()


@needs_font
def test_objects_stand_out_and_stay_inside(scenes):
    for scene in scenes[:60]:
        pixels = np.asarray(render(scene, 64)).astype(int)
        empty = _background(scene, 64)
        changed = np.abs(pixels - empty).sum(axis=-1) > 30
        assert changed.mean() > 0.03, scene
        frame = np.concatenate([changed[0], changed[-1], changed[:, 0], changed[:, -1]])
        assert frame.mean() < 0.25, scene


@needs_font
@pytest.mark.parametrize("relation", list(RELATIONS))
def test_relations_hold_in_the_picture(relation):
    pixels = np.asarray(render(pair(relation))).astype(int)
    red = np.argwhere(pixels[..., 0] - pixels[..., 1] > 100).mean(axis=0)  # the tomato
    green = np.argwhere(pixels[..., 1] - pixels[..., 0] > 10).mean(axis=0)  # the frog
    down, right = red - green
    moved = {"left of": -right, "right of": right, "above": -down, "below": down}
    assert moved[relation] > 40


@pytest.mark.parametrize("relation", list(RELATIONS))
def test_pairs_do_not_overlap(relation):
    for seed in range(50):
        first, second = layout(dataclasses.replace(pair(relation), seed=seed))
        gap = max(abs(first.x - second.x), abs(first.y - second.y))
        assert gap > (first.side + second.side) / 2 - 0.04


@needs_font
def test_recolours_take_the_colour():
    for colour, paint in TINTS.items():
        scene = Scene("recolour", ("sheep",), None, colour, None, False, "", 0)
        pixels = np.asarray(render(scene)).reshape(-1, 3).astype(int)
        near = np.abs(pixels - np.array(paint)).max(axis=-1) < 24
        assert near.mean() > 0.1, colour


# Folders


@needs_font
def test_dataset_round_trip(tmp_path):
    out = tmp_path / "scenes"
    seen = []
    write_dataset(out, 4, size=32, seed=1, progress=lambda done, count: seen.append((done, count)))
    first = {row.path: row.path.read_bytes() for row in read_folder(out)}
    assert seen[-1] == (4, 4)
    write_dataset(out, 6, size=32, seed=1, workers=2)  # appends
    rows = read_folder(out)
    assert len(rows) == 6
    assert all(path.read_bytes() == data for path, data in first.items())
    for index, row in enumerate(rows):
        scene = scene_at(1, index)
        assert row.text == scene.caption
        assert {key: row.labels[key] for key in scene.labels()} == scene.labels()
        assert tuple(row.labels["phrases"]) == scene.phrases
        assert Image.open(row.path).tobytes() == render(scene, 32).tobytes()
    write_dataset(out, 2, size=32, seed=1)  # never loses any
    assert len(read_folder(out)) == 6
    for other in ({"seed": 2}, {"size": 64}):
        with pytest.raises(UserError, match="choose another folder"):
            write_dataset(out, 4, size=other.get("size", 32), seed=other.get("seed", 1))


def test_write_dataset_leaves_other_folders_alone(tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match="something other than scenes"):
        write_dataset(tmp_path, 4)
    with pytest.raises(UserError, match="at least"):
        write_dataset(tmp_path / "new", 0)


def test_missing_font_names_the_package(monkeypatch, tmp_path, request):
    from imagediff import objects as module

    caches = (module._font, module._bitmap, module.glyph)
    for cache in caches:
        cache.cache_clear()
        request.addfinalizer(cache.cache_clear)
    monkeypatch.setattr(module, "FONT", tmp_path / "NotoColorEmoji.ttf")
    with pytest.raises(UserError, match="fonts-noto-color-emoji"):
        module.glyph("dog")


def test_read_folder_of_ones_own(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = {"file_name": "a.png", "text": "a black square", "artist": "me"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n\n")
    (only,) = read_folder(str(tmp_path))
    assert (only.path, only.text, only.labels) == (
        tmp_path / "a.png",
        "a black square",
        {"artist": "me"},
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "has no metadata.jsonl"),
        ("", "is empty"),
        ("a.png, a dog", "line 1: not JSON"),
        ("[1]", "not a JSON object"),
        ('{"file_name": "a.png"}', "text is missing"),
        ('{"text": "a dog"}', "file_name is missing"),
        ('{"file_name": "a.png", "text": "a dog"}', "no picture a.png"),
    ],
)
def test_read_folder_tells_what_is_wrong(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "metadata.jsonl").write_text(content)
    with pytest.raises(UserError, match=complaint):
        read_folder(tmp_path)

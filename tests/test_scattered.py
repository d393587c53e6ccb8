"""Scenes of objects anywhere in the frame, and what their metadata tell of places."""

from itertools import combinations

import numpy as np
import pytest

from imagediff.data import draw, layout, read_folder, render, scene_at, write_dataset
from imagediff.objects import FONT, objects
from imagediff.scattered import SCATTERED, relation_of, sentence
from imagediff.scenes import held_out
from imagediff.shapes import box_of, from_hex, to_hex

needs_font = pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji not installed")
SCENES = [scene_at(3, index, anywhere=True) for index in range(1500)]


def test_one_to_four_objects_that_keep_apart():
    assert {len(scene.objects) for scene in SCENES} == {1, 2, 3, 4}
    for scene in SCENES:
        assert scene.kind == SCATTERED and len(scene.phrases) == len(set(scene.objects))
        places = layout(scene)
        for place in places:
            assert place.side / 2 <= min(place.x, 1 - place.x, place.y, 1 - place.y) + 1e-9
        for first, second in combinations(places, 2):
            apart = max(abs(first.x - second.x), abs(first.y - second.y))
            assert apart > 0.95 * (first.side + second.side) / 2


def test_places_and_sizes_cover_the_frame():
    singles = [layout(scene)[0] for scene in SCENES if len(scene.objects) == 1]
    assert min(place.side for place in singles) < 0.35 < 0.85 < max(p.side for p in singles)
    for axis in ("x", "y"):
        values = [getattr(place, axis) for place in singles]
        assert min(values) < 0.25 and max(values) > 0.75


def test_nothing_of_the_evaluation_is_shown():
    for scene in SCENES:
        keys = {("pair", *sorted(two)) for two in combinations(scene.objects, 2)}
        if scene.colour is not None:
            keys.add(("recolour", scene.objects[0], scene.colour))
        elif len(scene.objects) == 1:
            keys.add(("single", scene.objects[0], str(scene.background)))
        assert not keys & held_out()


def test_captions_name_what_is_there_and_relations_are_true():
    related = 0
    for scene in SCENES:
        assert all(phrase in scene.caption for phrase in scene.phrases)
        if scene.colour is None:
            named = zip(scene.phrases, scene.objects, strict=True)
            assert all(phrase in objects()[name].phrases for phrase, name in named)
        if len(scene.objects) == 2 and " and " not in scene.caption:
            related += 1
            first, second = layout(scene)
            relation = relation_of((first.x, first.y), (second.x, second.y))
            assert relation in scene.caption
    assert related > 150


@pytest.mark.parametrize(
    ("first", "second", "relation"),
    [
        ((0.2, 0.5), (0.8, 0.6), "left of"),
        ((0.8, 0.5), (0.2, 0.6), "right of"),
        ((0.5, 0.2), (0.6, 0.8), "above"),
        ((0.5, 0.8), (0.6, 0.2), "below"),
    ],
)
def test_relations(first, second, relation):
    assert relation_of(first, second) == relation
    assert relation.split()[0] in sentence(["a dog", "a cat"], [first, second])


def test_sentences():
    assert sentence(["a dog"], None) == "a dog"
    assert sentence(["a dog", "a cat"], None) == "a dog and a cat"
    assert sentence(["a dog", "a cat", "a hat"], [(0, 0)] * 3) == "a dog, a cat and a hat"


@needs_font
def test_shares_are_where_the_objects_are_drawn():
    for scene in (scene_at(0, 1), scene_at(5, 2, anywhere=True)):
        drawing = draw(scene, 64)
        assert drawing.picture.tobytes() == render(scene, 64).tobytes()
        covered = np.clip(sum(drawing.shares), 0, 1)
        empty = np.asarray(drawing.picture, int)[covered == 0]
        assert len(drawing.shares) == len(scene.objects)
        # What no object covers is background: of one shade but for rounding, or of a ramp of them.
        assert np.ptp(empty, axis=0).max() <= 1 or scene.gradient
        for share, place in zip(drawing.shares, layout(scene), strict=True):
            x, y, width, height = box_of(share > 0.5)
            assert abs((x + width / 2) / 64 - place.x) < 0.06
            assert abs((y + height / 2) / 64 - place.y) < 0.06
            assert max(width, height) / 64 == pytest.approx(place.side, abs=0.12)


@needs_font
def test_metadata_tell_boxes_and_outlines(tmp_path):
    write_dataset(tmp_path / "anywhere", 5, size=64, seed=2, anywhere=True)
    for index, row in enumerate(read_folder(tmp_path / "anywhere")):
        drawing = draw(scene_at(2, index, anywhere=True), 64)
        assert row.labels["boxes"] == [list(box_of(share > 0.15)) for share in drawing.shares]
        assert row.labels["shapes"] == [to_hex(share) for share in drawing.shares]
        for shape, share in zip(row.labels["shapes"], drawing.shares, strict=True):
            assert from_hex(shape).mean() == pytest.approx(share.mean(), abs=0.02)
    write_dataset(tmp_path / "usual", 2, size=64, seed=2)
    assert all("boxes" in row.labels for row in read_folder(tmp_path / "usual"))

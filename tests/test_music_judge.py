"""The judge of styles and instruments: its network, its training, its files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from two_styles import Echo, clicking, drone, write_two_styles

from audiodiff.adherence import (
    read_evaluation,
)
from audiodiff.audio_file import write_audio
from audiodiff.judge import (
    BASENAME,
    CARRIED,
    N_MELS,
    Judge,
    JudgeTraining,
    Opinion,
    augment,
    levelled,
    listen,
    load_judge,
    mel_db,
    round_trip,
    train_judge,
)
from audiodiff.labels import SAMPLE_RATE
from shared.errors import UserError
from shared.weights import save_component


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_two_styles(folder)
    return folder


@pytest.fixture(scope="module")
def judge(corpus: Path) -> Judge:
    return train_judge(corpus, None, JudgeTraining(steps=35, batch_size=8))


def test_the_judge_is_small_and_takes_any_length() -> None:
    judge = Judge([f"style {number}" for number in range(20)], ["piano"] * 26).eval()
    parameters = sum(tensor.numel() for tensor in judge.state_dict().values())
    assert parameters < 600_000
    for frames in (64, 256, 300):
        styles, instruments = judge(torch.rand(3, 1, N_MELS, frames))
        assert styles.shape == (3, 20)
        assert instruments.shape == (3, 26)


def test_what_the_judge_hears_does_not_depend_on_the_level() -> None:
    sound = clicking(0)
    loud, soft = (levelled(mel_db(sound * gain)[None]) for gain in (1, 0.1))
    assert loud.shape[:3] == (1, 1, N_MELS)
    assert loud.max() == 1
    assert torch.allclose(loud, soft, atol=1e-4)
    silence = levelled(mel_db(np.zeros((2, 100), dtype=np.float32))[None])
    assert torch.equal(silence, torch.ones_like(silence))


def test_a_judge_learns_what_sounds_different(judge: Judge) -> None:
    opinions = listen(judge, [drone(1001), clicking(1002)])
    assert opinions == [
        Opinion("drone", frozenset({"organ"})),
        Opinion("clicks", frozenset({"drums"})),
    ]


def test_judges_of_one_seed_are_the_same_and_say_how_good_they_are(corpus: Path) -> None:
    told: list[str] = []
    how = JudgeTraining(clips=20, round_trips=20, steps=2, batch_size=4)
    codec: Any = Echo()
    first, second = (train_judge(corpus, codec, how, told.append) for _ in range(2))
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert first.config["round_trips"] == 20
    assert told[0].startswith("held-out clean clips: style ")
    assert told[1].startswith("held-out codec round trips: style ")


def test_a_round_trip_keeps_the_length() -> None:
    sound = drone(0)[:, :10_000]
    codec: Any = Echo()
    np.testing.assert_array_equal(round_trip(codec, sound), sound / 2)
    assert round_trip(codec, sound[:1]).shape == (2, 10_000)


def test_a_judge_is_read_back_as_it_was_written(judge: Judge, tmp_path: Path) -> None:
    save_component(judge, tmp_path, basename=BASENAME)
    told: list[str] = []
    again = load_judge(tmp_path, told.append)
    assert len(told) == 1  # it knows no round trips
    clips = [drone(1001), clicking(1002)]
    assert listen(again, clips) == listen(judge, clips)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"version": 0}), encoding="utf-8")
    with pytest.raises(UserError, match="another version"):
        load_judge(tmp_path)
    with pytest.raises(UserError, match="holds no judge"):
        load_judge(tmp_path / "elsewhere")


@pytest.mark.skipif(not CARRIED.exists(), reason="no judge is carried")
def test_the_carried_judge_is_small_and_knows_the_prompts() -> None:
    assert sum(path.stat().st_size for path in CARRIED.iterdir()) < 1.2 * 2**20
    carried = load_judge()
    assert carried.config["round_trips"] > 0
    for prompt in read_evaluation():
        assert prompt.labels.style in carried.styles
        assert set(prompt.labels.instruments) <= set(carried.instruments)


def test_a_judge_needs_labels(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", drone(0), SAMPLE_RATE)
    row = {"file_name": "a.wav", "text": "a drone"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(UserError, match="has 0 clips labelled"):
        train_judge(tmp_path)


def test_augmented_mels_stay_in_range_and_follow_the_seed() -> None:
    mels = torch.rand(4, 1, N_MELS, 32)
    first, second = (augment(mels, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(first, mels)

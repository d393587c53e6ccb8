"""The measurement of edited clips."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_music import play_levels

from audiodiff import MusicPipeline, evaluate_edit
from audiodiff.adherence import Prompt
from audiodiff.evaluate_edit import CODEC, CROSSFADE, KINDS, NAIVE, PAPER, REAL
from audiodiff.judge import N_MELS, Judge, features_of
from audiodiff.labels import Labels
from audiodiff.prompts import SECONDS
from shared.denoiser import DenoiseFn
from shared.editing import Known
from shared.errors import UserError

RATE = 44100


def prompts() -> list[Prompt]:
    return [
        Prompt(number, "a waltz", kind, Labels(style="waltz", tempo=100.0, key="C major"))
        for number, kind in enumerate(["controls", "controls", "text", "text", "text"])
    ]


def music(number: int) -> np.ndarray:
    """Notes of a third of a second, no two clips alike."""
    time = np.arange(round(SECONDS * RATE)) / RATE
    pitch = 220 * 2 ** (((7 * number + (3 * time).astype(int) * 5) % 12) / 12)
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * np.exp(-3 * (3 * time % 1))
    return (0.3 * np.stack([tone, 0.8 * tone])).astype(np.float32)


def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(["waltz", "techno"], ["piano"]).eval()


def test_features_are_those_that_the_judge_decides_by() -> None:
    one = judge()
    (feature,) = features_of(one, [music(0)])
    mels = torch.rand(1, 1, N_MELS, 64)
    hidden = one.features(mels)
    assert feature.shape == (one.config["width"],)
    assert torch.equal(one.style(hidden), one(mels)[0])


def test_every_task_and_way_is_measured(
    tiny_music_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        evaluate_edit, "real_clips", lambda these, say: {p.number: music(p.number) for p in these}
    )
    pipeline = MusicPipeline.load(tiny_music_model, "cpu", "float32")
    pipeline.codec.vocoder = play_levels
    report = evaluate_edit.evaluate_edit(pipeline, judge(), prompts(), steps=2, guidance_scale=1.0)
    rows = {(row.task, row.way): row for row in report.rows}
    for task in KINDS:
        between = [CROSSFADE] if task == "transition" else []
        ways = [way for there, way in rows if there == task]
        assert ways == ["consistency", NAIVE, PAPER, *between, CODEC, REAL]
        for way in ways:
            row = rows[task, way]
            assert row.n == 2 and row.outside == 0 and row.frechet is not None
            assert np.isfinite([row.flux, row.worst, row.frechet]).all() and row.worst >= row.flux
            assert (row.seconds is None) == (way in (CODEC, REAL, CROSSFADE))
    # Tones of the levels alone are no music: they are further from real clips than those are.
    assert (rows["infill", NAIVE].frechet or 0) > (rows["infill", REAL].frechet or 0)
    assert len(json.dumps(report.record())) > 1000
    assert "constant-step gradient" in report.table()


def test_without_real_clips_nothing_can_be_edited(
    tiny_music_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_edit, "real_clips", lambda these, say: {})
    pipeline = MusicPipeline.load(tiny_music_model, "cpu", "float32")
    with pytest.raises(UserError, match="no real clips"):
        evaluate_edit.evaluate_edit(pipeline, judge(), prompts(), guidance_scale=1.0)


def test_the_papers_step_is_xi_times_the_sign_of_the_error() -> None:
    """Where the denoiser's answer is ``x / (1 + sigma^2)`` the gradient is known exactly."""
    known = Known(torch.zeros(1, 1, 1, 4), torch.tensor([True, True, False, False]))
    x = torch.tensor([[[[3.0, -2.0, 1.0, -1.0]]]])
    sigmas = torch.tensor([2.0, 0.0])

    def shrink(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x / (1 + sigma.square())[:, None, None, None]

    def walked(denoise: DenoiseFn) -> torch.Tensor:
        walk = evaluate_edit.constant_step(known)
        return walk(denoise, x, sigmas, lambda step: torch.zeros_like(x), None)

    # One step to 0: x0_hat less xi sqrt(1 + sigma^2) times the gradient sign / (1 + sigma^2).
    move = evaluate_edit.PAPER_XI / 5**0.5 * torch.tensor([1.0, -1.0, 0.0, 0.0])
    assert torch.allclose(walked(shrink), x / 5 - move)


def test_pieces_lie_about_the_part_and_outside_is_outside() -> None:
    clip = music(0)
    found = evaluate_edit.pieces(clip, 2 * RATE, 4 * RATE)
    assert len(found) == 3 and all(piece.shape == (2, round(1.5 * RATE)) for piece in found)
    assert np.array_equal(found[0], clip[:, round(1.25 * RATE) : round(2.75 * RATE)])
    before = evaluate_edit.sound_of(clip)
    after = before.with_part(100, before.samples[:, 100:200] + 3 / 2**15)
    assert evaluate_edit.outside_error(before, after, 100, 200) == 0
    assert evaluate_edit.outside_error(before, after, 100, 199) == pytest.approx(3, abs=0.1)

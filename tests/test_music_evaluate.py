"""The figures that `duotone evaluate music` prints, and the judge behind them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from two_styles import STYLES, Echo, clicking, drone

from audiodiff import adherence
from audiodiff import evaluate as evaluation
from audiodiff.adherence import (
    BEATS,
    CONTROLS,
    INSTRUMENTS,
    STYLE,
    TEXT,
    Prompt,
    Take,
    draw_by_lot,
    figures,
    instrument_f1,
    macro_dynamics,
    read_evaluation,
    swap_labels,
    swapped,
)
from audiodiff.compose import is_held_out
from audiodiff.controls import Controls
from audiodiff.judge import (
    Judge,
    Opinion,
)
from audiodiff.labels import FRAME_SECONDS, SAMPLE_RATE, Labels
from audiodiff.loudness import loudness_curve
from audiodiff.metrics import hear
from audiodiff.prompts import SECONDS, labels_of_part, real_clip, score_of
from audiodiff.read_prompt import read_prompt
from audiodiff.render import SOUNDFONTS, find_soundfont
from audiodiff.theory import parse_key
from shared.errors import UserError
from shared.report import Figure, table
from shared.settings import GuidanceSettings

SAMPLES = round(SECONDS * SAMPLE_RATE)

needs_soundfont = pytest.mark.skipif(
    not any(path.exists() for path in SOUNDFONTS), reason="the soundfont is not installed"
)


def by_ear(judge: Judge, clips: Sequence[np.ndarray]) -> list[Opinion]:
    """Tells noise from tones by how often the sign changes, as a trained judge would."""
    changes = [np.mean(np.diff(np.sign(clip[0])) != 0) for clip in clips]
    drones, rest = (Opinion("drone", frozenset({"organ"})), Opinion("clicks", frozenset({"drums"})))
    return [drones if share < 0.1 else rest for share in changes]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    monkeypatch.setattr(adherence, "listen", by_ear)
    return Judge(STYLES, ["organ", "drums"]).eval()


# Prompts


def test_the_prompts_are_held_out_and_say_what_they_ask_for() -> None:
    prompts = read_evaluation()
    texts, controls = ([p for p in prompts if p.kind == kind] for kind in ("text", "controls"))
    assert len(texts) == 160
    assert len(controls) == 96
    for prompt in prompts:
        labels = prompt.labels
        assert is_held_out(str(labels.style), parse_key(str(labels.key)))
        assert labels.instruments
    for prompt in texts:
        said = read_prompt(prompt.text)
        key = said.key.name if said.key else prompt.key
        assert (said.tempo or prompt.bpm, key) == (prompt.labels.tempo, prompt.labels.key)
    assert 60 < sum(prompt.bpm is None for prompt in texts) < 100
    for prompt in controls:
        said = read_prompt(prompt.text)
        assert (said.tempo, said.key, prompt.bpm, prompt.key) == (None, None, None, None)
        assert len(prompt.labels.dynamics) == 64
        assert len(prompt.labels.chords) == len(prompt.labels.beats) > 4
        assert len(prompt.labels.melody) > 4
    assert len({prompt.labels.style for prompt in texts}) >= 14


def test_the_prompts_are_of_today_s_composer() -> None:
    prompts = read_evaluation()
    for prompt in (*prompts[:160:20], *prompts[160::16]):
        again = labels_of_part(score_of(prompt), prompt.kind, prompt.start)
        assert again == replace(prompt.labels, dynamics=())


@needs_soundfont
def test_the_dynamics_of_prompts_are_their_renders() -> None:
    prompt = read_evaluation()[160]
    samples = real_clip(prompt, score_of(prompt), find_soundfont())
    assert samples.shape == (2, SAMPLES)
    np.testing.assert_allclose(loudness_curve(samples), prompt.labels.dynamics, atol=0.06)


GOOD = {"prompt": "a tune", "kind": "text", "labels": {"style": "a", "tempo": 9.0, "key": "C"}}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"kind": "song"}, "kind must be text or controls"),
        ({"labels": {"style": "a"}}, "need style, tempo and key"),
        ({"labels": GOOD["labels"] | {"tempo": "slow"}}, "column tempo"),
        ({"labels": None}, "with prompt, kind and labels"),
        ({"start": -1}, "latent frames"),
        ({"bpm": -3}, "bpm must be"),
        ({"key": 3}, "key must be"),
    ],
)
def test_bad_prompts_are_refused(change: dict, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | change), encoding="utf-8")
    with pytest.raises(UserError, match=f"line 3: .*{complaint}"):
        read_evaluation(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds no prompts"):
        read_evaluation(path)


def test_lots_are_drawn_from_each_kind() -> None:
    prompts = read_evaluation()
    chosen = draw_by_lot(prompts, 3, seed=1)
    assert [prompt.kind for prompt in chosen] == ["text"] * 3 + ["controls"] * 3
    assert chosen == draw_by_lot(prompts, 3, seed=1) != draw_by_lot(prompts, 3, seed=2)
    assert draw_by_lot(prompts, None, seed=0) == prompts


def test_swapped_labels_are_all_given_and_none_stays() -> None:
    labels = [Labels(tempo=float(number)) for number in range(1, 30)]
    other = swap_labels(labels)
    assert sorted(other, key=lambda one: one.tempo or 0) == labels
    assert all(one != before for one, before in zip(other, labels, strict=True))


# Figures


def take(style: str = "a", instruments: Sequence[str] = (), seed: int = 0) -> Take:
    return Take(hear(clicking(seed, 3.0)), Opinion(style, frozenset(instruments)))


def test_instrument_f1() -> None:
    assert instrument_f1(frozenset({"piano", "drums"}), ("drums", "piano")) == 1
    assert instrument_f1(frozenset({"piano"}), ("drums",)) == 0
    assert instrument_f1(frozenset({"piano", "drums", "harp"}), ("piano",)) == 0.5
    assert instrument_f1(frozenset(), ("piano",)) == 0


def test_figures_have_intervals_ceilings_and_floors() -> None:
    labels = [Labels(style=style, instruments=("drums",)) for style in "abcd"]
    right = [take(style, ["drums"]) for style in "abcd"]
    wrong = [take("a", ["harp"]) for _ in "abcd"]
    measures = {"style": STYLE, "instruments": INSTRUMENTS, "beats": BEATS}
    pairs, real = (list(zip(takes, labels, strict=True)) for takes in (wrong, right))
    found = figures(measures, pairs, real, key="x_", title="x: ")
    assert list(found) == ["x_style", "x_instruments"]  # no labels of beats
    style = found["x_style"]
    assert (style.title, style.value, style.n, style.real) == ("x: style", 0.25, 4, 1)
    assert style.swapped == 0.25
    assert style.interval == pytest.approx((0.0456, 0.6994), abs=1e-3)
    assert found["x_instruments"].value == 0
    assert figures(measures, real)["style"].swapped == 0
    assert swapped(pairs)[0][0] is wrong[0]


def test_macro_dynamics_pool_the_clips() -> None:
    pairs = []
    for level in (-40.0, -30.0, -20.0):
        heard = replace(take().heard, levels=np.full(32, level))
        pairs.append((Take(heard, Opinion("a", frozenset())), Labels(dynamics=(level,) * 32)))
    found = macro_dynamics(pairs)
    assert found is not None
    assert found.value == pytest.approx(1)
    assert (found.swapped or 0) < 0.5
    assert macro_dynamics([]) is None


def test_a_table_shows_every_figure() -> None:
    figures = [Figure("one", 0.5, 10, (0.25, 0.75), real=1.0), Figure("two", 3.0, 1, unit="dB")]
    shown = table({"steps": 5}, figures, "legend").splitlines()
    assert shown[0] == "steps 5"
    assert shown[3].split() == ["one", "0.500", "0.250", "to", "0.750", "10", "1.000"]
    assert shown[4].split() == ["two", "3.00", "dB", "1"]
    assert len({len(line.rstrip()) for line in shown[3:4]}) == 1
    assert shown[-1] == "legend"


# The evaluation


def test_only_the_controls_given_are_known() -> None:
    prompt = next(prompt for prompt in read_evaluation() if prompt.kind == "controls")
    told = evaluation.given(prompt.labels, ("melody", "beats"))
    assert {name for name, known in told.known.items() if known.any()} == {"melody", "beats"}
    assert told.frames == 64


@dataclass
class Band:
    """A pipeline that plays the drone it was told of, and remembers what it was asked for."""

    codec: Any
    device: torch.device
    asked: list[dict[str, Any]]

    def __call__(
        self,
        prompt: str,
        *,
        seconds: float,
        bpm: float | None,
        key: str | None,
        seed: int,
        steps: int,
        guidance_scale: float,
        sampler: str,
        schedule: str,
        guidance: GuidanceSettings,
        controls: Controls | None,
    ) -> Sequence[Any]:
        known = controls and {name for name, known in controls.known.items() if known.any()}
        self.asked.append({"prompt": prompt, "bpm": bpm, "seed": seed, "known": known})
        facts = ("model", "model_hash", "device", "dtype")
        record = dict.fromkeys(facts, "x") | {"steps": steps, "sampler": sampler}
        record["guidance_scale"] = guidance_scale
        sound = drone if prompt == "drone" else clicking
        settings = SimpleNamespace(record=lambda: record)
        return [SimpleNamespace(samples=sound(seed, seconds), settings=settings)]


def labelled(number: int, kind: str, style: str) -> Prompt:
    beats = tuple(np.arange(12) * 0.5)
    labels = Labels(
        kind="music",
        style=style,
        instruments=("organ",) if style == "drone" else ("drums",),
        tempo=120.0,
        meter=4,
        key="A minor",
        chords=("Am",) * 12,
        melody=tuple((0.5 * i, 0.5 * i + 0.4, 60 + i) for i in range(11)),
        beats=beats,
        downbeats=beats[::4],
        dynamics=tuple(np.linspace(-30, -10, 64)),
        duration=64 * FRAME_SECONDS,
    )
    return Prompt(number, style, kind, labels, bpm=120.0 if kind == "text" else None)


def test_all_sections_are_measured(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [labelled(i, kind, STYLES[i % 2]) for i, kind in enumerate(["text", "controls"] * 2)]
    prompts = [replace(prompts[i], text=prompts[i].labels.style or "") for i in range(4)]
    real = {prompts[1].number: clicking(7, 1.0)}
    monkeypatch.setattr(evaluation, "real_clips", lambda prompts, say: real)
    band = Band(Echo(), torch.device("cpu"), [])
    report = evaluation.evaluate(band, judge, prompts, seed=5, steps=3)

    everything = {"melody", "chords", "key", "dynamics", "beats", "tempo"}
    given = [asked["known"] for asked in band.asked]
    assert given[:2] == [None, None]
    assert given[2:10:2] == [{name} for name in CONTROLS]
    assert given[10:] == [everything] * 2
    assert [asked["seed"] for asked in band.asked[:4]] == [5, 7, 6, 8]
    assert [asked["bpm"] for asked in band.asked[:3]] == [120, 120, None]

    record = json.loads(json.dumps(report.record(), allow_nan=False))
    found = record["figures"]
    assert {f"text_{name}" for name in TEXT} <= set(found)
    assert found["text_style"]["value"] == 1
    for how in ("alone", "together"):
        assert {f"{how}_{name}" for each in CONTROLS.values() for name in each} <= set(found)
        assert found[f"{how}_dynamics_macro"]["n"] == 2
    assert found["together_beats"]["real"] is not None
    assert found["codec_style"]["value"] == found["codec_style"]["real"] == 1
    assert found["codec_stereo"]["value"] == pytest.approx(0, abs=1e-3)
    assert found["codec_mr_stft"]["value"] > 0
    assert found["vocoder_log_mel"]["value"] > found["griffin_lim_log_mel"]["value"] > 0
    assert found["seconds"]["value"] >= 0
    assert record["settings"]["steps"] == 3
    for figure in report.figures.values():
        assert figure.title in report.table()


def test_without_the_soundfont_clips_are_judged(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(path: Path | None = None) -> Path:
        raise UserError("no soundfont")

    monkeypatch.setattr(evaluation, "find_soundfont", nothing)
    told: list[str] = []
    band = Band(Echo(), torch.device("cpu"), [])
    prompts = [labelled(0, "text", "drone")]
    report = evaluation.evaluate(band, judge, prompts, limit=1, say=told.append)
    assert len(told) == 1
    assert report.figures["text_style"].real is None
    assert report.figures["text_style"].value == 1
    assert "codec_style" not in report.figures


def test_a_style_that_the_judge_does_not_know_is_refused(judge: Judge) -> None:
    band = Band(Echo(), torch.device("cpu"), [])
    with pytest.raises(UserError, match="unknown style 'polka'"):
        evaluation.evaluate(band, judge, [labelled(0, "text", "polka")])
    assert not band.asked


@needs_soundfont
def test_real_clips_of_another_composer_are_left_out() -> None:
    prompt = read_evaluation()[0]
    other = replace(prompt, number=1, labels=replace(prompt.labels, instruments=("kazoo",)))
    none = replace(prompt, number=2, seed="")
    told: list[str] = []
    found = evaluation.real_clips([prompt, other, none], told.append)
    assert list(found) == [0]
    assert found[0].shape == (2, SAMPLES)
    assert told == ["1 prompts were written by another composer; they have no real clip"]

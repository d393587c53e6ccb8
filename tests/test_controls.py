"""Control channels: exact answers for known notes, chords, beats; masks; windows."""

import math
from dataclasses import replace

import pytest
import torch

from audiodiff.controls import (
    CHANNELS,
    CONTROLS,
    Controls,
    check_controls,
    draw_hidden,
    from_labels,
    hide,
    to_channels,
    to_tensor,
    unknown,
    write_controls,
)
from audiodiff.labels import FRAME_SECONDS, Labels
from audiodiff.theory import parse_chord, parse_key
from shared.errors import UserError

F = FRAME_SECONDS
# 120 beats a minute, three beats a bar; the beat that goes on at 0 began 0.1 s before.
BEATS = tuple(-0.1 + 0.5 * i for i in range(33))
LABELS = Labels(
    kind="music",
    tempo=120.0,
    meter=3,
    key="A minor",
    chords=tuple(("Am", "Am", "Am", "F", "F", "C/E")[i % 6] for i in range(33)),
    melody=tuple((0.3 + 0.7 * i, 0.9 + 0.7 * i, 55 + 5 * i % 17) for i in range(20)),
    beats=BEATS,
    downbeats=BEATS[2::3],
    dynamics=tuple(-20 + 10 * math.sin(i / 3) for i in range(173)),
    duration=16.0,
)


def assert_same(one: Controls, other: Controls, **tolerance) -> None:
    for name in CONTROLS:
        torch.testing.assert_close(one.values[name], other.values[name], **tolerance)
        assert torch.equal(one.known[name], other.known[name]), name


def pitches(*which: int) -> list[float]:
    return [float(pitch in which) for pitch in range(12)]


def test_the_channels_are_73():
    assert CHANNELS == 73
    assert to_channels(from_labels(LABELS, 5)).shape == (73, 5)
    for name, count in CONTROLS.items():
        assert from_labels(LABELS, 5).values[name].shape == (count, 5)


def test_a_note_has_the_share_of_each_frame_that_it_sounds():
    melody = from_labels(Labels(melody=((0.5, 1.0, 60),)), 16).values["melody"]
    for frame in range(16):
        share = max(0.0, min(1.0, (frame + 1) * F) - max(0.5, frame * F)) / F
        assert melody[0, frame].item() == pytest.approx(share, abs=1e-5)
        assert melody[12, frame].item() == pytest.approx(1 - share, abs=1e-5)
    # 0.5 s lies in frame 5 (0.464 to 0.557 s), 1 s in frame 10 (0.929 to 1.022 s).
    assert melody[0].nonzero().flatten().tolist() == [5, 6, 7, 8, 9, 10]
    assert melody[0, 6:10].tolist() == [1.0] * 4
    assert not melody[1:12].any()


def test_notes_of_one_frame_share_it():
    # Both of pitch class D, then a D and a G at once for the whole frame.
    notes = ((0.0, F / 4, 62), (F / 2, F, 50), (F, 2 * F, 62), (F, 2 * F, 67))
    melody = from_labels(Labels(melody=notes), 2).values["melody"]
    assert melody[2].tolist() == pytest.approx([0.75, 0.5])
    assert melody[7].tolist() == pytest.approx([0.0, 0.5])
    assert melody[12].tolist() == pytest.approx([0.25, 0.0])


def test_phases_of_beats_and_bars():
    found = from_labels(LABELS, 64).values["beats"]
    for frame in range(64):
        time = (frame + 0.5) * F
        beat, bar = (time + 0.1) / 0.5, (time - 0.9) / 1.5  # beat 2, at 0.9 s, begins a bar
        wanted = [f(2 * math.pi * phase) for phase in (beat, bar) for f in (math.sin, math.cos)]
        assert found[:, frame].tolist() == pytest.approx(wanted, abs=1e-5)


def test_bars_follow_from_one_downbeat_and_the_meter():
    one = replace(LABELS, downbeats=LABELS.downbeats[1:2])
    assert_same(from_labels(one, 64), from_labels(LABELS, 64), atol=1e-5, rtol=0)
    assert not from_labels(replace(one, meter=None), 4).known["beats"].any()
    assert not from_labels(replace(LABELS, beats=BEATS[:1]), 4).known["beats"].any()


def test_chords_keys_dynamics_and_tempo():
    found = from_labels(LABELS, 64)
    middle = {frame: math.floor(((frame + 0.5) * F + 0.1) / 0.5) for frame in range(64)}
    am, f, c = pitches(9, 0, 4), pitches(5, 9, 0), pitches(0, 4, 7)
    for frame, beat in middle.items():
        if (frame * F + 0.1) // 0.5 == ((frame + 1) * F + 0.1) // 0.5:  # one beat only
            notes, bass = [(am, 9), (am, 9), (am, 9), (f, 5), (f, 5), (c, 4)][beat % 6]
            assert found.values["chords"][:, frame].tolist() == [*notes, *pitches(bass)]
    # Frame 15 (1.3932 to 1.4861 s) crosses from Am to F at 1.4 s.
    share = (1.4 - 15 * F) / F
    assert found.values["chords"][4, 15].item() == pytest.approx(share, abs=1e-4)
    assert found.values["chords"][5, 15].item() == pytest.approx(1 - share, abs=1e-4)
    a_minor = [*pitches(9, 11, 0, 2, 4, 5, 7), *pitches(9)]
    assert found.values["key"].T.tolist() == [a_minor] * 64
    wanted = [level / 10 + 2 for level in LABELS.dynamics[:64]]
    assert found.values["dynamics"][0].tolist() == pytest.approx(wanted, abs=1e-6)
    assert found.values["tempo"][0].tolist() == pytest.approx([math.log2(120 / 110)] * 64)
    silent = from_labels(Labels(dynamics=(-80.0, -60.0)), 2).values["dynamics"]
    assert silent.tolist() == [[-4.0, -4.0]]


def test_a_chord_that_begins_within_a_frame_fills_it_or_is_unknown():
    labels = Labels(chords=("C", "F"), beats=(0.3 * F, 2.8 * F))
    found = from_labels(labels, 4)
    assert found.known["chords"].tolist() == [True] * 4
    assert found.values["chords"][7].tolist() == pytest.approx([1, 1, 0.8, 0])  # the G of C
    later = from_labels(replace(labels, beats=(0.7 * F, 2.8 * F)), 4)
    assert later.known["chords"].tolist() == [False, True, True, True]


def test_windows_are_slices_of_the_whole():
    whole = from_labels(LABELS, 172)
    for first in (0, 1, 57, 108):
        part = from_labels(LABELS, 64, first * F)
        assert_same(part, whole.window(first, 64), atol=1e-4, rtol=0)
    # The labels of a window say the same, but for the end of the last beat.
    cut = LABELS.window(57 * F, 64 * F)
    assert_same(from_labels(cut, 60), whole.window(57, 60), atol=1e-4, rtol=0)


def test_what_comes_after_the_clip_is_unknown():
    found = from_labels(replace(LABELS, duration=10.25 * F), 12)
    for name in CONTROLS:
        assert found.known[name].tolist() == [True] * 10 + [False] * 2, name
        assert not found.values[name][:, 10:].any()


def test_no_labels_no_controls():
    assert_same(from_labels(Labels(), 7), unknown(7))
    assert not to_channels(unknown(7)).any()
    only_key = to_channels(from_labels(Labels(key="C"), 7))
    assert only_key.any(1).sum() == 7 + 1 + 1  # the scale, the tonic, the mask


def test_a_tensor_has_the_same_in_every_row_and_zero_where_unknown():
    controls = from_labels(LABELS, 6)
    tensor = to_tensor(controls, 8)
    assert tensor.shape == (73, 8, 6)
    assert all(torch.equal(tensor[:, row], to_channels(controls)) for row in range(8))
    assert tensor[13].eq(1).all()  # the melody's mask follows its 13 channels
    halved = Controls(
        controls.values, {k: v & (torch.arange(6) < 3) for k, v in controls.known.items()}
    )
    assert torch.equal(to_channels(halved)[:, :3], to_channels(controls)[:, :3])
    assert not to_channels(halved)[:, 3:].any()


def test_a_tempo_begins_with_a_bar():
    controls = unknown(40).with_tempo(90, meter=3)
    beats = tuple(i * 60 / 90 for i in range(40))
    labels = Labels(tempo=90.0, meter=3, beats=beats, downbeats=beats[::3])
    assert_same(controls, from_labels(labels, 40), atol=1e-5, rtol=0)
    assert controls.values["beats"][:, 0].tolist()[1] > 0.9


def test_chords_come_a_bar_each_and_again():
    chords = [parse_chord("Am"), parse_chord("G/B")]
    controls = unknown(120).with_chords(chords, bpm=120).with_key(parse_key("A minor"))
    assert controls.known["chords"].all() and controls.known["key"].all()
    assert not controls.known["beats"].any()
    bass = controls.values["chords"][12:].argmax(0)
    for frame in range(120):
        assert bass[frame] == (9, 11)[int((frame + 0.5) * F // 2) % 2]
    with pytest.raises(UserError, match="chord"):
        unknown(4).with_chords([], 120)


def test_hiding_is_by_the_seed_and_as_often_as_said():
    def draw(seed: int) -> torch.Tensor:
        return draw_hidden(64, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(5), draw(5))
    hidden = torch.stack([draw(seed) for seed in range(6000)])
    whole, some = hidden.all(2), hidden.any(2)
    everything = whole.all(1)
    assert everything.float().mean().item() == pytest.approx(0.05 + 0.15 / 64 + 0.8 / 7, abs=0.015)
    in_words = torch.tensor([name in ("key", "beats", "tempo") for name in CONTROLS])
    shares = (0.05 + 0.15 * torch.where(in_words, 0.25, 1.0) + 0.8 * 0.5).tolist()
    assert whole.float().mean(0).tolist() == pytest.approx(shares, abs=0.02)
    spans = (some & ~whole).float().mean(0).tolist()
    assert spans == pytest.approx([0.8 * 0.5 * 0.3 * 0.5] * 6, abs=0.015)
    # Nothing hidden is as likely as all but one control, or as one alone.
    nothing = (~some).all(1).float().mean().item()
    assert nothing == pytest.approx(0.8 / 7 * (0.7 + 0.3 * 0.5**6), abs=0.015)
    # Words alone: what they tell is whole, the rest hidden.
    words = whole[:, ~in_words].all(1) & ~some[:, in_words].any(1)
    by_chance = 0.8 / 140 * (0.7 + 0.3 / 8)  # the mean of u^3 (1 - u)^3 is 1/140
    assert words.float().mean().item() == pytest.approx(0.15 * 0.75**3 + by_chance, abs=0.01)
    # A span is one piece.
    edges = (hidden[:, :, 1:] != hidden[:, :, :-1]).sum(2)
    assert edges.max() == 2


def test_hidden_is_unknown():
    controls = from_labels(LABELS, 64)
    for seed in range(20):
        hidden = draw_hidden(64, torch.Generator().manual_seed(seed))
        shown = dict(zip(CONTROLS, ~hidden, strict=True))
        masked = Controls(
            {name: values * shown[name] for name, values in controls.values.items()},
            {name: known & shown[name] for name, known in controls.known.items()},
        )
        assert torch.equal(to_channels(masked), hide(to_channels(controls), hidden))


def test_a_model_of_other_controls_is_refused(tmp_path):
    write_controls(tmp_path)
    check_controls(tmp_path)
    (tmp_path / "controls.json").write_text('{"melody": 12}')
    with pytest.raises(UserError, match="melody"):
        check_controls(tmp_path)

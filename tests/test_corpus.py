import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiodiff import corpus
from audiodiff.audio_file import read_audio, write_audio
from audiodiff.compose import is_held_out
from audiodiff.corpus import Row, clip_at, labels_of, make, read_folder, write_corpus
from audiodiff.labels import Labels
from audiodiff.loudness import loudness, loudness_curve
from audiodiff.render import find_soundfont, loaded, render_part
from audiodiff.score import Score
from audiodiff.sounds import Sound
from audiodiff.theory import parse_chord, parse_key
from shared.errors import UserError

RATE = 44100
SECONDS = 3.0


def _soundfont() -> Path | None:
    try:
        return loaded(find_soundfont()).soundfont
    except UserError:
        return None


SOUNDFONT = _soundfont()
FONT = SOUNDFONT or Path("missing.sf2")
needs_soundfont = pytest.mark.skipif(
    SOUNDFONT is None, reason="fluidsynth and fluid-soundfont-gm not installed"
)


def hours(clips: int, seconds: float = SECONDS) -> float:
    return clips * seconds / 3600


# The series


def test_a_clip_depends_on_its_number_alone():
    for index in range(10):
        assert clip_at(3, index, SECONDS) == clip_at(3, index, SECONDS)
    assert clip_at(3, 0, SECONDS, sounds=0) != clip_at(4, 0, SECONDS, sounds=0)


def test_the_share_of_sounds():
    kinds = [isinstance(clip_at(0, index, SECONDS, 0.25), Sound) for index in range(60)]
    assert 6 <= sum(kinds) <= 24
    assert not any(isinstance(clip_at(0, i, SECONDS, 0.0), Sound) for i in range(9))
    assert all(isinstance(clip_at(0, i, SECONDS, 1.0), Sound) for i in range(9))


def test_one_or_two_instruments_are_left_of_the_share_asked_for():
    whole = [clip_at(7, index, SECONDS, 0.0) for index in range(24)]
    few = [clip_at(7, index, SECONDS, 0.0, 1.0) for index in range(24)]
    some = [clip_at(7, index, SECONDS, 0.0, 0.5) for index in range(24)]
    counts = []
    for before, after, either in zip(whole, few, some, strict=True):
        assert isinstance(before, Score) and isinstance(after, Score)
        assert {*after.parts} <= {*before.parts} and after.chords == before.chords
        assert either in (before, after)
        left = {part for part in before.parts if part.instrument in after.instruments}
        assert left == {*after.parts}  # all that an instrument plays
        if after != before:
            counts.append(len(after.instruments))
    assert len(counts) > 16 and {*counts} == {1, 2} and counts.count(1) > counts.count(2)
    assert whole != some != few


def test_held_out_combinations_are_never_made():
    for index in range(60):
        score = clip_at(5, index, SECONDS, sounds=0)
        assert isinstance(score, Score)
        assert not is_held_out(score.style, score.key)


# Folders


@needs_soundfont
def test_corpus_round_trip(tmp_path):
    out = tmp_path / "clips"
    seen = []
    settings: dict[str, Any] = {"soundfont": FONT, "seed": 1, "seconds": SECONDS, "sounds": 0.4}
    write_corpus(out, hours(3), progress=lambda *now: seen.append(now), **settings)
    first = {row.path: row.path.read_bytes() for row in read_folder(out)}
    assert seen[-1] == (3, 3)
    assert len(first) == 3
    write_corpus(out, hours(6), workers=2, **settings)  # adds
    rows = read_folder(out)
    assert len(rows) == 6
    assert all(path.read_bytes() == content for path, content in first.items())
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    kinds = set()
    for index, (row, line) in enumerate(zip(rows, lines, strict=True)):
        what = clip_at(1, index, SECONDS, 0.4)
        samples, rate = read_audio(row.path)
        assert rate == RATE
        assert np.array_equal(samples, make(what, FONT, SECONDS))
        assert line["text"] == row.texts[0] == line["texts"][0]
        assert len(row.texts) >= 1
        assert line["file_name"] == f"audio/000/{index:06d}.flac"
        assert row.labels.duration == samples.shape[1] / RATE
        assert row.labels.dynamics == pytest.approx(loudness_curve(samples), abs=0.006)
        if isinstance(what, Score):
            assert row.labels == labels_of(what, samples)
            assert samples.shape == (2, round(SECONDS * RATE))
            assert row.labels.kind == "music"
            assert parse_key(row.labels.key or "") == what.key
            assert tuple(parse_chord(name) for name in row.labels.chords) == what.chords
        else:
            assert row.texts == what.captions
            assert (row.labels.kind, row.labels.tempo, row.labels.instruments) == (
                "sound",
                None,
                (),
            )
        kinds.add(row.labels.kind)
    assert kinds == {"music", "sound"}
    metadata = (out / "metadata.jsonl").read_bytes()
    write_corpus(out, hours(2), **settings)  # never loses any; reads what is there
    assert (out / "metadata.jsonl").read_bytes() == metadata
    others: list[dict[str, Any]] = [{"seed": 2}, {"seconds": 5.0}, {"sounds": 0.1}]
    for other in others:
        with pytest.raises(UserError, match="choose another folder"):
            write_corpus(out, hours(2), **(settings | other))
    left = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert left == {".flac", ".jsonl", ".json"}


@needs_soundfont
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    settings: dict[str, Any] = {"soundfont": FONT, "seconds": 2.0, "sounds": 0.0}
    write_corpus(tmp_path / "whole", hours(3, 2.0), **settings)
    real, made = corpus.make, []

    def breaks(*args):
        made.append(args)
        if len(made) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(corpus, "make", breaks)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "broken", hours(3, 2.0), **settings)
    assert not (tmp_path / "broken" / "metadata.jsonl").exists()
    write_corpus(tmp_path / "broken", hours(3, 2.0), **settings)
    assert len(made) == 4  # one before the break, itself, and the two that lacked
    for name in ("metadata.jsonl", "audio/000/000000.flac", "audio/000/000002.flac"):
        whole, broken = (tmp_path / folder / name for folder in ("whole", "broken"))
        assert whole.read_bytes() == broken.read_bytes()


@needs_soundfont
def test_clips_are_of_one_loudness_and_never_clip():
    for index in range(5):
        clip = make(clip_at(2, index, SECONDS), FONT, SECONDS)
        assert np.abs(clip).max() <= 10 ** (-1 / 20) + 1e-4
        assert -19 < loudness(clip, RATE) < -15.9


@needs_soundfont
def test_the_melody_of_a_piece_is_heard_when_played_alone():
    """Chroma of the tune's own stem: its pitch class is the loudest in most of its notes."""
    right = wrong = total = 0
    for index in range(5):
        score = clip_at(9, index, SECONDS, sounds=0)
        assert isinstance(score, Score)
        tunes = [part for part in score.parts if part.role == "melody"]
        if len(tunes) != 1:
            continue
        stem = render_part(score, tunes[0], FONT, seconds=SECONDS).mean(axis=0)
        for start, end, pitch in labels_of(score, stem[None]).melody:
            piece = stem[round(start * RATE) : round(end * RATE)]
            if len(piece) < 0.15 * RATE:
                continue
            spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 1 << 17))
            hertz = np.fft.rfftfreq(1 << 17, 1 / RATE)
            energy = [
                sum(
                    spectrum[np.abs(hertz - n * 440 * 2 ** ((p - 69) / 12)) < 6].max()
                    for n in (1, 2, 3)
                )
                for p in range(pitch - 6, pitch + 7)
            ]
            right += np.argmax(energy) == 6
            wrong += np.argmax(energy) == 7
            total += 1
    assert total > 20
    assert right > 0.8 * total
    assert wrong < 0.1 * total


def test_other_folders_are_left_alone(tmp_path, monkeypatch):
    (tmp_path / "fake.sf2").write_bytes(b"RIFF\x04\0\0\0sfbk")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("mine")
    (tmp_path / "file").touch()
    for name in ("mine", "file"):
        with pytest.raises(UserError, match="something other than clips"):
            write_corpus(tmp_path / name, 1, tmp_path / "fake.sf2")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["diary.txt"]
    (tmp_path / "mine" / "corpus.json").write_text("{")
    with pytest.raises(UserError, match="choose another folder"):
        write_corpus(tmp_path / "mine", 1, tmp_path / "fake.sf2")
    with pytest.raises(UserError, match="there is no soundfont"):
        write_corpus(tmp_path / "new", 1, tmp_path / "missing.sf2")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"hours": 0}, "hours is 0; more than 0 and at most"),
        ({"hours": -1}, "hours is -1"),
        ({"hours": 1e9}, r"hours is 1e\+09"),
        ({"hours": float("nan")}, "hours is nan"),
        ({"seconds": 0.0}, "seconds is 0; at least 2"),
        ({"seconds": 1e6}, "seconds is"),
        ({"sounds": 1.5}, "sounds is 1.5"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_arguments_that_cannot_be(tmp_path, bad, complaint):
    with pytest.raises(UserError, match=complaint) as error:
        write_corpus(**({"out": tmp_path / "new", "hours": 1.0} | bad))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_a_folder_of_ones_own(tmp_path):
    write_audio(tmp_path / "a.wav", np.zeros((1, 100), np.float32), 22050)
    rows = [
        {"file_name": "a.wav", "text": "my song\u2028by me", "artist": "me"},
        {"file_name": "a.wav", "text": "mine", "texts": ["mine", "ours"], "tempo": 90},
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "metadata.jsonl").write_text("\r\n".join(lines) + "\n\n", encoding="utf-8")
    assert read_folder(str(tmp_path)) == [
        Row(tmp_path / "a.wav", ("my song\u2028by me",), Labels()),
        Row(tmp_path / "a.wav", ("mine", "ours"), Labels(tempo=90.0)),
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "has no metadata.jsonl"),
        ("", "is empty"),
        ("a.wav, a song", "line 1: not JSON"),
        ("[1]", "not a JSON object"),
        ('{"file_name": "a.wav"}', "text is missing"),
        ('{"text": "a song"}', "file_name is missing"),
        ('{"file_name": "a.wav", "text": "a song"}', "no audio file a.wav"),
        ('{"file_name": "b.wav", "text": "x", "texts": "y"}', "texts is not a list"),
        ('{"file_name": "b.wav", "text": "x", "tempo": "fast"}', "line 1: the column tempo"),
    ],
)
def test_read_folder_tells_what_is_wrong(tmp_path, content, complaint):
    (tmp_path / "b.wav").touch()
    if content is not None:
        (tmp_path / "metadata.jsonl").write_text(content)
    with pytest.raises(UserError, match=complaint):
        read_folder(tmp_path)

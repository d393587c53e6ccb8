"""A single part, and a part that is added to a clip that exists."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import Duotone, Result, refused
from tiny_music import play_levels

from audiodiff import MusicPipeline
from audiodiff.backing import laid_down, mixed, read_backing
from audiodiff.inputs.asked import Asked
from audiodiff.inputs.read import read_sketch
from audiodiff.instruments import INSTRUMENTS
from audiodiff.loudness import loudness
from audiodiff.stems import PARTS, alone
from shared.errors import UserError

RATE = 44100
CHORDS = ((57, 60, 64), (53, 57, 60), (55, 59, 62), (52, 55, 59))  # Am F G Em


def backing(seconds: float = 8.0, bpm: float = 120.0) -> np.ndarray:
    """A chord a bar, struck on every beat, with a bass note where a bar begins: (2 s)."""
    time = np.arange(round(seconds * RATE)) / RATE
    beat = (time * bpm / 60).astype(int)
    since = time % (60 / bpm)
    made = np.zeros(len(time))
    for bar in range(4):
        here = beat // 4 % 4 == bar
        for pitch in CHORDS[bar]:
            made += here * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time)
        bass = np.sin(2 * np.pi * 440 * 2 ** ((CHORDS[bar][0] - 24 - 69) / 12) * time)
        made += here * (beat % 4 == 0) * 3 * bass
    made *= np.exp(-4 * since) * np.minimum(1, since / 0.003) / 10
    return np.stack([made, made]).astype(np.float32)


@pytest.fixture
def music(duotone: Duotone, tiny_music_model: Path, monkeypatch: pytest.MonkeyPatch) -> Duotone:
    """Run ``duotone music ARGS`` with the tiny model in two steps and a vocoder of no time."""
    load = MusicPipeline.load

    def quick(model: str, device: str, dtype: str, student: bool = False) -> MusicPipeline:
        loaded = load(tiny_music_model, device, dtype)
        loaded.codec.vocoder = play_levels
        return loaded

    monkeypatch.setattr(MusicPipeline, "load", quick)

    def run(*args: object) -> Result:
        return duotone("music", *args, "--model", tiny_music_model, "--steps", 2, "--seed", 3)

    return run


def test_a_clip_lays_down_its_beats_chords_and_length(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, backing().T, RATE)
    found = read_backing(path)
    assert found.seconds == 8 and found.ground.tempo == pytest.approx(120, rel=0.02)
    outline = laid_down(read_sketch(Asked(), "a bass", found.seconds), found)
    assert outline.sketch and outline.sketch.rhythm and outline.sketch.chords
    assert outline.seconds == 8 and outline.bpm == pytest.approx(120, rel=0.02)
    downbeats = [time for time in outline.sketch.rhythm.downbeats if 0.1 < time < 7]
    assert downbeats == pytest.approx([2, 4, 6], abs=0.06)
    names = {name for start, end, name in outline.sketch.chords.spans if end - start > 1}
    assert names == {"Am", "F", "G", "Em"}
    given = read_sketch(Asked(chords="C"), "a bass", found.seconds, 120)
    kept = laid_down(given, found).sketch
    assert kept and kept.chords and {name for *_, name in kept.chords.spans} == {"C"}


def test_a_part_is_as_loud_as_the_clip_and_the_balance_more() -> None:
    clip, part = backing(4), 0.01 * backing(4)[::-1].copy()
    silent = np.zeros_like(clip)
    even = mixed(part, clip, RATE, 0.0)
    assert even.shape == clip.shape and np.abs(even).max() <= 10 ** (-1 / 20) + 1e-6
    assert loudness(even, RATE) == pytest.approx(loudness(clip, RATE), abs=0.2)
    # The same sound twice, one of them 20 dB softer, is the sound itself.
    soft = mixed(part, clip, RATE, -20.0)
    assert np.allclose(soft, clip, atol=0.01)
    assert np.isfinite(mixed(silent, clip, RATE, 0.0)).all()


def test_a_mix_and_its_part_are_written_told_and_made_again(
    music: Duotone, duotone: Duotone
) -> None:
    soundfile.write("a.wav", backing(2.0, 150).T, 48000)  # 1.8 s of it at that rate
    made = music("a bass line", "--with", "a.wav", "--save-part", "-o", "y.wav", "--json")
    assert made.code == 0, made.err
    record = json.loads(made.out[0])
    assert record["backing"] == "a.wav" and "'a.wav' has" in made.err
    assert "rhythm" in record["kept"] or "no beat" in made.err
    frames = soundfile.info("a.wav").frames
    for name in ("y.wav", "y-part.wav"):
        assert (soundfile.info(name).frames, soundfile.info(name).samplerate) == (frames, 48000)
    assert "backing" not in json.loads(duotone("info", "y-part.wav", "--json").out[0])
    for name in ("y", "y-part"):
        again = duotone("replay", f"{name}.wav")
        assert again.out == [f"{name}-replay.wav", "identical"], again.err
    refused_again = music("a bass line", "--with", "a.wav", "--save-part", "-o", "y.wav")
    assert refused_again.code == 2 and "y.wav" in refused_again.err
    Path("a.wav").unlink()
    assert "a.wav" in duotone("replay", "y.wav", "--overwrite").err


@pytest.mark.parametrize(
    "args, fragments",
    [
        (["--with", "none.wav"], ["none.wav"]),
        (["--with", "../silent.wav"], ["--with", "silent.wav", "play along"]),
        (["--with", "../text.wav"], ["text.wav"]),
        (["--with", "../x.wav", "--seconds", "3"], ["8.00 s", "--seconds"]),
        (["--with", "../x.wav", "--loop", "2"], ["--with", "--loop"]),
        (["--with", "../x.wav", "--bpm", "97"], ["--bpm 97 contradicts --with", "beats at 1"]),
        (["--with", "../x.wav", "--part-level", "99"], ["-24 to 24 dB"]),
        (["--with", "../x.wav", "--rhythm", "x...", "--meter", "x"], ["no meter"]),
        (["--with", "../x.wav", "--rhythm", "../slow.wav"], ["--rhythm beats at", "--with"]),
        (["--save-part"], ["--with FILE"]),
        (["--part-level", "3"], ["--with FILE"]),
        (["--only", "kazoo"], ["part 'kazoo'", "drums"]),
    ],
)
def test_what_cannot_be_is_refused(duotone: Duotone, args: list, fragments: list) -> None:
    soundfile.write("../x.wav", backing().T, RATE)
    soundfile.write("../slow.wav", backing(8.0, 95.0).T, RATE)
    soundfile.write("../silent.wav", np.zeros((RATE, 2)), RATE)
    Path("../text.wav").write_text("hello")
    refused(duotone("music", "a bass line", *args), *fragments)


def test_a_part_is_said_to_be_alone() -> None:
    prompt = "jazz with double bass"
    assert alone("bass", prompt, "") == (f"double bass alone, {prompt}", prompt)
    assert alone("drums", "techno", "hiss") == ("drums alone, techno", "hiss")
    assert alone("drums", " ", "") == (" ", "")  # which is refused as it always is
    with pytest.raises(UserError, match="kazoo"):
        alone("kazoo", "techno", "")
    assert {*INSTRUMENTS} < {*PARTS} and {name for own in PARTS.values() for name in own} == {
        *INSTRUMENTS
    }

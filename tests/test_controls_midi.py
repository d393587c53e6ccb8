"""The controls of a clip as a MIDI file."""

from dataclasses import replace
from pathlib import Path

import mido
import pytest
from command import Duotone, names

from audiodiff.controls_midi import controls_to_midi, has_controls, save_controls, voiced
from audiodiff.score import midi_to_notes
from audiodiff.settings import MusicSettings
from audiodiff.sketch import Chords, Melody, Rhythm, Sketch
from audiodiff.theory import parse_chord
from shared.errors import UserError

PLAIN = MusicSettings(
    prompt="a waltz in A minor, 90 bpm, chords Am F",
    negative_prompt="", seed=0, steps=1, guidance_scale=1.0, sampler="euler", schedule="karras",
    model="m", model_hash="h", device="cpu", dtype="float32", version="0", torch_version="0",
    seconds=5.0, bpm=None, key=None, sample_rate=44100, loudness=-16.0,
)  # fmt: skip


def tracks(file: mido.MidiFile) -> dict[str, list[tuple[float, int]]]:
    """Start in beats and pitch of the notes of each track."""
    found: dict[str, list[tuple[float, int]]] = {}
    for track in file.tracks[1:]:
        now = 0
        for message in track:
            now += message.time
            if message.type == "note_on":
                found.setdefault(track.name, []).append((now / file.ticks_per_beat, message.note))
    return found


def test_what_a_prompt_states_is_written(tmp_path: Path) -> None:
    save_controls(tmp_path / "x.mid", PLAIN)
    file = mido.MidiFile(tmp_path / "x.mid")
    head = {message.type: message for message in file.tracks[0]}
    assert mido.tempo2bpm(head["set_tempo"].tempo) == pytest.approx(90, abs=0.01)
    assert head["time_signature"].numerator == 3 and head["key_signature"].key == "Am"
    told = tracks(file)
    assert set(told) == {"chords", "beats"}
    assert told["beats"] == [(i, 34 if i % 3 == 0 else 33) for i in range(8)]  # 7.5 beats
    am, f = voiced(parse_chord("Am")), voiced(parse_chord("F"))
    bars = [(0, am), (3, f), (6, am)]
    assert sorted(told["chords"]) == sorted((at, note) for at, chord in bars for note in chord)
    with pytest.raises(UserError, match="exists"):
        save_controls(tmp_path / "x.mid", PLAIN)


def test_a_sketch_is_written(tmp_path: Path) -> None:
    sketch = Sketch(
        melody=Melody(notes=((0.5, 1.0, 64), (1.0, 2.0, 67))),
        chords=Chords(spans=((0.0, 2.0, "C/E"),)),
        rhythm=Rhythm(beats=(0.0, 0.5, 1.0), downbeats=(0.0,), strokes=(0.25,)),
    )
    settings = replace(PLAIN, prompt="techno", bpm=120.0, sketch=sketch)
    told = tracks(controls_to_midi(settings))
    assert told["tune"] == [(1, 64), (2, 67)]
    assert told["beats"] == [(0, 34), (1, 33), (2, 33)] and told["strokes"] == [(0.5, 37)]
    assert told["chords"] == [(0, 40), (0, 60), (0, 64), (0, 67)]
    controls_to_midi(settings).save(tmp_path / "y.mid")
    notes = midi_to_notes(tmp_path / "y.mid")
    assert len(notes) == 4 + 2 + 3 + 1


def test_nothing_stated_is_nothing_to_write() -> None:
    assert has_controls(PLAIN) and not has_controls(replace(PLAIN, prompt="techno"))


def test_chords_are_voiced_over_their_bass() -> None:
    assert voiced(parse_chord("C")) == [36, 60, 64, 67]
    assert voiced(parse_chord("Am/G")) == [43, 69, 72, 76]


def test_the_option(duotone: Duotone, tiny_music_model: Path) -> None:
    options = ["--model", tiny_music_model, "--steps", 1, "--seconds", 0.5, "--save-controls"]
    made = duotone("music", "techno", "--bpm", 120, *options, "-o", "x.wav")
    assert made.code == 0 and names() == ["x.mid", "x.wav"]
    again = duotone("music", "techno", "--bpm", 120, *options, "-o", "x.flac")
    assert again.code == 2 and "'x.mid' exists" in again.err
    none = duotone("music", "techno", *options, "-o", "y.wav")
    assert none.code == 2 and "no controls to save" in none.err and len(names()) == 2

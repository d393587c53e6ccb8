from dataclasses import replace

import mido
import pytest

from audiodiff.compose import compose
from audiodiff.score import (
    DRUM_CHANNEL,
    DRUM_ROLES,
    TICKS_PER_BEAT,
    Note,
    Part,
    Score,
    channels,
    midi_to_notes,
    score_to_midi,
    ticks,
)
from audiodiff.theory import MODES, Key, parse_chord
from shared.errors import UserError

MELODY = Part(
    "flute",
    73,
    "melody",
    (
        Note(0.0, 1.0, 72, 80),
        Note(3.5, 2.0, 74, 90),
        Note(5.95, 1.0, 76, 70),
        Note(7.98, 1.0, 77, 60),
    ),
    0.0,
    0.9,
    0.3,
)
DRUMS = Part("drums", 0, "drums", (Note(3.9, 0.3, 36, 100), Note(4.0, 0.3, 38, 90)), 0, 0.8, 0.1)
PAD = Part("strings", 48, "pad", (Note(0.0, 4.1, 60, 50),), 0.1, 0.6, 0.5)
C = parse_chord("C")
SCORE = Score(
    style="folk",
    mood="warm",
    tempo=120.0,
    meter=4,
    key=Key(0, "major"),
    chords=(C,) * 4 + (parse_chord("G"),) * 8,
    parts=(DRUMS, MELODY, PAD),
    sections=((0, "A"), (8, "B")),
    beats=12,
    seed="none",
)


def test_what_a_score_says_of_itself():
    assert SCORE.seconds == 6.0
    assert SCORE.instruments == ("drums", "flute", "strings")
    assert SCORE.melody == MELODY.notes
    assert replace(SCORE, parts=(DRUMS,)).melody == ()


def test_an_excerpt_cuts_at_both_ends():
    cut = SCORE.excerpt(4, 4)
    assert cut.beats == 4
    assert {chord.name for chord in cut.chords} == {"G"}
    assert cut.sections == ((0, "A"),)
    # The held note goes on, the note of the next bar that comes early does not come along.
    assert cut.melody == (Note(0.0, 1.5, 74, 90), Note(5.95 - 4, 1.0, 76, 70))
    # The stroke from before is gone; so is the pad, of which only a remnant was left.
    assert [part.notes for part in cut.parts if part.role == "drums"] == [(Note(0, 0.3, 38, 90),)]
    assert cut.instruments == ("drums", "flute")


def test_an_early_note_belongs_to_the_excerpt_of_its_beat():
    cut = SCORE.excerpt(8, 4)
    assert [(note.start, note.pitch) for note in cut.melody] == [(0.0, 77)]
    assert cut.melody[0].duration == pytest.approx(0.98)


def test_an_excerpt_of_everything_is_the_score():
    assert SCORE.excerpt(0, 12) == SCORE


@pytest.mark.parametrize("first, beats", [(-1, 4), (0, 13), (12, 1), (0, 0)])
def test_beats_that_are_not_there_are_refused(first, beats):
    with pytest.raises(UserError, match="no beats"):
        SCORE.excerpt(first, beats)


def test_a_midi_file_says_the_same_to_the_tick(tmp_path):
    for number, style in enumerate(("jazz swing", "cinematic strings", "waltz")):
        score = compose(f"midi {number}", style)
        path = tmp_path / "piece.mid"
        score_to_midi(score).save(path)
        expected = sorted(
            (ticks(note)[0], channel, note.pitch, ticks(note)[1] - ticks(note)[0], note.velocity)
            for channel, part in zip(channels(score.parts), score.parts, strict=True)
            for note in part.notes
        )
        read = midi_to_notes(path)
        got = [(n.start, n.channel, n.pitch, n.duration, n.velocity) for n in read]
        assert sorted(got) == expected
        programs = {note.channel: note.program for note in read}
        for channel, part in zip(channels(score.parts), score.parts, strict=True):
            assert programs[channel] == part.program or part.role == "percussion"


def test_a_midi_file_tells_tempo_and_meter():
    file = score_to_midi(SCORE)
    assert file.ticks_per_beat == TICKS_PER_BEAT
    head = {message.type: message for message in file.tracks[0]}
    assert mido.tempo2bpm(head["set_tempo"].tempo) == 120
    assert head["time_signature"].numerator == 4
    for track, part in zip(file.tracks[1:], SCORE.parts, strict=True):
        sent = {m.control: m.value for m in track if m.type == "control_change"}
        assert sent == {
            7: round(part.volume * 127),
            10: round((part.pan + 1) * 63.5),
            91: round(part.reverb * 127),
        }


def test_every_key_can_be_written():
    signatures = {
        (tonic, mode): score_to_midi(replace(SCORE, key=Key(tonic, mode))).tracks[0][3].key
        for tonic in range(12)
        for mode in MODES
    }
    assert signatures[9, "minor"] == "Am"
    assert signatures[2, "dorian"] == signatures[4, "phrygian"] == signatures[0, "major"] == "C"
    assert signatures[5, "lydian"] == signatures[7, "mixolydian"] == "C"


def test_only_drums_share_a_channel():
    given = channels((MELODY, DRUMS, PAD, replace(DRUMS, role="percussion"), *[MELODY] * 13))
    assert given[1] == given[3] == DRUM_CHANNEL
    melodic = [channel for channel in given if channel != DRUM_CHANNEL]
    assert len(set(melodic)) == len(melodic) == 15
    with pytest.raises(UserError, match="16 parts"):
        channels([MELODY] * 16)
    assert set(DRUM_ROLES) == {"drums", "percussion"}


def test_what_is_no_midi_file_is_refused(tmp_path):
    path = tmp_path / "no.mid"
    with pytest.raises(UserError, match=r"no\.mid"):
        midi_to_notes(path)
    path.write_bytes(b"RIFF, and more of it than a header has")
    with pytest.raises(UserError, match="not a MIDI file"):
        midi_to_notes(path)

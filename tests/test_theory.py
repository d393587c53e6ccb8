import pytest

from audiodiff.harmony import chords_of, numeral_chord, scale_over, voiced
from audiodiff.theory import (
    MODES,
    PITCH_CLASSES,
    QUALITIES,
    Chord,
    Key,
    parse_chord,
    parse_key,
)
from shared.errors import UserError

C_MAJOR = (0, 2, 4, 5, 7, 9, 11)


@pytest.mark.parametrize(
    "text, tonic, mode",
    [
        ("A minor", 9, "minor"),
        ("Am", 9, "minor"),
        ("F# major", 6, "major"),
        ("Bbm", 10, "minor"),
        ("bb", 10, "major"),
        ("b minor", 11, "minor"),
        ("C", 0, "major"),
        ("CM", 0, "major"),
        ("d dorian", 2, "dorian"),
        ("B flat Minor", 10, "minor"),
        ("e-flat major", 3, "major"),
        ("C♯ phrygian", 1, "phrygian"),
        (" G  harmonic  minor ", 7, "harmonic minor"),
        ("Cb", 11, "major"),
        ("E#m", 5, "minor"),
        ("A aeolian", 9, "minor"),
        ("D pentatonic", 2, "major pentatonic"),
    ],
)
def test_keys_are_read(text, tonic, mode):
    assert parse_key(text) == Key(tonic, mode)


@pytest.mark.parametrize("text", ["", "H minor", "A mjor", "minor", "A#b", "7", "Am7"])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(UserError, match="unknown key"):
        parse_key(text)


def test_every_key_and_chord_reads_its_own_name():
    for pitch_class in range(12):
        for mode in MODES:
            assert parse_key(Key(pitch_class, mode).name) == Key(pitch_class, mode)
        for quality in QUALITIES:
            for bass in range(12):
                chord = Chord(pitch_class, quality, bass)
                assert parse_chord(chord.name) == chord


def test_enharmonic_spellings_are_one():
    for sharp, flat in (("C#", "Db"), ("D#", "Eb"), ("F#", "Gb"), ("G#", "Ab"), ("A#", "Bb")):
        assert parse_key(f"{sharp} minor") == parse_key(f"{flat} minor")
        assert parse_chord(sharp + "7") == parse_chord(flat + "7")


def test_scales():
    assert parse_key("C").pitch_classes == C_MAJOR
    assert parse_key("A minor").pitch_classes == (9, 11, 0, 2, 4, 5, 7)
    assert [PITCH_CLASSES[p] for p in parse_key("E major").pitch_classes] == [
        *("E", "F#", "Ab", "A", "B", "C#", "Eb")
    ]
    # The church modes are one scale from another degree on.
    for degree, mode in ((2, "dorian"), (4, "phrygian"), (5, "lydian"), (7, "mixolydian")):
        assert set(Key(degree, mode).pitch_classes) == set(C_MAJOR)
    assert set(parse_key("A harmonic minor").pitch_classes) - set(C_MAJOR) == {8}


@pytest.mark.parametrize(
    "text, pitch_classes, bass",
    [
        ("C", (0, 4, 7), 0),
        ("Am7/G", (9, 0, 4, 7), 7),
        ("Dm7", (2, 5, 9, 0), 2),
        ("G7", (7, 11, 2, 5), 7),
        ("Cmaj7", (0, 4, 7, 11), 0),
        ("CM7", (0, 4, 7, 11), 0),
        ("F#m7b5", (6, 9, 0, 4), 6),
        ("Bb", (10, 2, 5), 10),
        ("Bdim", (11, 2, 5), 11),
        ("E+", (4, 8, 0), 4),
        ("D/F#", (2, 6, 9), 6),
        ("Asus4", (9, 2, 4), 9),
        ("Eb-7", (3, 6, 10, 1), 3),
    ],
)
def test_chords(text, pitch_classes, bass):
    chord = parse_chord(text)
    assert chord.pitch_classes == pitch_classes
    assert chord.bass == bass


@pytest.mark.parametrize("text", ["", "am", "H7", "Cfoo", "C/", "C/Em", "C/x", "C7/G7"])
def test_what_is_no_chord_is_refused(text):
    with pytest.raises(UserError, match="unknown chord"):
        parse_chord(text)


def names(progression: str, key: str, colour: str = "triad") -> list[str]:
    """The chords of a progression with one chord a bar of four."""
    bars = progression.count("|") + 1
    return [chord.name for chord in chords_of(progression, parse_key(key), colour, 4, bars)[::4]]


def test_progressions_of_known_songs():
    assert names("I|V|vi|IV", "C") == ["C", "G", "Am", "F"]  # Let It Be
    assert names("I|V|vi|iii|IV|I|IV|V", "D") == ["D", "A", "Bm", "F#m", "G", "D", "G", "A"]
    assert names("i|bVII|bVI|V7", "A minor") == ["Am", "G", "F", "E7"]  # Andalusian cadence
    assert names("ii|V7|I|I", "Bb", "seventh") == ["Cm7", "F7", "Bbmaj7", "Bbmaj7"]
    assert names("i|iv|iidim|V7", "C minor", "seventh") == ["Cm7", "Fm7", "Dm7b5", "G7"]
    assert names("I|bVII|IV|I", "D mixolydian") == ["D", "C", "G", "D"]
    assert names("I|V/3|vi|I/5", "C") == ["C", "G/B", "Am", "C/G"]
    assert names("i|bVI", "E minor", "power") == ["E5", "C5"]


def test_a_bar_is_shared_by_its_chords():
    chords = chords_of("I vi|ii V", parse_key("C"), "triad", 4, 3)
    assert [chord.name for chord in chords] == [
        *("C", "C", "Am", "Am", "Dm", "Dm", "G", "G", "C", "C", "Am", "Am")
    ]


def test_the_scale_bends_to_the_chord():
    key = parse_key("A minor")
    assert scale_over(parse_chord("Dm"), key) == C_MAJOR
    assert scale_over(parse_chord("E7"), key) == (0, 2, 4, 5, 8, 9, 11)
    assert scale_over(parse_chord("Fm"), parse_key("C")) == (0, 2, 4, 5, 7, 8, 11)
    assert scale_over(parse_chord("C7"), parse_key("C")) == (0, 2, 4, 5, 7, 9, 10)


def test_voices_move_little_and_stay_inside():
    for mode in ("major", "minor"):
        key = Key(4, mode)
        previous: tuple[int, ...] = ()
        for numeral in ("I", "vi", "IV", "V7", "iii", "II9", "I"):
            chord = numeral_chord(numeral, key)
            now = voiced(chord, previous, 52, 76, 4)
            assert list(now) == sorted(now)
            assert now[0] >= 52
            assert now[-1] <= 76
            assert {pitch % 12 for pitch in now} <= set(chord.pitch_classes)
            assert (chord.root + (3 if "m" in chord.quality else 4)) % 12 in {p % 12 for p in now}
            if previous:
                assert abs(now[-1] - previous[-1]) <= 5
            previous = now

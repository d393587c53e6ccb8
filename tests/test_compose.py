"""Every style for 20 seeds: what a band plays is music that its labels tell the truth about."""

import itertools
from collections import Counter

import pytest

from audiodiff import rhythms
from audiodiff.compose import clip, compose, is_held_out
from audiodiff.harmony import JAZZ, numeral_chord
from audiodiff.instruments import DRUM_KEYS
from audiodiff.moods import MOODS
from audiodiff.perform import curve, swung
from audiodiff.score import DRUM_CHANNEL, DRUM_ROLES, EARLY, ROLES, Score, channels
from audiodiff.styles import INSTRUMENTS, RANGES, STYLES
from audiodiff.theory import MODES, Key, parse_key
from shared.errors import UserError

SEEDS = range(20)


@pytest.fixture(scope="module")
def pieces() -> dict[str, list[Score]]:
    return {style: [compose(f"{style} {seed}", style) for seed in SEEDS] for style in STYLES}


@pytest.fixture(scope="module")
def every(pieces) -> list[Score]:
    return list(itertools.chain.from_iterable(pieces.values()))


# The tables


def test_styles_differ_and_name_what_there_is():
    assert len(STYLES) >= 14
    for style in STYLES.values():
        assert 60 <= style.tempo[0] < style.tempo[1] <= 170
        assert set(style.modes) <= set(MODES)
        assert set(style.players) <= set(ROLES)
        assert "melody" in style.players
        assert {"chords", "pad", "arpeggio"} & set(style.players)
        for family in itertools.chain.from_iterable(style.players.values()):
            assert family in INSTRUMENTS
        for family, programs in style.programs.items():
            assert set(programs) <= set(INSTRUMENTS[family]), family
        assert set(style.kits) <= set(INSTRUMENTS["drums"])
        steps = style.meter * 4
        for pattern in (*style.bass, *style.comping, *style.arpeggios, *style.tune.cells):
            assert len(pattern) % steps == 0 or style.bass is rhythms.HELD, pattern
    # No two share tempo, players and rhythm.
    looks = [
        (style.tempo, style.bass, style.tune.cells, style.grooves) for style in STYLES.values()
    ]
    assert len({str(look) for look in looks}) == len(STYLES)


def test_families_and_ranges_go_together():
    assert set(RANGES) == set(INSTRUMENTS)
    assert len(INSTRUMENTS) >= 24
    melodic = [p for name in INSTRUMENTS for p in INSTRUMENTS[name] if RANGES[name][0] != 27]
    assert len(set(melodic)) == len(melodic), "a program belongs to one family"
    assert all(low + 20 < high for low, high in RANGES.values())


def test_patterns_are_written_in_known_characters():
    for style in STYLES.values():
        for groove in (*style.grooves, *style.percussion, *style.fills):
            assert set(groove) <= set(DRUM_KEYS)
            for voice, pattern in groove.items():
                assert set(pattern) <= {*rhythms.STRENGTH, "."}, voice
        for groove in (*style.grooves, *style.percussion):
            assert {len(pattern) % (style.meter * 4) for pattern in groove.values()} == {0}
        assert all(len(pattern) == 8 for fill in style.fills for pattern in fill.values())
        assert set("".join(style.bass)) <= set("13578wa_.")
        assert set("".join(style.comping)) <= {*rhythms.STRENGTH, "_", "."}
        assert set("".join(style.arpeggios)) <= set("01234567_.")


def test_progressions_can_be_read_in_every_mode():
    for style in STYLES.values():
        for mode, progressions in style.progressions.items():
            for numeral in itertools.chain.from_iterable(p.split() for p in progressions):
                for part in numeral.split("|"):
                    for colour in ("triad", "seventh", "ninth", "power"):
                        assert numeral_chord(part, Key(0, mode), colour)
    assert set(JAZZ) <= set(MODES)


# Whole pieces


def test_equal_seeds_give_equal_pieces(pieces):
    assert compose("waltz 3", "waltz") == pieces["waltz"][3]
    assert compose("one") == compose("one")
    assert compose("one") != compose("two")
    assert clip("one", 6.0) == clip("one", 6.0)


def test_pieces_add_up(every):
    for score in every:
        assert score.beats == len(score.chords)
        assert score.beats >= 16 * score.meter
        assert score.beats % score.meter == 0
        assert score.seconds == pytest.approx(score.beats * 60 / score.tempo)
        assert score.meter == STYLES[score.style].meter
        assert STYLES[score.style].tempo[0] <= score.tempo <= STYLES[score.style].tempo[1]
        assert score.key.mode in STYLES[score.style].modes
        assert [beat for beat, _ in score.sections] == sorted({beat for beat, _ in score.sections})
        assert score.sections[0][0] == 0
        assert all(beat % score.meter == 0 for beat, _ in score.sections)
        assert any(score.mood in row for row in MOODS)


def test_every_note_lies_inside_its_instrument_and_the_piece(every):
    for score in every:
        for part in score.parts:
            low, high = RANGES[part.instrument]
            assert part.notes
            for note in part.notes:
                assert low <= note.pitch <= high, (score.style, part.instrument)
                assert 0 <= note.start < score.beats
                assert note.duration > 0
                assert 1 <= note.velocity <= 127


def test_no_note_is_struck_while_it_sounds(every):
    for score in every:
        for part in score.parts:
            until: dict[int, float] = {}
            for note in part.notes:
                assert note.start >= until.get(note.pitch, 0.0) - 1e-9
                until[note.pitch] = note.end


def test_parts_have_channels_of_their_own(every):
    for score in every:
        given = [
            channel
            for channel, part in zip(channels(score.parts), score.parts, strict=True)
            if part.role not in DRUM_ROLES
        ]
        assert len(set(given)) == len(given)
        assert DRUM_CHANNEL not in given


def test_melodies_sing_one_note_at_a_time_in_their_key(every):
    inside = total = 0
    for score in every:
        for note, following in itertools.pairwise(score.melody):
            assert note.end <= following.start + EARLY
        inside += sum(note.pitch % 12 in score.key.pitch_classes for note in score.melody)
        total += len(score.melody)
        assert all(60 <= note.pitch <= 88 for note in score.melody)
    assert inside / total > 0.97  # the rest are leading tones and borrowed chords' tones
    low = sum(note.pitch <= 84 for score in every for note in score.melody)
    assert low / total > 0.95


def test_melodies_rest_on_the_chord_on_downbeats(every):
    on = total = 0
    for score in every:
        for note in score.melody:
            beat = round(note.start)
            if beat % score.meter == 0 and abs(note.start - beat) < EARLY and beat < score.beats:
                total += 1
                on += note.pitch % 12 in score.chords[beat].pitch_classes
    assert on / total > 0.95


def test_melodies_move_mostly_by_step_and_repeat_their_rhythm(every):
    steps = [
        abs(note.pitch - following.pitch)
        for score in every
        for note, following in itertools.pairwise(score.melody)
    ]
    assert sum(step <= 4 for step in steps) / len(steps) > 0.7
    assert sum(step > 9 for step in steps) / len(steps) < 0.05
    # In most pieces some two bars of rhythm come at least three times.
    recurring = []
    for score in every:
        bars = Counter()
        for first in range(0, score.beats, 2 * score.meter):
            inside = [
                n.start - first for n in score.melody if 0 <= n.start - first < 2 * score.meter
            ]
            bars[tuple(sorted({round(start * 2) for start in inside}))] += 1
        bars.pop((), None)
        if bars:
            recurring.append(max(bars.values()) >= 3)
    assert sum(recurring) / len(recurring) > 0.65


def test_bass_plays_what_the_chord_has_in_the_bass(pieces):
    shares = {}
    for style, scores in pieces.items():
        on = total = 0
        for score in scores:
            for part in score.parts:
                for note in part.notes if part.role == "bass" else ():
                    beat = round(note.start)
                    if beat % score.meter == 0 and abs(note.start - beat) < EARLY:
                        total += 1
                        on += note.pitch % 12 == score.chords[beat % score.beats].bass
        shares[style] = on / total if total else None
    heard = {style: share for style, share in shares.items() if share is not None}
    assert len(heard) >= 14
    assert min(heard.values()) > 0.95, heard


def test_drums_are_there_where_the_style_wants_them(pieces):
    for style, scores in pieces.items():
        share = sum("drums" in score.instruments for score in scores) / len(scores)
        wanted = STYLES[style].presence.get("drums", 1.0) if STYLES[style].grooves else 0.0
        assert share == 0 if wanted == 0 else share > wanted - 0.3, style
    assert not STYLES["classical piano"].grooves
    for score in pieces["techno"]:  # four on the floor
        kicks = {
            round(note.start, 2)
            for part in score.parts
            if part.role == "drums"
            for note in part.notes
            if note.pitch == DRUM_KEYS["kick"]
        }
        begins = [(b, e) for (b, name), (e, _) in itertools.pairwise(score.sections) if name == "B"]
        for first, end in begins if kicks else []:
            filled = {beat for beat in range(first, end) if (beat - first) // 4 % 4 == 3}
            assert set(range(first, end)) - filled <= kicks


def test_sections_differ_in_loudness(every):
    def loudness(score: Score, name: str) -> float | None:
        edges = [*score.sections, (score.beats, "end")]
        spans = [(b, e) for (b, told), (e, _) in itertools.pairwise(edges) if told == name]
        heard = [
            note.velocity
            for part in score.parts
            for note in part.notes
            if any(first <= note.start < end for first, end in spans)
        ]
        return sum(heard) / len(heard) if heard else None

    louder = []
    for score in every:
        quiet, loud = loudness(score, "intro"), loudness(score, "B")
        if quiet is not None and loud is not None:
            louder.append(loud > quiet)
    assert len(louder) > 50
    assert sum(louder) / len(louder) > 0.85


def test_instruments_vary_from_piece_to_piece_and_within(pieces, every):
    for style, scores in pieces.items():
        bands = {frozenset(score.instruments) for score in scores}
        assert len(bands) >= (1 if style in ("classical piano", "chiptune") else 4), style
    assert {name for score in every for name in score.instruments} == set(INSTRUMENTS)
    leads = [{p.instrument for p in score.parts if p.role == "melody"} for score in every]
    assert sum(len(names) > 1 for names in leads) > len(every) / 10


def test_given_style_key_and_tempo_are_kept():
    key = parse_key("Eb minor")
    score = compose("given", "reggae", key, 71.5, bars=50)
    assert (score.style, score.key, score.tempo) == ("reggae", key, 71.5)
    assert score.beats >= 50 * 4
    # A mode that the style does not know by itself is played all the same.
    assert compose("given", "waltz", parse_key("F# minor pentatonic")).key.tonic == 6
    assert compose("given", key=parse_key("D major pentatonic")).key.mode == "major pentatonic"


@pytest.mark.parametrize("tempo", [0, -10, 20, 301, float("nan")])
def test_absurd_tempos_are_refused(tempo):
    with pytest.raises(UserError, match="tempo must be 30 to 300"):
        compose("s", tempo=tempo)


def test_unknown_styles_are_refused():
    with pytest.raises(UserError, match="did you mean 'techno'"):
        compose("s", "tecno")
    with pytest.raises(UserError, match="unknown style"):
        compose("s", "tecno", parse_key("C"))


# What is held out


def test_a_tenth_is_held_out_and_never_composed_by_lot(every):
    combinations = {
        (style, Key(tonic, mode))
        for style in STYLES
        for tonic in range(12)
        for mode in STYLES[style].modes
    }
    held = {pair for pair in combinations if is_held_out(*pair)}
    assert 0.07 < len(held) / len(combinations) < 0.13
    assert not held & {(score.style, score.key) for score in every}
    style, key = min(held, key=str)
    assert compose("asked", style, key).key == key
    for seed in SEEDS:
        assert not is_held_out(compose(f"free {seed}", key=key).style, key)
    # The draw would have met some of them: every piece draws one of some 700.
    assert len({(score.style, score.key) for score in every}) > 150


def test_held_out_combinations_are_fixed():
    def tonics(style: str, mode: str) -> list[int]:
        return [tonic for tonic in range(12) if is_held_out(style, Key(tonic, mode))]

    assert tonics("ambient", "major") == [0, 1, 2, 7, 8]
    assert tonics("waltz", "minor") == [0, 7]
    assert tonics("techno", "phrygian") == [3]


# Excerpts


def test_clips_start_at_a_downbeat_and_are_just_long_enough():
    for seed in range(5):
        score = clip(str(seed), 6.0)
        assert score.seconds >= 6.0
        assert score.seconds - 60 / score.tempo < 6.0
        assert score.beats == len(score.chords)
        piece = compose(str(seed))
        starts = [
            first
            for first in range(0, piece.beats - score.beats + 1, piece.meter)
            if piece.excerpt(first, score.beats).parts == score.parts
        ]
        assert starts, "an excerpt of its piece, from a downbeat on"


def test_most_stretches_of_a_piece_have_a_melody(every):
    sung = total = 0
    for score in every:
        for first in range(0, score.beats, 4 * score.meter):
            total += 1
            sung += sum(first <= note.start < first + 4 * score.meter for note in score.melody) > 2
    assert 0.75 < sung / total < 0.95


def test_long_clips_get_a_longer_piece():
    score = clip("long", 180.0, "drum and bass")
    assert score.seconds >= 180


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_clips_of_no_length_are_refused(seconds):
    with pytest.raises(UserError, match="seconds must be above 0"):
        clip("s", seconds)


# Playing


def test_swing_moves_what_lies_between_and_keeps_the_beats():
    assert [swung(beat, 2 / 3, 1.0) for beat in (0, 1, 2.0)] == [0, 1, 2]
    assert swung(1.5, 2 / 3, 1.0) == pytest.approx(1 + 2 / 3)
    assert swung(0.25, 0.6, 0.5) == pytest.approx(0.3)
    assert swung(0.5, 0.6, 0.5) == 0.5
    assert [swung(step / 4, 0.5, 1.0) for step in range(9)] == [step / 4 for step in range(9)]


def test_jazz_swings_and_rock_does_not(pieces):
    def second_eighth(style: str) -> float:
        within = sorted(
            note.start % 1
            for score in pieces[style]
            for note in score.melody
            if 0.35 < note.start % 1 < 0.85
        )
        return within[len(within) // 2]

    assert 0.6 < second_eighth("jazz swing") < 0.7
    assert second_eighth("rock") == pytest.approx(0.5, abs=0.02)


def test_a_curve_is_straight_between_its_points():
    level = curve([(0.0, 0.2), (4.0, 1.0), (8.0, 0.5)])
    assert [level(beat) for beat in (-1, 0, 2, 4, 6, 9)] == pytest.approx(
        [0.2, 0.2, 0.6, 1.0, 0.75, 0.5]
    )

import itertools
import random
import re
from dataclasses import replace

import pytest

from audiodiff.captions import (
    ALONE,
    INSTRUMENT_WORDS,
    MOOD_WORDS,
    STYLE_WORDS,
    captions,
    tempo_words,
)
from audiodiff.compose import clip
from audiodiff.moods import MOODS
from audiodiff.read_prompt import read_prompt
from audiodiff.score import Score
from audiodiff.styles import INSTRUMENTS, STYLES
from audiodiff.theory import parse_key

WORDS = {word: name for name in INSTRUMENTS for word in INSTRUMENT_WORDS.get(name, (name,))}


@pytest.fixture(scope="module")
def told() -> list[tuple[Score, list[str]]]:
    scores = [clip(f"caption {n}", 6.0, style) for style in STYLES for n in range(4)]
    return [
        (score, captions(score, random.Random(f"{score.seed} {n}")))
        for score in scores
        for n in range(6)
    ]


def test_a_single_instrument_is_said_to_be_alone() -> None:
    for number in range(24):
        whole = clip(f"alone {number}", 6.0, "funk")
        for name in whole.instruments:
            parts = tuple(part for part in whole.parts if part.instrument == name)
            told = captions(replace(whole, parts=parts), random.Random(number))
            words = INSTRUMENT_WORDS.get(name, (name,))
            ways = [way.format(word) for way in ALONE for word in words]
            assert all(any(way in caption for way in ways) for caption in told)
            keyless = name in ("drums", "percussion")
            stated = [read_prompt(caption) for caption in told]
            assert all(facts.tempo in (None, whole.tempo) for facts in stated)
            assert all(facts.key is None or not keyless for facts in stated)


def named(caption: str) -> set[str]:
    """The families that a caption names; the longest words are taken out first."""
    rest, found = caption, set()
    for styles, nouns in STYLE_WORDS.values():
        for words in itertools.product(styles, nouns):
            rest = rest.replace(" ".join(words), " ") if words[1] else rest
        for style in sorted(styles, key=len, reverse=True):
            rest = rest.replace(style, " ")
    for word in sorted(WORDS, key=len, reverse=True):
        if re.search(rf"\b{word}\b", rest):
            found.add(WORDS[word])
            rest = re.sub(rf"\b{word}\b", " ", rest)
    return found


def test_every_style_mood_and_instrument_has_words():
    assert set(STYLE_WORDS) == set(STYLES)
    assert set(MOOD_WORDS) == set(itertools.chain.from_iterable(MOODS))
    assert set(INSTRUMENT_WORDS) <= set(INSTRUMENTS)


def test_captions_are_deterministic_and_differ_in_length(told):
    score, texts = told[0]
    again = captions(score, random.Random(f"{score.seed} 0"))
    assert again == texts
    for score, texts in told:
        assert len(texts) in ((3, 4) if len(score.instruments) == 1 else (5, 6))
        assert len(set(texts)) == len(texts)
        assert len(texts[0]) > len(texts[-1])
        assert all(text == " ".join(text.split()) for text in texts)


def test_captions_name_only_what_sounds(told):
    seen = 0
    for score, texts in told:
        for text in texts:
            assert named(text) <= set(score.instruments), text
            seen += len(named(text))
    assert seen > 2 * len(told)


def test_two_captions_name_everyone(told):
    for score, texts in told:
        everyone = [named(text) == set(score.instruments) for text in texts]
        assert all(everyone[:2]) if len(score.instruments) > 1 else any(everyone)


def test_captions_name_style_and_a_true_mood_or_tempo(told):
    for score, texts in told:
        for text in texts:
            assert any(name in text for name in STYLE_WORDS[score.style][0]), text
            for mood, words in MOOD_WORDS.items():
                if mood != score.mood and not set(words) & set(MOOD_WORDS[score.mood]):
                    assert not any(re.match(rf"(an? )?{word} ", text) for word in words), text
            opening = re.match(r"(?:an? )?((?:very )?(?:slow|fast)|quick|mid-tempo)\b", text)
            if opening:
                assert opening[1] in tempo_words(score.tempo)


def test_captions_read_back_as_what_the_score_is(told):
    tempos = keys = count = 0
    for score, texts in told:
        for text in texts:
            stated = read_prompt(text)
            count += 1
            tempos += stated.tempo is not None
            keys += stated.key is not None
            assert stated.tempo in (None, round(score.tempo)), text
            assert stated.key in (None, score.key), text
            assert ("bpm" in text) == (stated.tempo is not None)
            assert (score.key.mode in text) == (stated.key is not None), text
            assert stated.chords is None
    assert 0.4 < tempos / count < 0.6
    assert 0.4 < keys / count < 0.6


def test_articles_are_right(told):
    for _, texts in told:
        for text in texts:
            assert not re.search(r"\ba [aeiou8]", text), text
            assert not re.search(r"\ban [^aeiou8]", text), text
            assert not re.search(r"\b(an?|the|with|and|of|in|at) ?(,|$)", text), text


def test_the_vocabulary_is_small(told):
    words = {word for _, texts in told for text in texts for word in re.findall(r"[^\s,]+", text)}
    assert len({word.lower() for word in words if not word.isdigit()}) < 250


def test_tempos_have_names():
    assert "slow" in tempo_words(60)
    assert "mid-tempo" in tempo_words(100)
    assert "fast" in tempo_words(130)
    assert "very fast" in tempo_words(168)


# Reading prompts


@pytest.mark.parametrize(
    "prompt, tempo",
    [
        ("a slow jazz piano trio in A minor, 80 bpm", 80),
        ("techno 120bpm", 120),
        ("something at 96 BPM", 96),
        ("92.5 bpm", 92.5),
        ("a 140-bpm loop", 140),
        ("waltz, 90 beats per minute", 90),
        ("tempo: 104", 104),
        ("a tempo of 76", 76),
        ("a slow song", None),
        ("1200 bpm", None),
        ("8 bpm", None),
        ("999 bpm", None),
        ("80s synthwave", None),
        ("808 drums", None),
        ("tempo 90% slower", None),
    ],
)
def test_tempos_are_read(prompt, tempo):
    assert read_prompt(prompt).tempo == tempo


@pytest.mark.parametrize(
    "prompt, key",
    [
        ("a slow jazz piano trio in A minor, 80 bpm", "A minor"),
        ("a song in F# minor", "F# minor"),
        ("key of D", "D major"),
        ("C major ballad", "C major"),
        ("in a minor", "A minor"),
        ("in a minor, 80 bpm", "A minor"),
        ("in a minor at 80 bpm", "A minor"),
        ("the key of b flat minor", "Bb minor"),
        ("in C-sharp minor", "C# minor"),
        ("in A flat", "Ab major"),
        ("e minor ballad", "E minor"),
        ("in Am", "A minor"),
        ("key: Bbm", "Bb minor"),
        ("rock in E, 140 bpm", "E major"),
        ("in A", "A major"),
        ("in A at 90 bpm", "A major"),
        ("a waltz, A minor", "A minor"),
        ("A minor", "A minor"),
        ("techno, G phrygian", "G phrygian"),
        ("in E harmonic minor", "E harmonic minor"),
        ("in A minor pentatonic", "A minor pentatonic"),
        ("in Gb major", "F# major"),
        ("a minor change of mood", None),
        ("a song in a minor key", None),
        ("in a major way", None),
        ("A minor change, then calm", None),
        ("A major hit", None),
        ("a major seventh", None),
        ("a choir in A cathedral", None),
        ("a day in August", None),
        ("recorded in Berlin", None),
        ("key of a nice song", None),
        ("calm piano", None),
    ],
)
def test_keys_are_read(prompt, key):
    assert read_prompt(prompt).key == (None if key is None else parse_key(key))


@pytest.mark.parametrize(
    "prompt, chords",
    [
        ("chords Am F C G", "Am F C G"),
        ("pop song, chords: Dm7 - G7 - Cmaj7", "Dm7 G7 Cmaj7"),
        ("chord progression Dm7|G7|Cmaj7|A7", "Dm7 G7 Cmaj7 A7"),
        ("chords C/E, Am7/G, F#m7b5", "C/E Am7/G F#m7b5"),
        ("Am-F-C-G chords on a piano", "Am F C G"),
        ("chords: E", "E"),
        ("chords D A at 90 bpm", "D A"),
        ("chords C F G, A slow song", "C F G"),
        ("chords Am F with strings", "Am F"),
        ("lush chords", None),
        ("Chords of a dark kind", None),
        ("piano chords", None),
        ("chords A bit louder", None),
        ("Am F C G", None),
    ],
)
def test_chords_are_read(prompt, chords):
    found = read_prompt(prompt).chords
    assert (None if found is None else " ".join(chord.name for chord in found)) == chords


def test_everything_is_read_at_once():
    stated = read_prompt("lo-fi, chords Am F C G in A minor at 80 bpm")
    assert stated.tempo == 80
    assert stated.key == parse_key("A minor")
    assert [chord.name for chord in stated.chords or ()] == ["Am", "F", "C", "G"]


def test_chords_are_not_taken_for_a_key():
    assert read_prompt("chords: Am F C G").key is None
    assert read_prompt("").tempo is None

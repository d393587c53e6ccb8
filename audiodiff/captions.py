"""What a person would say of a score."""

import random
from collections.abc import Iterator, Sequence

from audiodiff.score import Score
from audiodiff.theory import PITCH_CLASSES, Key

# Style -> how people call it, and what one piece of it is called. A name that says an instrument
# is only used where that instrument sounds.
STYLE_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ambient": (("ambient", "ambient", "atmospheric ambient"), ("piece", "soundscape", "track")),
    "techno": (("techno", "techno", "club techno"), ("track", "beat", "loop")),
    "house": (("house", "house", "deep house"), ("track", "groove", "beat")),
    "rock": (("rock", "rock", "guitar rock"), ("song", "track", "riff")),
    "jazz swing": (("jazz swing", "jazz", "swing", "swinging jazz"), ("tune", "piece", "number")),
    "lo-fi": (("lo-fi", "lofi hip hop", "lo-fi hip hop"), ("beat", "track", "loop")),
    "waltz": (("waltz",), ("", "", "tune")),
    "classical piano": (("classical piano", "solo piano"), ("piece", "music")),
    "funk": (("funk", "funk", "funky"), ("groove", "track", "jam")),
    "cinematic strings": (
        ("cinematic strings", "cinematic", "orchestral", "film score"),
        ("piece", "cue", "theme"),
    ),
    "bossa nova": (("bossa nova", "bossa nova", "bossa"), ("tune", "piece", "song")),
    "reggae": (("reggae", "reggae", "roots reggae"), ("song", "groove", "track")),
    "chiptune": (("chiptune", "chiptune", "8-bit", "video game"), ("track", "tune", "theme")),
    "drum and bass": (("drum and bass", "drum and bass", "dnb"), ("track", "beat")),
    "synthwave": (("synthwave", "synthwave", "retro synthwave"), ("track", "song")),
    "folk": (("folk", "folk", "acoustic folk"), ("song", "tune", "piece")),
}
# Names that stand alone: "slow jazz", "happy funk"; the others need their noun ("a cinematic cue").
ADJECTIVES = {"cinematic", "orchestral", "film score", "8-bit", "video game", "funky"}
# Names that are only true of a score in which one of these sounds.
SAYS_INSTRUMENT = {
    "cinematic strings": ("strings",),
    "classical piano": ("piano",),
    "solo piano": ("piano",),
    "guitar rock": ("distorted guitar", "electric guitar"),
    "acoustic folk": ("acoustic guitar",),
}
UNCOUNTABLE = {"music"}

INSTRUMENT_WORDS: dict[str, tuple[str, ...]] = {
    "saxophone": ("saxophone", "sax"),
    "double bass": ("double bass", "upright bass"),
    "electric bass": ("electric bass", "bass guitar"),
    "distorted guitar": ("distorted guitar", "overdriven guitar"),
    "vibraphone": ("vibraphone", "vibes"),
    "synth lead": ("synth lead", "lead synth"),
    "synth pad": ("synth pad", "pads"),
    "strings": ("strings", "string section"),
    "brass": ("brass", "brass section"),
}
MOOD_WORDS: dict[str, tuple[str, ...]] = {
    "melancholic": ("melancholic", "sad", "wistful"),
    "moody": ("moody", "dark", "brooding"),
    "intense": ("intense", "driving", "powerful"),
    "dreamy": ("dreamy", "floating"),
    "mellow": ("mellow", "laid-back", "relaxed"),
    "energetic": ("energetic", "lively"),
    "peaceful": ("peaceful", "calm", "gentle"),
    "warm": ("warm", "pleasant", "bright"),
    "happy": ("happy", "cheerful", "joyful"),
}
# Up to how many beats a minute: what people call it.
TEMPO_WORDS: tuple[tuple[float, tuple[str, ...]], ...] = (
    (72, ("very slow", "slow")),
    (92, ("slow", "unhurried")),
    (118, ("mid-tempo", "medium tempo")),
    (144, ("fast", "quick")),
    (float("inf"), ("very fast", "fast")),
)
ENSEMBLES = {2: "duo", 3: "trio", 4: "quartet"}
ENSEMBLE_STYLES = {"jazz swing", "bossa nova", "waltz", "folk"}
LED = ("led by {0}", "with {0} playing the melody", "with a melody on {0}")
ALONE = ("{0} alone", "{0} alone", "only {0}", "just {0}", "solo {0}", "unaccompanied {0}")
ENHARMONICS = {"C#": "Db", "Eb": "D#", "F#": "Gb", "Ab": "G#", "Bb": "A#"}


def tempo_words(bpm: float) -> tuple[str, ...]:
    """What people call a tempo: 66 -> ("very slow", "slow")."""
    return next(words for below, words in TEMPO_WORDS if bpm < below)


def captions(score: Score, rng: random.Random) -> list[str]:
    """Up to six captions, from the fullest to the shortest; those that come out alike count once.

    Everything that they say is true of the score; about half of them state tempo or key. Two name
    every player, in any order: who lists instruments wants these and no others. Of a single
    instrument they say that it is alone, unless the name of the style has said it.
    """
    if len(score.instruments) == 1 and score.style != "classical piano":
        return list(dict.fromkeys(_alone(score, rng)))
    told = [_full(score, rng), _medium(score, rng), _tags(score, rng), _short(score, rng)]
    if len(score.instruments) > 1:
        told[:0] = [_every(score, rng), _every_tag(score, rng)]
    return list(dict.fromkeys(told))


def _alone(score: Score, rng: random.Random) -> Iterator[str]:
    """ "driving techno, only drums, 128 bpm", "solo flute, folk in A minor", "just bass"."""
    word = _word(score.instruments[0], rng)
    said = [rng.choice(ALONE).format(word) for _ in range(4)]
    yield _end(f"{_phrase(score, rng)}, {said[0]}", score, rng, 0.6)
    yield _end(f"{said[1]}, {_phrase(score, rng)}", score, rng, 0.35)
    tags = [said[2], f"{round(score.tempo)} bpm"]
    if score.pitched and rng.random() < 0.6:
        tags.append(_key(score.key, rng))
    rng.shuffle(tags)
    yield ", ".join(tags)
    yield ", ".join(filter(None, [said[3], _adjective(score, rng)]))


def _full(score: Score, rng: random.Random) -> str:
    """ "a slow jazz trio of piano, double bass and drums in A minor, 80 bpm"."""
    names = _instruments(score)
    lead = _lead(score)
    ensemble = ENSEMBLES.get(len(names))
    style = _name(score, rng)
    text = " ".join(filter(None, [_adjective(score, rng), style]))
    if score.style in ENSEMBLE_STYLES and ensemble and rng.random() < 0.4:
        players = [_word(name, rng) for name in names]
        if lead and rng.random() < 0.5:
            return _end(with_article(f"{text} {lead} {ensemble}"), score, rng, 0.75)
        text = with_article(f"{text} {ensemble} {rng.choice(('of', 'with'))} {_list(players)}")
        return _end(text, score, rng, 0.75)
    noun = rng.choice(STYLE_WORDS[score.style][1])
    text = text if noun == "" else f"{text} {noun}"
    text = text if noun in UNCOUNTABLE else with_article(text)
    if names == ["piano"] and score.style == "classical piano":  # the name has said it
        return _end(text, score, rng, 0.75)
    shown = sorted(rng.sample(names, min(len(names), rng.choice((3, 4, 5)))), key=names.index)
    if lead and rng.random() < 0.45:
        others = [_word(name, rng) for name in shown if name != lead]
        text = f"{text} {rng.choice(LED).format(_word(lead, rng))}"
        text = f"{text}, {rng.choice(('with', 'over'))} {_list(others)}" if others else text
    else:
        text = f"{text} with {_list([_word(name, rng) for name in shown])}"
    return _end(text, score, rng, 0.75)


def _every(score: Score, rng: random.Random) -> str:
    """ "a slow jazz tune with drums, saxophone, piano and double bass in A minor"."""
    words = _everyone(score, rng)
    return _end(f"{_phrase(score, rng)} with {_list(words)}", score, rng, 0.5)


def _every_tag(score: Score, rng: random.Random) -> str:
    """ "saxophone, piano, slow jazz, 80 bpm, double bass, drums"."""
    tags = [_phrase(score, rng), *_everyone(score, rng)]
    if rng.random() < 0.5:
        tags.append(f"{round(score.tempo)} bpm")
    if score.pitched and rng.random() < 0.5:
        tags.append(_key(score.key, rng))
    rng.shuffle(tags)
    return ", ".join(tags)


def _everyone(score: Score, rng: random.Random) -> list[str]:
    names = _instruments(score)
    if rng.random() < 0.5:
        rng.shuffle(names)
    return [_word(name, rng) for name in names]


def _medium(score: Score, rng: random.Random) -> str:
    """ "mellow bossa nova with acoustic guitar and flute"."""
    names = _instruments(score)
    shown = [_lead(score)] if _lead(score) and rng.random() < 0.7 else []
    rest = [name for name in names if name not in shown]
    shown += rng.sample(rest, min(len(rest), rng.choice((1, 2, 2)) - (len(shown) > 1)))
    players = _list([_word(str(name), rng) for name in shown])
    text = _phrase(score, rng)
    if names != ["piano"]:
        text = f"{text} {rng.choice(('with', 'with', 'featuring'))} {players}"
    return _end(text, score, rng, 0.35)


def _tags(score: Score, rng: random.Random) -> str:
    """ "driving techno, 132 bpm, synth bass, drums"."""
    names = _instruments(score)
    tags = [_word(name, rng) for name in rng.sample(names, min(len(names), rng.choice((1, 2, 3))))]
    if rng.random() < 0.6:
        tags.append(f"{round(score.tempo)} bpm")
    if rng.random() < 0.6:
        tags.append(_key(score.key, rng))
    rng.shuffle(tags)
    return ", ".join([_phrase(score, rng), *tags])


def _short(score: Score, rng: random.Random) -> str:
    """ "slow jazz"."""
    return _end(_phrase(score, rng), score, rng, 0.15)


def _phrase(score: Score, rng: random.Random) -> str:
    """Adjective and style without an article, "slow jazz", or with, "a sad cinematic theme"."""
    name = _name(score, rng)
    noun = rng.choice([noun for noun in STYLE_WORDS[score.style][1] if noun] or [""])
    text = " ".join(filter(None, [_adjective(score, rng), name]))
    if name in ADJECTIVES or rng.random() < 0.3:
        text = f"{text} {noun}"
        return text if noun in UNCOUNTABLE or rng.random() < 0.5 else with_article(text)
    return text


def _name(score: Score, rng: random.Random) -> str:
    names = [
        name
        for name in STYLE_WORDS[score.style][0]
        if name not in SAYS_INSTRUMENT or set(SAYS_INSTRUMENT[name]) & set(score.instruments)
    ]
    return rng.choice(names)


def _adjective(score: Score, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(MOOD_WORDS[score.mood])
    return rng.choice(tempo_words(score.tempo)) if kind < 0.8 else ""


def _lead(score: Score) -> str | None:
    """Who has most of the melody's notes, if anyone has any."""
    parts = [part for part in score.parts if part.role == "melody" and part.notes]
    return max(parts, key=lambda part: len(part.notes)).instrument if parts else None


def _instruments(score: Score) -> list[str]:
    """What sounds, the melody's instrument first, the drums last."""
    lead = _lead(score)
    return sorted(
        score.instruments, key=lambda name: (name != lead, name in ("drums", "percussion"))
    )


def _word(instrument: str, rng: random.Random) -> str:
    words = INSTRUMENT_WORDS.get(instrument, (instrument,))
    return words[0] if len(words) == 1 or rng.random() < 0.7 else rng.choice(words[1:])


def _list(words: Sequence[str]) -> str:
    """ "piano, double bass and drums"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _key(key: Key, rng: random.Random) -> str:
    tonic = PITCH_CLASSES[key.tonic]
    if tonic in ENHARMONICS and rng.random() < 0.3:
        tonic = ENHARMONICS[tonic]
    return f"{tonic} {key.mode}"


def _end(text: str, score: Score, rng: random.Random, stated: float) -> str:
    """Say key and tempo at the end, each with a chance of ``stated``."""
    bpm = round(score.tempo)
    if rng.random() < stated and score.pitched:
        text += rng.choice((" in {0}", " in {0}", " in the key of {0}")).format(
            _key(score.key, rng)
        )
    if rng.random() < stated:
        text += rng.choice((" at {0} bpm", ", {0} bpm", ", {0} bpm")).format(bpm)
    return text


def with_article(words: str) -> str:
    """ "ambient piece" -> "an ambient piece", "8-bit tune" -> "an 8-bit tune"."""
    return f"{'an' if words[0] in 'aeiou8' else 'a'} {words}"

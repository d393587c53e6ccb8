"""Whole pieces by rule: a form of sections, a band that plays them, and excerpts of that.

Everything follows from a seed. A fixed tenth of all (style, key) combinations is held out: they
are only composed when asked for by name, so that an evaluation can ask for what no training had.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from audiodiff import arrange
from audiodiff.harmony import chords_of, numeral_chord, progressions_for
from audiodiff.instruments import INSTRUMENTS, RANGES
from audiodiff.melody import Motif, Stroke, draw_motif, write_melody
from audiodiff.moods import mood_of
from audiodiff.perform import Feel, curve, perform
from audiodiff.rhythms import Groove
from audiodiff.score import DRUM_ROLES, Part, Score
from audiodiff.style import Style
from audiodiff.styles import STYLES
from audiodiff.theory import PITCH_CLASSES, Chord, Key
from shared.errors import UserError
from shared.naming import choose

LEAST_BARS = 16
TEMPOS = (30.0, 300.0)
HARMONY = ("chords", "pad", "arpeggio")

# How likely a role plays in a section, where it is not certain.
LAYERS: dict[str, dict[str, float]] = {
    "intro": {"drums": 0.5, "percussion": 0.5, "bass": 0.5, "arpeggio": 0.85, "melody": 0.5},
    "A": {"pad": 0.8, "arpeggio": 0.75, "percussion": 0.8, "melody": 0.97},
    "B": {"melody": 0.97},
    "break": {"drums": 0.3, "percussion": 0.5, "bass": 0.4, "melody": 0.8},
    "outro": {"drums": 0.6, "percussion": 0.6, "arpeggio": 0.6, "melody": 0.7},
}
# From soft (0) to loud (1) at the beginning and the end of a section.
ENERGY: dict[str, tuple[float, float]] = {
    "intro": (0.1, 0.4),
    "A": (0.5, 0.65),
    "B": (0.8, 1.0),
    "break": (0.2, 0.55),
    "outro": (0.5, 0.1),
}
PRESENCE = 0.97  # how many pieces have a role that the style says nothing of
GROOVES = {"A": 0, "B": 1, "intro": 0, "outro": 0, "break": 2}

# role -> (channel volume, furthest pan, reverb as a share of the style's)
MIX: dict[str, tuple[float, float, float]] = {
    "drums": (0.85, 0.0, 0.3),
    "percussion": (0.7, 0.5, 0.5),
    "bass": (0.85, 0.1, 0.15),
    "chords": (0.72, 0.5, 1.0),
    "pad": (0.62, 0.4, 1.2),
    "arpeggio": (0.68, 0.6, 1.0),
    "melody": (0.92, 0.2, 1.0),
}


@dataclass(frozen=True)
class Section:
    """A stretch of bars: its name, where it begins, and the energy at both ends."""

    name: str
    first_bar: int
    bars: int
    energy: tuple[float, float]


def is_held_out(style: str, key: Key) -> bool:
    """Whether a (style, key) combination belongs to the evaluation: a fixed tenth of them do."""
    told = f"{style} in {PITCH_CLASSES[key.tonic]} {key.mode}"
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:4], "big") % 10 == 0


def compose(
    seed: str,
    style: str | None = None,
    key: Key | None = None,
    tempo: float | None = None,
    *,
    bars: int = LEAST_BARS,
) -> Score:
    """Write a piece; the same arguments give the same piece.

    Args:
        seed: all chance comes from here.
        style: a name out of `STYLES`; drawn if None.
        key: drawn among those that suit the style if None.
        tempo: beats a minute; drawn from the style's range if None.
        bars: the piece has at least as many.

    Raises:
        UserError: unknown style, or a tempo outside 30 to 300.
    """
    if tempo is not None and not TEMPOS[0] <= tempo <= TEMPOS[1]:
        raise UserError(f"tempo must be {TEMPOS[0]:g} to {TEMPOS[1]:g} beats a minute, not {tempo}")
    rng = random.Random(f"piece {seed}")
    style, key = _style_and_key(rng, style, key)
    manner = choose("style", style, STYLES)
    drawn = rng.randint(*manner.tempo)
    tempo = float(drawn if tempo is None else tempo)
    sections = _form(rng, manner, bars)
    chords = _chords(rng, manner, key, sections)
    feel = Feel(
        tempo, manner.meter, rng.uniform(*manner.swing), manner.swing_pair, manner.looseness
    )
    parts = _parts(rng, manner, key, sections, chords, feel)
    score = Score(
        style=style,
        mood="",
        tempo=tempo,
        meter=manner.meter,
        key=key,
        chords=tuple(chords),
        parts=parts,
        sections=tuple((part.first_bar * manner.meter, part.name) for part in sections),
        beats=len(chords),
        seed=seed,
    )
    return replace(score, mood=mood_of(score))


def clip(
    seed: str,
    seconds: float,
    style: str | None = None,
    key: Key | None = None,
    tempo: float | None = None,
) -> Score:
    """An excerpt of a piece, from a downbeat on, with as few beats as last ``seconds``.

    Its mood is that of the excerpt, not of the whole.

    Raises:
        UserError: as `compose`, and if ``seconds`` is not above 0.
    """
    if not seconds > 0:
        raise UserError(f"seconds must be above 0, not {seconds}")
    rng = random.Random(f"clip {seed}")
    piece = compose(seed, style, key, tempo)
    beats = math.ceil(seconds * piece.tempo / 60 - 1e-9)
    if beats > piece.beats:
        piece = compose(seed, style, key, tempo, bars=math.ceil(beats / piece.meter))
    starts = range(0, piece.beats - beats + 1, piece.meter)
    excerpt = piece.excerpt(rng.choice(starts), beats)
    for _ in range(20):
        if len(excerpt.parts) > 1 and _sounds_at_once(excerpt):
            break
        excerpt = piece.excerpt(rng.choice(starts), beats)
    return replace(excerpt, mood=mood_of(excerpt))


def _sounds_at_once(score: Score) -> bool:
    """Whether something is struck within the first bar."""
    return any(part.notes[0].start < score.meter for part in score.parts)


def _style_and_key(rng: random.Random, style: str | None, key: Key | None) -> tuple[str, Key]:
    """Fill in what is not given, never with a combination that is held out."""
    if style is not None and key is not None:
        return style, key
    fitting = [name for name in STYLES if key is None or key.mode in STYLES[name].modes] or list(
        STYLES
    )
    while True:
        name = rng.choice(fitting) if style is None else style
        mode = rng.choice(choose("style", name, STYLES).modes)
        drawn = Key(rng.randrange(12), mode) if key is None else key
        if not is_held_out(name, drawn):
            return name, drawn
        if style is None and key is not None:
            fitting = [other for other in fitting if other != name] or list(STYLES)


def _form(rng: random.Random, style: Style, bars: int) -> list[Section]:
    words = rng.choice(style.forms).split()
    middle = [word for word in words if word[0] in "ABb"]
    while sum(_bars(word) for word in words) < bars:
        end = len(words) - words[-1].startswith("outro")
        words = words[:end] + middle + words[end:]
    sections, first = [], 0
    for word in words:
        name, length = word.rstrip("0123456789"), _bars(word)
        start, end = ENERGY[name]
        kind = rng.random()
        if name in "AB" and kind < 0.2:  # a crescendo or a diminuendo through the whole section
            start, end = max(0.1, start - 0.35), 1.0
        elif name in "AB" and kind < 0.3:
            start, end = end, max(0.1, start - 0.3)
        shift = rng.uniform(-0.1, 0.1)
        energy = (min(1.0, max(0.0, start + shift)), min(1.0, max(0.0, end + shift)))
        sections.append(Section(name, first, length, energy))
        first += length
    return sections


def _bars(word: str) -> int:
    return int(word.lstrip("ABbreakintouh"))


def _chords(rng: random.Random, style: Style, key: Key, sections: Sequence[Section]) -> list[Chord]:
    """One chord a beat; A and B have progressions of their own, and an outro comes home."""
    table = progressions_for(style.progressions, key.mode)
    colour = rng.choice(style.colours)
    slow = rng.choice(style.bars_per_chord)
    of = {name: rng.choice(table) for name in ("A", "B")}
    of |= {"intro": of["A"], "outro": of["A"], "break": of["B"]}
    chords: list[Chord] = []
    for section in sections:
        bars = [bar for bar in of[section.name].split("|") for _ in range(slow)]
        chords += chords_of("|".join(bars), key, colour, style.meter, section.bars)
        if section.name == "outro":
            minor = (key.tonic + 3) % 12 in key.pitch_classes
            home = numeral_chord("i" if minor else "I", key, colour)
            chords[-style.meter :] = [home] * style.meter
    return chords


@dataclass(frozen=True)
class _Player:
    """Who plays a role: the family, its program, and the sections (by name) that are theirs."""

    role: str
    family: str
    program: int
    sections: frozenset[str]


def _cast(rng: random.Random, style: Style) -> list[_Player]:
    """A band for one piece; in B and the break, another player may take over."""
    everywhere = frozenset(ENERGY)
    cast = []
    for role, families in style.players.items():
        if rng.random() >= style.presence.get(role, PRESENCE):
            continue
        first, second = rng.choice(families), rng.choice(families)
        elsewhere = frozenset(("B", "break"))
        changing = role in ("melody", "chords", "pad") and second != first and rng.random() < 0.5
        lots = [(first, everywhere - elsewhere), (second, elsewhere)]
        for family, names in lots if changing else [(first, everywhere)]:
            programs = style.programs.get(family, INSTRUMENTS[family])
            if role == "drums":
                programs = style.kits
            cast.append(_Player(role, family, rng.choice(programs), names))
    if not any(player.role in HARMONY for player in cast):
        role = next(role for role in style.players if role in HARMONY)
        family = style.players[role][0]
        program = style.programs.get(family, INSTRUMENTS[family])[0]
        cast.append(_Player(role, family, program, everywhere))
    return cast


def _parts(
    rng: random.Random,
    style: Style,
    key: Key,
    sections: Sequence[Section],
    chords: Sequence[Chord],
    feel: Feel,
) -> tuple[Part, ...]:
    cast = _cast(rng, style)
    playing = _layers(rng, sections, {player.role for player in cast})
    low, high = style.loudness
    points = []
    for section in sections:
        first, last = section.first_bar, section.first_bar + section.bars
        for bar, energy in ((first, section.energy[0]), (last - 1e-3, section.energy[1])):
            points.append((bar * style.meter, low + (high - low) * energy))
    level = curve(points)
    writer = _Writer(rng, style, key)
    parts = []
    for player in cast:
        strokes: list[Stroke] = []
        for number, section in enumerate(sections):
            if player.role in playing[number] and section.name in player.sections:
                first = section.first_bar * style.meter
                here = chords[first : first + section.bars * style.meter]
                written = writer.write(player, section, here, feel.tempo)
                strokes += [stroke.later(first) for stroke in written]
        volume, pan, reverb = MIX[player.role]
        notes = perform(
            rng,
            strokes,
            feel,
            level,
            RANGES[player.family],
            monophonic=player.role in ("melody", "bass"),
            length=len(chords),
        )
        parts.append(
            Part(
                player.family,
                player.program,
                player.role,
                notes,
                round(rng.uniform(-pan, pan), 2),
                round(volume * rng.uniform(0.93, 1.05), 2),
                min(1.0, round(style.reverb * reverb, 2)),
            )
        )
    return tuple(part for part in parts if part.notes)


def _layers(
    rng: random.Random, sections: Sequence[Section], roles: set[str]
) -> list[frozenset[str]]:
    """The roles that play in each section; of the harmony, at least one always does."""
    decided: dict[str, frozenset[str]] = {}
    layers = []
    for section in sections:
        chances = LAYERS[section.name]
        if section.name not in decided or rng.random() < 0.3:
            drawn = {role for role in sorted(roles) if rng.random() < chances.get(role, 1.0)}
            if not drawn & set(HARMONY):
                drawn.add(next(role for role in HARMONY if role in roles))
            decided[section.name] = frozenset(drawn)
        layers.append(decided[section.name])
    return layers


class _Writer:
    """Writes any role's strokes in any section, and remembers what comes back: grooves, motifs."""

    def __init__(self, rng: random.Random, style: Style, key: Key) -> None:
        self.rng, self.style, self.key = rng, style, key
        self.motifs: dict[str, dict[str, Motif]] = {}
        for name in ("A", "B"):
            self.motifs[name] = {letter: draw_motif(rng, style.tune) for letter in "abc"}
        self.patterns = {
            role: rng.sample(patterns, len(patterns))
            for role, patterns in (
                ("bass", style.bass),
                ("chords", style.comping),
                ("arpeggio", style.arpeggios),
            )
        }
        self.grooves = rng.sample(style.grooves, len(style.grooves))
        self.percussion = rng.sample(style.percussion, len(style.percussion))

    def write(
        self, player: _Player, section: Section, chords: Sequence[Chord], tempo: float
    ) -> list[Stroke]:
        """The section's strokes, from its own beat 0."""
        rng, style, role = self.rng, self.style, player.role
        lowest = max(style.chords_low, RANGES[player.family][0])
        if role in DRUM_ROLES:
            return self._drums(section, role)
        if role == "melody":
            low, high = RANGES[player.family]
            tune = replace(
                style.tune, low=max(style.tune.low, low), high=min(style.tune.high, high)
            )
            motifs = self.motifs["B" if section.name in ("B", "break") else "A"]
            return write_melody(rng, motifs, tune, chords, self.key, style.meter)
        if role == "pad":
            held = ["x" + "_" * (style.meter * 4 - 1)]
            return arrange.comping_section(rng, held, chords, max(50, lowest), voices=4)
        patterns = self.patterns[role]
        if section.name == "B" and len(patterns) > 1:  # another pattern for another section
            patterns = [*patterns[1:], patterns[0]]
        if role == "bass":
            low = max(style.bass_low, RANGES[player.family][0])
            return arrange.bass_section(rng, patterns, chords, self.key, low)
        if role == "arpeggio":
            above = 12 if "chords" in style.players and lowest < 60 else 0
            return arrange.arpeggio_section(rng, patterns, chords, lowest + above)
        strum = style.strum / 60000 * tempo if "guitar" in player.family else 0.0
        return arrange.comping_section(rng, patterns, chords, lowest, strum=strum)

    def _drums(self, section: Section, role: str) -> list[Stroke]:
        grooves: list[Groove] = self.grooves if role == "drums" else self.percussion
        groove = grooves[GROOVES[section.name] % len(grooves)]
        if role == "drums" and section.name in ("intro", "break", "outro"):
            groove = arrange.thinned(self.rng, groove)
        return arrange.drum_section(
            self.rng,
            groove,
            self.style.fills if role == "drums" and section.name != "outro" else (),
            section.bars,
            self.style.meter,
            crash=role == "drums" and self.style.crash and section.name in ("A", "B"),
        )

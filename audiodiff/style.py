"""The things that a style of music lays down, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from audiodiff import harmony as h
from audiodiff import rhythms as r
from audiodiff.melody import Tune

SONG = (
    "intro4 A8 A8 B8 break4 A8 outro4",
    "A8 B8 A8 break4 B8 outro4",
    "intro2 A8 B8 A8 B8 outro2",
)
TRACK = ("intro8 A8 break4 B8 A8 outro4", "intro4 A8 B8 break8 B8 outro4", "A8 B8 break4 A8 B8")
PIECE = ("A8 A8 B8 A8", "A8 B8 A8 outro4", "intro2 A8 B8 break4 A8 outro2")


@dataclass(frozen=True)
class Style:
    """One style.

    Attributes:
        tempo: lowest and highest, beats a minute.
        modes: to draw from; named twice is twice as likely.
        progressions: in roman numerals, by mode.
        players: role -> the families that may play it; pieces draw one (and may change it).
        forms: sections with their bars.
        tune: the manner of the melody.
        grooves: drum patterns; none: no drums.
        fills: of two beats, at the ends of sections.
        percussion: patterns of the percussion part.
        bass, comping, arpeggios: patterns of those roles.
        kits: General MIDI drum kits.
        programs: narrower choices than the family's, "electric guitar" -> (26,).
        colours: what is put on plain triads (`audiodiff.harmony.numeral_chord`).
        meter: beats a bar.
        swing: where in its pair the second note falls, from and to: 0.5 straight, 0.667 triplets.
        swing_pair: the pair's length in beats: 1 swings eighths, 0.5 sixteenths.
        looseness: how far the players stray from the grid, ms.
        bars_per_chord: how many bars a bar of the progression lasts.
        bass_low: lowest bass note.
        chords_low: lowest note of chords and arpeggios.
        presence: role -> how many of the pieces have it, where not nearly all.
        loudness: of the softest and the loudest section, as shares of MIDI's full velocity.
        strum: ms between the notes of a chord.
        reverb: of everything but bass and drums, 0 to 1.
        crash: whether sections begin with a cymbal.
    """

    tempo: tuple[int, int]
    modes: tuple[str, ...]
    progressions: h.Progressions
    players: Mapping[str, tuple[str, ...]]
    forms: tuple[str, ...]
    tune: Tune
    grooves: tuple[r.Groove, ...] = ()
    fills: tuple[r.Groove, ...] = ()
    percussion: tuple[r.Groove, ...] = ()
    bass: tuple[str, ...] = r.HELD
    comping: tuple[str, ...] = r.SUSTAINED
    arpeggios: tuple[str, ...] = r.UP_DOWN
    kits: tuple[int, ...] = (0,)
    programs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    colours: tuple[str, ...] = ("triad",)
    meter: int = 4
    swing: tuple[float, float] = (0.5, 0.5)
    swing_pair: float = 1.0
    looseness: float = 5.0
    bars_per_chord: tuple[int, ...] = (1,)
    bass_low: int = 29
    chords_low: int = 52
    presence: Mapping[str, float] = field(default_factory=dict)
    loudness: tuple[float, float] = (0.5, 0.85)
    strum: float = 0.0
    reverb: float = 0.3
    crash: bool = False

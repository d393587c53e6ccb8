"""The mood of a score: what its mode, tempo, density and loudness add up to."""

from audiodiff.score import Score

# How bright a mode sounds, from -1 to 1.
BRIGHTNESS = {
    "lydian": 1.0,
    "major": 0.8,
    "major pentatonic": 0.8,
    "mixolydian": 0.4,
    "dorian": -0.1,
    "minor pentatonic": -0.3,
    "minor": -0.5,
    "harmonic minor": -0.7,
    "phrygian": -0.9,
}
# By brightness (dark, between, bright) and energy (low, middling, high).
MOODS = (
    ("melancholic", "moody", "intense"),
    ("dreamy", "mellow", "energetic"),
    ("peaceful", "warm", "happy"),
)
BRIGHT = (-0.3, 0.6)  # below, and from where on
ENERGETIC = (0.39, 0.55)


def energy_of(score: Score) -> float:
    """0 (slow, sparse, soft) to 1 (fast, dense, loud)."""
    notes = [note for part in score.parts for note in part.notes]
    if not notes:
        return 0.0
    tempo = (score.tempo - 60) / 110
    # What is struck together counts once.
    struck = len({round(note.start * 8) for note in notes}) / score.seconds
    loud = sum(note.velocity for note in notes) / len(notes)
    terms = (tempo, struck / 13, (loud - 40) / 75)
    return sum(min(1.0, max(0.0, term)) for term in terms) / len(terms)


def mood_of(score: Score) -> str:
    """One word out of `MOODS`."""
    bright = BRIGHTNESS[score.key.mode]
    row = sum(bright >= edge for edge in BRIGHT)
    column = sum(energy_of(score) >= edge for edge in ENERGETIC)
    return MOODS[row][column]

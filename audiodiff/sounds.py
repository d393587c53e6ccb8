"""Single sounds and textures with captions: hits, pads, bells, effects, sweeps and weather.

Most are a note or two on a soundfont's instruments; the rest is noise and sines shaped here.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiodiff.render import render
from audiodiff.score import Note, Part, Score
from audiodiff.theory import PITCH_CLASSES, Key

# Draws the samples, (2, s) in about [-1, 1], from a generator, a length in seconds and a rate.
Synthesis = Callable[[np.random.Generator, float, int], np.ndarray]


@dataclass(frozen=True)
class Sound:
    """A single sound or texture.

    Attributes:
        captions: what it is in words, the plainest first.
        seconds: its length.
        source: what makes it: a score, or a function that computes it.
        seed: of that function's randomness.
    """

    captions: tuple[str, ...]
    seconds: float
    source: Score | Synthesis
    seed: str

    def samples(self, soundfont: Path, sample_rate: int = 44100) -> np.ndarray:
        """The sound itself, (2, round(seconds * sample_rate)) float32; equal seeds, equal bytes.

        Raises:
            UserError: see `audiodiff.render.render`.
        """
        if isinstance(self.source, Score):
            return render(self.source, soundfont, sample_rate, self.seconds)
        number = int.from_bytes(hashlib.sha256(self.seed.encode()).digest()[:8], "little")
        made = self.source(np.random.default_rng(number), self.seconds, sample_rate)
        return (_faded(made, sample_rate) * 0.5).astype(np.float32)


def sound(seed: str) -> Sound:
    """The sound number ``seed`` of an endless series; equal seeds give equal sounds."""
    rng = random.Random(seed)
    kinds, weights = zip(*_KINDS, strict=True)
    return rng.choices(kinds, weights)[0](rng, seed)


# From the soundfont

DRUMS: dict[str, tuple[int, ...]] = {  # General MIDI keys of the drum channel
    "kick drum": (35, 36),
    "snare hit": (38, 40),
    "rimshot": (37,),
    "hand clap": (39,),
    "closed hi-hat": (42,),
    "open hi-hat": (46,),
    "crash cymbal": (49, 57),
    "ride cymbal": (51, 59),
    "low tom": (41, 43, 45),
    "high tom": (48, 50),
    "tambourine hit": (54,),
    "cowbell hit": (56,),
    "bongo hit": (60, 61),
    "conga hit": (63, 64),
    "shaker hit": (70, 82),
    "clave hit": (75,),
    "wood block hit": (76, 77),
    "triangle hit": (81,),
}
PADS: dict[str, tuple[str, ...]] = {  # words for the synth sounds of programs 88 to 103
    "new age": ("a bright new age pad", "a shimmering synth pad"),
    "warm": ("a warm synth pad", "a soft warm pad"),
    "poly": ("a poly synth pad", "a vintage synth chord"),
    "choir": ("a choir pad", "a synth voice pad"),
    "bowed": ("a bowed glass pad", "a glassy pad"),
    "metallic": ("a metallic pad", "a cold metallic synth pad"),
    "halo": ("a halo pad", "an airy synth pad"),
    "sweep": ("a sweeping pad", "a filter sweep pad"),
    "ice rain": ("an ice rain synth", "a sparkling synth texture"),
    "soundtrack": ("a soundtrack pad", "a cinematic synth pad"),
    "crystal": ("a crystal synth", "a synth like crystal"),
    "atmosphere": ("an atmosphere pad", "a dreamy synth pad"),
    "brightness": ("a bright synth", "a bright synth pad"),
    "goblins": ("a dark goblin synth", "a scary synth texture"),
    "echoes": ("an echoing synth", "a synth pad with echoes"),
    "sci-fi": ("a sci-fi synth", "a spacey science fiction synth"),
}
# Program, pitches, seconds, captions.
EFFECTS: tuple[tuple[int, tuple[int, ...], float, tuple[str, ...]], ...] = (
    (122, (55, 60, 64), 8.0, ("ocean waves", "waves on a beach", "the sea washing ashore")),
    (123, (57, 60, 64), 4.0, ("a bird chirping", "birdsong", "bird calls")),
    (124, (60,), 3.0, ("a telephone ringing", "an old telephone")),
    (125, (55, 60, 64), 6.0, ("a helicopter", "a helicopter flying", "helicopter blades")),
    (126, (58, 60, 63), 6.0, ("applause", "a crowd clapping", "an audience applauding")),
    (127, (55, 60, 62), 3.0, ("a gunshot", "a single gunshot")),
    (121, (60, 64), 2.0, ("a breath noise", "breathing out")),
    (120, (60, 64), 2.0, ("guitar fret noise", "fingers squeaking on guitar strings")),
    (119, (55, 60, 62), 4.0, ("a reverse cymbal", "a cymbal played backwards")),
    (116, (36, 43, 48), 3.0, ("a taiko drum", "a deep taiko hit", "a big cinematic drum hit")),
    (118, (45, 52, 60), 2.0, ("a synth drum", "an electronic tom")),
    (14, (55, 60, 67), 6.0, ("a bell", "a church bell", "a tubular bell")),
    (112, (67, 72, 79), 4.0, ("a tinkling bell", "a small bell")),
    (10, (72, 76, 79), 3.0, ("a music box note", "a single note of a music box")),
    (47, (40, 43, 48), 4.0, ("a timpani hit", "a single timpani stroke")),
    (55, (48, 55, 60), 3.0, ("an orchestra hit", "a stab of the whole orchestra")),
    (114, (60, 64), 3.0, ("a steel drum note", "a steel drum")),
    (46, (60, 67), 4.0, ("a harp note", "a plucked harp string")),
)


def _drum(rng: random.Random, seed: str) -> Sound:
    name = rng.choice(list(DRUMS))
    kit = rng.choice((0, 0, 8, 16, 24, 25, 32))
    hits = rng.choice((1, 1, 1, 2, 4))
    gap = rng.uniform(0.25, 0.6)
    key, velocity = rng.choice(DRUMS[name]), rng.randrange(70, 127)
    notes = tuple(Note(i * gap, 0.2, key, max(1, velocity - 8 * (i % 2))) for i in range(hits))
    if kit in (24, 25):
        name = f"electronic {name}"
    one = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    number, times = {1: ("", ""), 2: ("two", "twice"), 4: ("four", "four times")}[hits]
    captions = (f"{number} {name}s", f"{one}, {times}") if number else (one, f"a single {name}")
    part = Part("drums", kit, "drums", notes, 0.0, 0.9, rng.uniform(0, 0.5))
    return Sound(captions, round((hits - 1) * gap + 1.6, 2), _score(part, seed), seed)


def _pad(rng: random.Random, seed: str) -> Sound:
    index = rng.randrange(len(PADS))
    words = list(PADS.values())[index]
    tonic = rng.randrange(12)
    mode, third = rng.choice((("major", 4), ("minor", 3)))
    root = 48 + tonic + rng.choice((0, 12)) - (12 if tonic > 7 else 0)
    seconds = rng.uniform(5.0, 10.0)
    held = seconds - 1.5
    velocity = rng.randrange(60, 110)
    notes = tuple(Note(0.0, held, root + step, velocity) for step in (0, third, 7))
    name = Key(tonic, mode).name
    captions = (
        f"{words[0]} in {PITCH_CLASSES[tonic]}{'' if mode == 'major' else ' minor'}",
        f"{words[1]} holding a {name} chord",
        rng.choice(words),
    )
    part = Part("synth pad", 88 + index, "pad", notes, 0.0, 0.8, rng.uniform(0.2, 0.7))
    return Sound(captions, round(seconds, 2), _score(part, seed), seed)


def _effect(rng: random.Random, seed: str) -> Sound:
    program, pitches, seconds, captions = rng.choice(EFFECTS)
    note = Note(0.0, seconds * 0.8, rng.choice(pitches), rng.randrange(80, 127))
    reverb, pan = rng.uniform(0.1, 0.5), rng.uniform(-0.3, 0.3)
    part = Part("effect", program, "effect", (note,), pan, 0.9, reverb)
    return Sound(captions, seconds, _score(part, seed), seed)


def _score(part: Part, seed: str) -> Score:
    """A score at 60 beats a minute, so that its beats are seconds; nobody reads the rest of it."""
    key = Key(0, "major")
    return Score("sound", "", 60.0, 4, key, (), (part,), (), 1, seed)


# Computed


def _noise(rng: np.random.Generator, samples: int, spectrum: Callable) -> np.ndarray:
    """Stereo noise (2, samples) of unit power, its amplitude over frequency in cycles a sample."""
    white = np.fft.rfft(rng.standard_normal((2, samples)), axis=1)
    shaped = np.fft.irfft(white * spectrum(np.fft.rfftfreq(samples)), samples, axis=1)
    return shaped / max(float(np.sqrt(np.mean(shaped**2))), 1e-9)


def _swept_noise(
    rng: np.random.Generator, seconds: float, rate: int, start: float, end: float
) -> np.ndarray:
    """Noise in a band an octave wide whose middle glides from ``start`` to ``end`` Hz."""
    from scipy.signal import istft, stft

    samples = round(seconds * rate)
    white = rng.standard_normal((2, samples))
    frequencies, times, spectrum = stft(white, rate, nperseg=2048)
    middle = start * (end / start) ** (times / seconds)
    octaves = np.log2(np.maximum(frequencies, 1.0))[:, None] - np.log2(middle)[None]
    _, made = istft(spectrum * np.exp(-0.5 * (octaves / 0.5) ** 2), rate, nperseg=2048)
    made = np.asarray(made)[:, :samples]
    return made / np.abs(made).max()


def _glide(seconds: float, rate: int, start: float, end: float) -> np.ndarray:
    """Phase, in radians, of a tone that glides from ``start`` to ``end`` Hz by equal intervals."""
    time = np.arange(round(seconds * rate)) / rate
    return 2 * np.pi * np.cumsum(start * (end / start) ** (time / seconds)) / rate


def _swell(rng: np.random.Generator, seconds: float, rate: int, a_second: float) -> np.ndarray:
    """A slow random curve from 0 to 1 with about ``a_second`` bends a second."""
    points = rng.uniform(0, 1, max(2, round(seconds * a_second) + 2))
    time = np.linspace(0, len(points) - 1, round(seconds * rate))
    step = np.minimum(time.astype(int), len(points) - 2)
    ease = 0.5 - 0.5 * np.cos(np.pi * (time - step))
    return points[step] * (1 - ease) + points[step + 1] * ease


def _rising_noise(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    ramp = np.linspace(0.15, 1, round(seconds * rate)) ** 1.5
    return _swept_noise(rng, seconds, rate, 150, 10000) * ramp


def _falling_noise(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    ramp = np.linspace(1, 0.1, round(seconds * rate)) ** 1.5
    return _swept_noise(rng, seconds, rate, 10000, 120) * ramp


def _riser(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    start = rng.uniform(80, 160)
    phases = _glide(seconds, rate, start, start * 8)
    voices = [np.stack([np.sin(phases * d), np.sin(phases / d)]) for d in (1.0, 1.004, 1.011)]
    return sum(voices) / 3 * np.linspace(0.2, 1, round(seconds * rate))


def _dive(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    phases = _glide(seconds, rate, rng.uniform(1500, 3000), rng.uniform(50, 90))
    wave = np.sin(phases + 0.8 * np.sin(phases))
    return np.stack([wave, wave]) * np.linspace(1, 0.1, len(wave))


def _wind(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    low = _noise(rng, round(seconds * rate), lambda f: 1 / (1 + (f * rate / 250) ** 2))
    middle = rng.uniform(500, 900)
    howl = _noise(
        rng,
        round(seconds * rate),
        lambda f: np.exp(-0.5 * (np.log2(np.maximum(f * rate, 1) / middle) / 0.2) ** 2),
    )
    gusts = _swell(rng, seconds, rate, 0.7)
    return 0.3 * (low * (0.3 + 0.7 * gusts) + 0.6 * howl * gusts**2)


def _rain(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    samples = round(seconds * rate)
    hiss = _noise(rng, samples, lambda f: (f * rate > 400) / (1 + f * rate / 6000))
    drops = np.zeros((2, samples))
    ring = np.arange(round(0.02 * rate)) / rate
    for _ in range(round(seconds * rng.uniform(20, 60))):
        at = rng.integers(0, samples - len(ring))
        drop = np.exp(-ring * 400) * np.sin(2 * np.pi * rng.uniform(1500, 6000) * ring)
        drops[:, at : at + len(ring)] += rng.uniform(0.1, 1, (2, 1)) * drop
    return 0.12 * hiss + 0.5 * drops


def _surf(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    samples = round(seconds * rate)
    near = _noise(rng, samples, lambda f: 1 / (1 + f * rate / 1500))
    far = _noise(rng, samples, lambda f: 1 / (1 + (f * rate / 200) ** 2))
    turn = np.arange(samples) / rate / rng.uniform(4, 7) + rng.uniform(0, 1)
    wave = (1 - turn % 1) ** 2 * np.minimum(turn % 1 / 0.25, 1)
    return 0.3 * near * (0.08 + 1.8 * wave) + 0.15 * far


def _fire(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    samples = round(seconds * rate)
    made = 0.08 * _noise(rng, samples, lambda f: 1 / (1 + (f * rate / 120) ** 2))
    crack = np.arange(round(0.008 * rate))
    for _ in range(round(seconds * rng.uniform(12, 30))):
        at = rng.integers(0, samples - len(crack))
        burst = rng.standard_normal(len(crack)) * np.exp(-crack / (0.0015 * rate))
        made[:, at : at + len(crack)] += rng.uniform(0.05, 0.6, (2, 1)) * rng.uniform() * burst
    return made


def _drone(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    base = rng.uniform(40, 75)
    time = np.arange(round(seconds * rate)) / rate
    made = np.zeros((2, len(time)))
    for number in range(1, 9):
        beat = rng.uniform(-0.4, 0.4, (2, 1))
        level = (0.4 + 0.6 * _swell(rng, seconds, rate, 0.4)) / number
        made += level * np.sin(2 * np.pi * (base * number + beat) * time)
    return made / np.abs(made).max()


def _siren(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    pitch = 800 + 300 * np.sin(2 * np.pi * rng.uniform(0.3, 1.0) * time)
    wave = np.sin(2 * np.pi * np.cumsum(pitch) / rate)
    return 0.7 * np.stack([wave, wave])


def _beeps(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    on = (time % rng.uniform(0.25, 0.8)) < rng.uniform(0.08, 0.15)
    smooth = np.convolve(on, np.ones(200) / 200, mode="same")  # no clicks
    wave = smooth * np.sin(2 * np.pi * rng.uniform(700, 2200) * time)
    return 0.7 * np.stack([wave, wave])


def _white(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    return 0.3 * rng.standard_normal((2, round(seconds * rate)))


# What computes it, shortest and longest in seconds, captions.
COMPUTED: tuple[tuple[Synthesis, float, float, tuple[str, ...]], ...] = (
    (_rising_noise, 2.0, 6.0, ("a rising noise sweep", "a white noise riser", "an uplifter")),
    (_falling_noise, 2.0, 6.0, ("a falling noise sweep", "a noise downlifter")),
    (_riser, 3.0, 6.0, ("a rising synth tone", "a synth riser", "a tone that rises and builds up")),
    (_dive, 0.8, 2.5, ("a falling laser sound", "a synth dive", "a tone that falls")),
    (_wind, 6.0, 12.0, ("wind", "howling wind", "gusts of wind")),
    (_rain, 6.0, 12.0, ("rain", "steady rain", "rain drops falling")),
    (_surf, 8.0, 14.0, ("ocean waves", "the sea", "surf on a beach")),
    (_fire, 5.0, 10.0, ("a crackling fire", "a campfire", "crackling flames")),
    (_drone, 6.0, 12.0, ("a low drone", "a deep dark drone", "a low humming drone")),
    (_siren, 3.0, 6.0, ("a siren", "a wailing siren", "an alarm siren")),
    (_beeps, 2.0, 5.0, ("beeping", "an alarm beeping", "electronic beeps")),
    (_white, 2.0, 5.0, ("white noise", "static noise")),
)


def _computed(rng: random.Random, seed: str) -> Sound:
    source, shortest, longest, captions = rng.choice(COMPUTED)
    return Sound(captions, round(rng.uniform(shortest, longest), 2), source, seed)


def _faded(samples: np.ndarray, rate: int) -> np.ndarray:
    """No click at either end: 10 ms in, 50 ms out."""
    faded = np.array(samples, dtype=np.float64)
    up, down = round(0.01 * rate), round(0.05 * rate)
    faded[:, :up] *= np.linspace(0, 1, up)
    faded[:, -down:] *= np.linspace(1, 0, down)
    return faded


_KINDS: tuple[tuple[Callable[[random.Random, str], Sound], float], ...] = (
    (_drum, 3.0),
    (_pad, 3.0),
    (_effect, 3.0),
    (_computed, 3.0),
)

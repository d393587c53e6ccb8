"""How well controls are held, by the control channels and by gradients, beside what is possible.

Controls come from two places: taken from pieces that the model never heard (their own tune, chords,
beats and loudness), and created by rule. Each is measured in clips without it, with it by either
route, and, as the ceiling, in real renders after the codec's round trip: of the same piece, or of
what was created, played plainly.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from audiodiff.adherence import Prompt, draw_by_lot
from audiodiff.curves import loudness_for
from audiodiff.evaluate import real_clips
from audiodiff.judge import Judge, listen, round_trip
from audiodiff.kept import MAIN, Kept, kept, sketch_kept
from audiodiff.labels import FRAME_SECONDS, SAMPLE_RATE, Labels
from audiodiff.metrics import hear
from audiodiff.pipeline import MusicPipeline
from audiodiff.plain import played
from audiodiff.prompts import SECONDS
from audiodiff.render import find_soundfont
from audiodiff.settings import DEFAULT_LOUDNESS, MusicSettings
from audiodiff.sketch import Chords, Curve, Melody, Rhythm, Sketch
from audiodiff.theory import MODES, PITCH_CLASSES, parse_chord, parse_key
from shared.errors import DivergenceError, UserError

ROUTES = ("none", "channels", "gradient", "both")
PARTS = ("melody", "chords", "rhythm", "dynamics")
PAIR = ("melody", "dynamics")
MEASURES: Mapping[str, tuple[str, ...]] = {
    "melody": ("accuracy", "accuracy_chroma"),
    "chords": ("overlap",),
    "rhythm": ("beat_f1", "downbeat_f1"),
    "dynamics": ("r", "shape_error_db"),
    "tempo": ("kept",),
    "key": ("kept",),
}
PUBLISHED: Mapping[tuple[str, str, str], float] = {
    # Music ControlNet, arXiv 2311.07069: one control, with training.
    ("extracted", "melody", "accuracy_chroma"): 0.583,
    ("created", "melody", "accuracy_chroma"): 0.782,
    ("extracted", "dynamics", "r"): 0.888,
    ("created", "dynamics", "r"): 0.985,
    ("extracted", "rhythm", "beat_f1"): 0.692,
    ("created", "rhythm", "beat_f1"): 0.886,
    ("extracted", "rhythm", "downbeat_f1"): 0.354,
    ("created", "rhythm", "downbeat_f1"): 0.452,
}
KEPT_FROM = 0.95  # of the ceiling
LEGEND = (
    "ceiling: real renders of the piece, or of what was created, after the codec's round trip; "
    "published: Music ControlNet, one control, "
    "other data; *: at least 0.95 of the ceiling; downbeats: of the beats at the tempo asked for, "
    "those at which bass begins and chords change; asked: tempo within 2 % or an octave of it, and "
    "the key or another of its scale, given as numbers and words"
)


@dataclass(frozen=True)
class Row:
    """One measure of one control.

    Attributes:
        origin: "extracted", "created", or "asked" of tempo and key.
        given: the control that was given alone, or which together.
        values: route -> mean.
        n: clips.
    """

    origin: str
    given: str
    control: str
    measure: str
    values: Mapping[str, float]
    n: int
    ceiling: float | None
    published: float | None


@dataclass(frozen=True)
class ControlReport:
    """All rows, how they were made, and what each route costs.

    Attributes:
        style: share of all clips by a route in which the judge hears the style of their prompt.
        seconds: of computing a clip.
    """

    settings: Mapping[str, Any]
    rows: tuple[Row, ...]
    style: Mapping[str, float]
    seconds: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        """The report as JSON knows it."""
        return asdict(self)

    def table(self) -> str:
        """The report as people read it."""
        head = ("", *ROUTES, "ceiling", "published", "n")
        lines = [head, *(_cells(row) for row in self.rows)]
        for title, found in (("style heard", self.style), ("seconds a clip", self.seconds)):
            cells = (f"{found[route]:.2f}" if route in found else "" for route in ROUTES)
            lines.append((title, *cells, "", "", ""))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
            for line in lines
        ]
        facts = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return "\n".join([facts, "", *text, "", LEGEND])


def evaluate_control(
    pipeline: MusicPipeline,
    judge: Judge,
    prompts: Sequence[Prompt],
    *,
    limit: int | None = None,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float,
    sampler: str,
    say: Callable[[str], None] | None = None,
) -> ControlReport:
    """Give controls alone and together, by every route, and measure what was kept.

    A clip whose gradients diverge counts as one that was made without controls.

    Args:
        prompts: those of kind "controls" are used.
        limit: at most so many, drawn by lot.
        seed: prompt number i gets the seed ``seed + i``.

    Raises:
        UserError: no such prompts, or a value that the model or the sampler does not take.
    """
    chosen = [p for p in draw_by_lot(prompts, limit, seed) if p.kind == "controls"]
    if not chosen:
        raise UserError("there are no prompts of the kind controls")
    real = real_clips(chosen, say)
    soundfont = find_soundfont(None) if real else None
    coded = {number: round_trip(pipeline.codec, samples) for number, samples in real.items()}
    spent: dict[str, list[float]] = {route: [] for route in ROUTES}
    styles: dict[str, list[bool]] = {route: [] for route in ROUTES}
    diverged: list[int] = []
    plain: dict[int, np.ndarray] = {}
    facts: dict[str, Any] = {}

    def plan(
        prompt: Prompt,
        sketch: Sketch | None = None,
        bpm: float | None = None,
        key: str | None = None,
    ) -> MusicSettings:
        dynamics = sketch and sketch.dynamics
        loudness = loudness_for(dynamics, SECONDS) if dynamics else DEFAULT_LOUDNESS
        (settings,) = pipeline.plan(
            prompt.text,
            seconds=SECONDS,
            loudness=loudness,
            bpm=bpm,
            key=key,
            seed=seed + prompt.number,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            sketch=sketch,
        )
        return settings

    def make(prompt: Prompt, settings: MusicSettings, route: str) -> np.ndarray:
        facts.update(settings.record())
        start = time.perf_counter()
        try:
            (clip,) = pipeline.generate([settings])
        except DivergenceError as error:  # one clip must not end the run
            if route not in ("gradient", "both"):
                raise
            diverged.append(prompt.number)
            if say is not None:
                say(f"prompt {prompt.number}, {route}, counts as a clip without controls: {error}")
            return plain[prompt.number]
        spent[route].append(time.perf_counter() - start)
        styles[route].append(listen(judge, [clip.samples])[0].style == prompt.labels.style)
        return clip.samples

    for prompt in tqdm(chosen, "no control", leave=False):
        plain[prompt.number] = make(prompt, plan(prompt), "none")
    rows: list[Row] = []
    for name in ("tempo", "key"):
        found: dict[str, list[Kept]] = {"none": [], "channels": []}
        ceilings: list[Kept] = []
        for prompt in tqdm(chosen, f"asked, {name}", leave=False):
            value = getattr(prompt.labels, name)
            if value is None:
                continue
            settings = plan(prompt, bpm=value) if name == "tempo" else plan(prompt, key=value)
            found["none"].append(kept(plain[prompt.number], SAMPLE_RATE, settings))
            found["channels"].append(
                kept(make(prompt, settings, "channels"), SAMPLE_RATE, settings)
            )
            if prompt.number in coded:
                ceilings.append(kept(coded[prompt.number], SAMPLE_RATE, settings))
        rows += _rows("asked", name, (name,), found, ceilings)
    for origin, draw in (("extracted", extracted), ("created", created)):
        sketches = {p.number: draw(p) for p in chosen}
        for given, parts in _given().items():
            found = {route: [] for route in ROUTES}
            ceilings = []
            for prompt in tqdm(chosen, f"{origin}, {given}", leave=False):
                wanted = _only(sketches[prompt.number], parts)
                if not wanted.parts():
                    continue
                for route in ROUTES:
                    samples = plain[prompt.number]
                    if route != "none":
                        samples = make(prompt, plan(prompt, _by(wanted, route)), route)
                    found[route].append(_heard(samples, wanted))
                if origin == "extracted" and prompt.number in coded:
                    ceilings.append(_heard(coded[prompt.number], wanted))
                elif origin == "created" and soundfont is not None:
                    sounding = parts if {*parts} - {"dynamics"} else (*parts, "chords")
                    play = played(_only(sketches[prompt.number], sounding), soundfont, SECONDS)
                    ceilings.append(_heard(round_trip(pipeline.codec, play), wanted))
            rows += _rows(origin, given, parts, found, ceilings)
    told = ("model", "model_hash", "steps", "guidance_scale", "sampler", "device", "dtype")
    settings = {name: facts[name] for name in told} | {"seed": seed, "prompts": len(chosen)}
    settings |= {"diverged": len(diverged)} if diverged else {}
    style, seconds = (
        {route: float(np.mean(values)) for route, values in found.items() if values}
        for found in (styles, spent)
    )
    return ControlReport(settings, tuple(rows), style, seconds)


def _given() -> dict[str, tuple[str, ...]]:
    """What is given at once, by what to call it."""
    alone = {part: (part,) for part in PARTS}
    return alone | {" and ".join(PAIR): PAIR, "all": PARTS}


def extracted(prompt: Prompt) -> Sketch:
    """The controls of the piece that a prompt's labels were taken from."""
    labels = prompt.labels
    beats = labels.beats
    gap = beats[-1] - beats[-2]
    chords = zip(beats, (*beats[1:], beats[-1] + gap), labels.chords, strict=False)
    return Sketch(
        melody=Melody(notes=labels.melody) if labels.melody else None,
        chords=Chords(spans=tuple((max(a, 0.0), b, name) for a, b, name in chords if b > 0)),
        rhythm=Rhythm(beats=beats, downbeats=_two_bars(labels)),
        dynamics=Curve(
            points=tuple(((i + 0.5) * FRAME_SECONDS, v) for i, v in enumerate(labels.dynamics))
        ),
    )


def created(prompt: Prompt) -> Sketch:
    """Controls by rule, in the prompt's tempo and key: triads, a tune on them, a beat, a swell."""
    rng = random.Random(f"created {prompt.number}")
    beat = 60 / (prompt.labels.tempo or 100.0)
    key = parse_key(prompt.labels.key or "C")
    scale = [key.tonic + step for step in MODES[key.mode]]
    in_key = {pitch % 12 for pitch in scale}
    bar = 4 * beat
    roots = [pitch for pitch in scale if (pitch + 7) % 12 in in_key]
    names = [_triad(rng.choice(roots) % 12, in_key) for _ in range(math.ceil(SECONDS / bar))]
    chords = [
        (number * bar, min((number + 1) * bar, SECONDS), name) for number, name in enumerate(names)
    ]
    pitches = [60 + scale[i] % 12 + 12 * octave for octave in (0, 1) for i in range(len(scale))]
    notes, step, at = [], rng.randrange(len(pitches)), 0  # at: beats
    while at * beat < SECONDS:
        length = rng.choice((1, 1, 2))
        if at % 2 == 0:  # as tunes do: what falls on a strong beat belongs to the chord
            tones = parse_chord(names[at // 4]).pitch_classes
            near = [i for i, pitch in enumerate(pitches) if pitch % 12 in tones]
            step = min(near, key=lambda i: abs(i - step))
        notes.append((at * beat, min((at + length) * beat, SECONDS), pitches[step]))
        at, step = at + length, (step + rng.choice((-2, -1, 1, 2))) % len(pitches)
    count = int(SECONDS / beat) + 5
    beats = tuple(number * beat for number in range(count))
    points = ((0.0, rng.uniform(-32, -16)), (SECONDS / 2, rng.uniform(-32, -16)))
    return Sketch(
        melody=Melody(notes=tuple(notes)),
        chords=Chords(spans=tuple(chords)),
        rhythm=Rhythm(beats=beats, downbeats=beats[::4]),
        dynamics=Curve(points=(*points, (SECONDS, rng.uniform(-32, -16)))),
    )


def _triad(root: int, scale: set[int]) -> str:
    return PITCH_CLASSES[root] + ("" if (root + 4) % 12 in scale else "m")


def _two_bars(labels: Labels) -> tuple[float, ...]:
    if len(labels.downbeats) > 1:
        return labels.downbeats
    bar = (labels.beats[-1] - labels.beats[-2]) * (labels.meter or 4)
    first = next(iter(labels.downbeats), labels.beats[0])
    return (first, first + bar)


def _only(sketch: Sketch, names: Sequence[str]) -> Sketch:
    parts = {name: part for name, part in sketch.parts().items() if name in names}
    return replace(Sketch(), **parts)


def _by(sketch: Sketch, route: str) -> Sketch:
    return replace(Sketch(), **{n: replace(p, by=route) for n, p in sketch.parts().items()})


def _heard(samples: np.ndarray, wanted: Sketch) -> Kept:
    return sketch_kept(samples, hear(samples), wanted)


def _rows(
    origin: str,
    given: str,
    controls: Sequence[str],
    found: Mapping[str, Sequence[Kept]],
    ceilings: Sequence[Kept],
) -> Iterator[Row]:
    for control in controls:
        for measure in MEASURES[control]:
            values = {route: _mean(found[route], control, measure) for route in found}
            known = {route: value for route, value in values.items() if value is not None}
            if not known:
                continue
            ceiling = _mean(ceilings, control, measure)
            published = PUBLISHED.get((origin, control, measure)) if given == control else None
            count = len(found["none"])
            yield Row(origin, given, control, measure, known, count, ceiling, published)


def _mean(found: Sequence[Kept], control: str, measure: str) -> float | None:
    values = [
        float(one[control][measure]) for one in found if control in one and measure in one[control]
    ]
    return float(np.mean(values)) if values else None


def _cells(row: Row) -> tuple[str, ...]:
    def cell(route: str) -> str:
        if route not in row.values:
            return ""
        value = row.values[route]
        held = (
            row.ceiling is not None
            and row.measure == MAIN.get(row.control)
            and value >= KEPT_FROM * row.ceiling
        )
        return f"{value:.3f}" + ("*" if held else " ")

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    what = "" if row.given == row.control else f"{row.given}: "
    title = f"{row.origin}, {what}{row.control}, {row.measure.replace('_', ' ')}"
    return (title, *map(cell, ROUTES), number(row.ceiling), number(row.published), str(row.n))

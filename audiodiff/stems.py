"""A single part of music: what is said of it, what is kept away, and the timbre it is held to.

No caption that the carried model learnt says that one player is all there is, so words alone do
not silence the others. The part is named, the others are named as what to move away from, and the
sound is moved towards the timbre of that part alone, by gradient. ``python -m audiodiff.stems``
measures those timbres anew, from parts that the composer wrote, each rendered alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiodiff.instruments import INSTRUMENTS
from audiodiff.sketch import Sketch, Timbre
from shared.naming import choose

if TYPE_CHECKING:
    from audiodiff.clip import Clip

TIMBRES = Path(__file__).with_name("part_timbres.json")
EVERY = 4  # bands of the default front end that share a value in that file
RENDERS = 3  # of each instrument
SECONDS = 6.0
DRAWN = 600  # pieces that are looked through for it

GROUPS: Mapping[str, tuple[str, ...]] = {"bass": ("electric bass", "double bass", "synth bass")}
"""Parts that several instruments may play, the most usual first."""
PARTS: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in INSTRUMENTS},
    **GROUPS,
    "drums": ("drums", "percussion"),
}
"""Part -> the instruments that count as it."""
USUAL = ("drums", "bass", "piano", "electric guitar", "strings", "synth pad", "synth lead", "flute")
"""What is named as what to move away from, but for the part itself."""


@dataclass(frozen=True)
class Alone:
    """A prompt, a negative prompt and a sketch for one part alone."""

    prompt: str
    negative_prompt: str
    sketch: Sketch


def alone(part: str, prompt: str, negative_prompt: str, sketch: Sketch | None) -> Alone:
    """What is asked for, for that part alone.

    A timbre that the sketch asks for itself stays.

    Raises:
        UserError: no such part.
    """
    own = choose("part", part, PARTS)
    instrument = named(part, prompt)
    others = [
        name for name in USUAL if not {*PARTS[name]} & {*own} and name not in (part, instrument)
    ]
    given = sketch or Sketch()
    said = f"{prompt.strip()}, {instrument}" if prompt.strip() else prompt  # no prompt is refused
    like = given.like or replace(timbres()[instrument], by="gradient")
    return Alone(
        said,
        negative_prompt or ", ".join(others),
        replace(given, like=like),
    )


def named(part: str, prompt: str) -> str:
    """Which instrument plays a part: the one that the prompt names, else the usual one."""
    own = choose("part", part, PARTS)
    return next((name for name in own if name in prompt.lower()), own[0])


def heard_only(part: str, clip: Clip) -> dict[str, str | bool]:
    """What the carried judge hears in a clip of one part, and whether that is the part alone."""
    from audiodiff.audio_file import resample
    from audiodiff.judge import listen, load_judge
    from audiodiff.labels import SAMPLE_RATE

    samples = resample(clip.samples, clip.sample_rate, SAMPLE_RATE)
    (opinion,) = listen(load_judge(), [samples])
    found = opinion.instruments
    names = ", ".join(sorted(found)) or "nothing"
    return {"asked": part, "heard": names, "kept": bool(found) and found <= {*PARTS[part]}}


@lru_cache
def timbres() -> Mapping[str, Timbre]:
    """Instrument -> how it sounds alone."""
    rows: dict[str, Any] = json.loads(TIMBRES.read_text(encoding="utf-8"))
    return {
        name: Timbre(mean=_spread(row["mean"]), spread=_spread(row["spread"]))
        for name, row in rows.items()
    }


def _spread(values: list[float]) -> tuple[float, ...]:
    """Values of every few bands for each band, straight lines between them."""
    bands = np.arange(len(values) * EVERY)
    return tuple(np.interp(bands, bands[::EVERY] + (EVERY - 1) / 2, values).round(2).tolist())


def _gathered(values: np.ndarray) -> list[float]:
    return values.reshape(-1, EVERY).mean(axis=1).round(2).tolist()


def write_timbres(path: Path = TIMBRES) -> None:
    """Measure and write them; the same bytes each time.

    Raises:
        UserError: no soundfont.
    """
    from audiodiff.compose import clip
    from audiodiff.corpus import make
    from audiodiff.inputs.timbre import timbre_of
    from audiodiff.render import find_soundfont
    from shared.files import whole_file

    soundfont = find_soundfont(None)
    found: dict[str, list[Timbre]] = {name: [] for name in INSTRUMENTS}
    for number in range(DRAWN):
        score = clip(f"timbre/{number}", SECONDS)
        for part in score.parts:
            if len(found[part.instrument]) < RENDERS and len(part.notes) >= SECONDS:
                heard = make(replace(score, parts=(part,)), soundfont, SECONDS)
                found[part.instrument].append(timbre_of(heard))
        if all(len(some) == RENDERS for some in found.values()):
            break
    rows = {
        name: {
            "mean": _gathered(np.mean([one.mean for one in some], axis=0)),
            "spread": _gathered(np.mean([one.spread for one in some], axis=0)),
        }
        for name, some in found.items()
    }
    with whole_file(path, overwrite=True) as file:
        lines = [f'  "{name}": {json.dumps(row)}' for name, row in rows.items()]
        file.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())


if __name__ == "__main__":
    write_timbres()
    print(TIMBRES)

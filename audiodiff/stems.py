"""A single part of music: what is said of it, and what the judge hears of it.

Captions of clips of one player say that it is alone. The prompt's own words still bring the band of
its style along, so they are what to move away from: what is left to follow is that it is alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from audiodiff.instruments import INSTRUMENTS
from shared.naming import choose

if TYPE_CHECKING:
    from audiodiff.clip import Clip

GROUPS: Mapping[str, tuple[str, ...]] = {"bass": ("electric bass", "double bass", "synth bass")}
"""Parts that several instruments may play, the most usual first."""
PARTS: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in INSTRUMENTS},
    **GROUPS,
    "drums": ("drums", "percussion"),
}
"""Part -> the instruments that count as it."""


def alone(part: str, prompt: str, negative_prompt: str) -> tuple[str, str]:
    """The prompt and the negative prompt that ask for one part of PROMPT alone.

    A negative prompt that is given stays.

    Raises:
        UserError: no such part.
    """
    instrument = named(part, prompt)
    if not prompt.strip():  # which is refused as it always is
        return prompt, negative_prompt
    return f"{instrument} alone, {prompt.strip()}", negative_prompt or prompt.strip()


def named(part: str, prompt: str) -> str:
    """Which instrument plays a part: the one that the prompt names, else the usual one.

    Raises:
        UserError: no such part.
    """
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

"""How good a text-to-music model is: codec, words and controls followed, time taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from audiodiff import controls as channels
from audiodiff.adherence import (
    CODEC,
    CONTROLS,
    TEXT,
    Measure,
    Pairs,
    Prompt,
    draw_by_lot,
    figures,
    macro_dynamics,
    take_in,
)
from audiodiff.controls import Controls
from audiodiff.fidelity import fidelity
from audiodiff.judge import Judge
from audiodiff.labels import Labels
from audiodiff.prompts import FRAMES, SECONDS, labels_of_part, real_clip, score_of
from audiodiff.render import find_soundfont
from audiodiff.settings import DEFAULT_GUIDANCE_SCALE
from shared.errors import UserError
from shared.naming import choose
from shared.report import Figure, table
from shared.settings import DEFAULT_SAMPLER, DEFAULT_SCHEDULE, PROMPT_ALONE, GuidanceSettings

if TYPE_CHECKING:
    from audiodiff.codec import MusicCodec

CODEC_CLIPS = 48
LEGEND = (
    "real: renders of the same labels; swapped: labels swapped among the clips; "
    "alone, together: controls given"
)


class MadeClip(Protocol):
    """What is needed of a clip."""

    @property
    def samples(self) -> np.ndarray: ...  # (2 s)
    @property
    def settings(self) -> Any: ...  # has record() -> dict


class Musician(Protocol):
    """What is needed of a pipeline."""

    @property
    def codec(self) -> MusicCodec: ...
    @property
    def device(self) -> torch.device: ...

    def __call__(
        self,
        prompt: str,
        *,
        seconds: float,
        bpm: float | None,
        key: str | None,
        seed: int,
        steps: int,
        guidance_scale: float,
        sampler: str,
        schedule: str,
        guidance: GuidanceSettings,
        controls: Controls | None,
    ) -> Sequence[MadeClip]: ...


@dataclass(frozen=True)
class Report:
    """All figures, by key, and what they were measured on."""

    settings: dict[str, Any]
    figures: dict[str, Figure]

    def record(self) -> dict[str, Any]:
        """The report as JSON knows it."""
        return asdict(self)

    def table(self) -> str:
        """The report as people read it."""
        return table(self.settings, self.figures.values(), LEGEND)


def real_clips(
    prompts: Sequence[Prompt], say: Callable[[str], None] | None = None
) -> dict[int, np.ndarray]:
    """The clip that each prompt's labels were taken from, (2 s), by the prompt's number.

    Those that have none, or that the composer would not write that way any more, are left out; all
    are where the soundfont is not installed.
    """
    try:
        soundfont = find_soundfont(None)
    except UserError as error:
        if say is not None:
            say(f"No real clips to compare with: {error}")
        return {}
    found, changed = {}, 0
    for prompt in tqdm(prompts, "real clips", unit="clip", leave=False):
        if not prompt.seed:
            continue
        score = score_of(prompt)
        labels = labels_of_part(score, prompt.kind, prompt.start)
        if labels == replace(prompt.labels, dynamics=()):
            found[prompt.number] = real_clip(prompt, score, soundfont)
        else:
            changed += 1
    if changed and say is not None:
        say(f"{changed} prompts were written by another composer; they have no real clip")
    return found


def given(labels: Labels, names: Sequence[str]) -> Controls:
    """The controls ``names`` of the labels' clip; the others unknown."""
    whole = channels.from_labels(labels, FRAMES)
    hidden = {name: torch.zeros_like(known) for name, known in whole.known.items()}
    return replace(whole, known=hidden | {name: whole.known[name] for name in names})


def evaluate(
    pipeline: Musician,
    judge: Judge,
    prompts: Sequence[Prompt],
    *,
    limit: int | None = None,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
    sampler: str = DEFAULT_SAMPLER,
    schedule: str = DEFAULT_SCHEDULE,
    guidance: GuidanceSettings = PROMPT_ALONE,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Make clips of prompts and of control channels, and measure what came out.

    Args:
        limit: at most so many prompts of each kind, drawn by lot.
        seed: prompt number i gets the seed ``seed + i``.
        say: takes a line for the user about what cannot be measured.

    Raises:
        UserError: a value that the model or the sampler does not take, or labels that the judge
            does not know.
    """
    chosen = draw_by_lot(prompts, limit, seed)
    for prompt in chosen:
        choose("style", prompt.labels.style or "", dict.fromkeys(judge.styles))
    real = real_clips(chosen, say)
    made = _Made(pipeline, seed, steps, guidance_scale, sampler, schedule, guidance)

    def pairs(these: Sequence[Prompt], clips: Sequence[np.ndarray]) -> Pairs:
        return list(zip(take_in(judge, clips), (prompt.labels for prompt in these), strict=True))

    def real_pairs(these: Sequence[Prompt]) -> Pairs:
        known = [prompt for prompt in these if prompt.number in real]
        return pairs(known, [real[prompt.number] for prompt in known])

    found: dict[str, Figure] = {}
    spoken, steered = ([p for p in chosen if p.kind == kind] for kind in ("text", "controls"))
    coded = [prompt for prompt in (*steered, *spoken) if prompt.number in real][:CODEC_CLIPS]
    if coded:
        originals = [real[prompt.number] for prompt in coded]
        copies, faults = fidelity(pipeline.codec, originals)
        found |= figures(
            CODEC, pairs(coded, copies), pairs(coded, originals), key="codec_", title="codec: "
        )
        found |= faults
    if spoken:
        clips = [made(prompt, None) for prompt in tqdm(spoken, "prompts", leave=False)]
        found |= figures(
            TEXT, pairs(spoken, clips), real_pairs(spoken), key="text_", title="text: "
        )
    if steered:
        ceiling = real_pairs(steered)
        together: dict[str, Measure] = {}
        for name, measures in CONTROLS.items():
            together |= measures
            found |= _steered(made, steered, (name,), measures, pairs, ceiling, "alone")
        every = tuple(channels.CONTROLS)
        found |= _steered(made, steered, every, together, pairs, ceiling, "together")
    found["seconds"] = Figure(
        "compute a second of music", made.seconds / made.music, made.count, unit="s"
    )
    kept = ("model", "model_hash", "steps", "guidance_scale", "sampler", "device", "dtype")
    threads = {"threads": torch.get_num_threads()} if pipeline.device.type == "cpu" else {}
    student = {"student": True} if made.facts.get("student") else {}
    settings = {key: made.facts[key] for key in kept} | student | guidance.stated() | threads
    return Report(settings | {"seed": seed, "prompts": len(chosen)}, found)


def _steered(
    made: _Made,
    prompts: Sequence[Prompt],
    names: Sequence[str],
    measures: Mapping[str, Measure],
    pairs: Callable[[Sequence[Prompt], Sequence[np.ndarray]], Pairs],
    real: Pairs,
    how: str,
) -> dict[str, Figure]:
    """Figures of clips made with some control channels given."""
    bar = tqdm(prompts, f"{', '.join(names)} given", leave=False)
    heard = pairs(prompts, [made(prompt, given(prompt.labels, names)) for prompt in bar])
    found = figures(measures, heard, real, key=f"{how}_", title=f"{how}: ")
    if "dynamics" in measures:
        macro = macro_dynamics(heard, real, title=f"{how}: ")
        found |= {f"{how}_dynamics_macro": macro} if macro is not None else {}
    return found


class _Made:
    """Makes clips, and keeps count of their number, length and time, and how they were made."""

    def __init__(
        self,
        pipeline: Musician,
        seed: int,
        steps: int,
        guidance_scale: float,
        sampler: str,
        schedule: str,
        guidance: GuidanceSettings,
    ) -> None:
        self.pipeline, self.seed, self.guidance = pipeline, seed, guidance
        self.steps, self.guidance_scale = steps, guidance_scale
        self.sampler, self.schedule = sampler, schedule
        self.count, self.seconds, self.music = 0, 0.0, 0.0
        self.facts: dict[str, Any] = {}

    def __call__(self, prompt: Prompt, controls: Controls | None) -> np.ndarray:
        start = time.perf_counter()
        (made,) = self.pipeline(
            prompt.text,
            seconds=SECONDS,
            bpm=prompt.bpm,
            key=prompt.key,
            seed=self.seed + prompt.number,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            sampler=self.sampler,
            schedule=self.schedule,
            guidance=self.guidance,
            controls=controls,
        )
        self.seconds += time.perf_counter() - start
        self.count, self.music = self.count + 1, self.music + SECONDS
        self.facts = made.settings.record()
        return made.samples

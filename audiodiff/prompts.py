"""The evaluation's prompts: composed of what training never had, so that every label is exact.

``python -m audiodiff.prompts`` writes ``prompts.jsonl`` anew; needed after the composer changed.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiodiff.adherence import PROMPTS, Prompt
from audiodiff.captions import INSTRUMENT_WORDS, MOOD_WORDS, STYLE_WORDS, tempo_words, with_article
from audiodiff.compose import clip, is_held_out
from audiodiff.corpus import make
from audiodiff.labels import (
    FRAME_SECONDS,
    SAMPLES_PER_FRAME,
    Labels,
    labels_from_score,
    to_json,
)
from audiodiff.loudness import loudness_curve
from audiodiff.render import find_soundfont
from audiodiff.score import Score
from audiodiff.styles import STYLES
from audiodiff.theory import Key, parse_key
from shared.files import whole_file

FRAMES = 64  # latent frames of a clip: what models are trained at
SECONDS = FRAMES * FRAME_SECONDS
LATEST = 32  # latent frame of its score that a clip may begin with
TEXTS, CONTROLS = 160, 96
FEWEST_NOTES = 5  # of a melody that is given as a control


def score_of(prompt: Prompt) -> Score:
    """What is composed for a prompt; its clip is a part of that, see `real_clip`."""
    labels = prompt.labels
    return clip(
        prompt.seed,
        SECONDS + LATEST * FRAME_SECONDS,
        style=labels.style,
        key=parse_key(labels.key or ""),
        tempo=labels.tempo,
    )


def real_clip(prompt: Prompt, score: Score, soundfont: Path) -> np.ndarray:
    """The clip that the prompt's labels tell of, rendered: (2 s) float32, at -16 LUFS."""
    whole = make(score, soundfont, SECONDS + LATEST * FRAME_SECONDS)
    first = prompt.start * SAMPLES_PER_FRAME
    return whole[:, first : first + FRAMES * SAMPLES_PER_FRAME]


def labels_of_part(score: Score, kind: str, start: int) -> Labels:
    """The labels of a clip from the latent frame ``start`` of a score on, but for its dynamics.

    A text says nothing of single notes, chords and beats.
    """
    whole = labels_from_score(score, duration=SECONDS + LATEST * FRAME_SECONDS)
    here = whole.window(start * FRAME_SECONDS, SECONDS)
    playing = _playing(score, start * FRAME_SECONDS)
    if kind == "text":
        nothing = replace(here, chords=(), melody=(), beats=(), downbeats=())
        return replace(nothing, instruments=playing, duration=SECONDS)
    return replace(
        here,
        instruments=playing,
        melody=tuple((round(a, 4), round(b, 4), pitch) for a, b, pitch in here.melody),
        beats=tuple(round(beat, 4) for beat in here.beats),
        downbeats=tuple(round(beat, 4) for beat in here.downbeats),
        duration=SECONDS,
    )


def _playing(score: Score, start_s: float) -> tuple[str, ...]:
    """The instruments that have a note within the clip."""
    beat = 60 / score.tempo
    return tuple(
        dict.fromkeys(
            part.instrument
            for part in score.parts
            if any(
                note.end * beat > start_s and note.start * beat < start_s + SECONDS
                for note in part.notes
            )
        )
    )


def text_prompt(number: int) -> Prompt:
    """Prompt ``number`` of those that only have words; tempo and key are in them or beside."""
    rng, seed, score = _draw("text", number)
    labels = labels_of_part(score, "text", 0)
    words = _words(labels, rng)
    bpm, key = score.tempo, score.key.name
    if number % 2:
        return Prompt(number, words, "text", labels, seed, bpm=bpm, key=key)
    return Prompt(number, f"{words} in {key}, {bpm:g} bpm", "text", labels, seed)


def control_prompt(number: int, soundfont: Path) -> Prompt:
    """Prompt ``number`` of those whose labels are given as controls; it starts anywhere in a bar.

    It states neither tempo nor key, lest they tell what one control alone does not.
    """
    for attempt in range(100):
        rng, seed, score = _draw(f"controls/{attempt}", number)
        start = rng.randint(1, LATEST)
        labels = labels_of_part(score, "controls", start)
        if len(labels.melody) >= FEWEST_NOTES:
            break
    else:
        raise RuntimeError(f"no melody in 100 pieces of {score.style}")
    prompt = Prompt(number, _words(labels, rng), "controls", labels, seed, start=start)
    levels = loudness_curve(real_clip(prompt, score, soundfont))
    dynamics = tuple(round(float(level), 1) for level in levels)
    return replace(prompt, labels=replace(labels, dynamics=dynamics))


def _draw(name: str, number: int) -> tuple[random.Random, str, Score]:
    """Chance, a seed, and the score that comes of it, of a combination that is held out."""
    seed = f"evaluation/{name}/{number}"
    rng = random.Random(seed)
    style = list(STYLES)[number % len(STYLES)]
    keys = [Key(tonic, mode) for mode in STYLES[style].modes for tonic in range(12)]
    key = rng.choice([key for key in keys if is_held_out(style, key)])
    low, high = STYLES[style].tempo
    tempo = float(rng.randint(low, high))
    return rng, seed, clip(seed, SECONDS + LATEST * FRAME_SECONDS, style, key, tempo)


def _words(labels: Labels, rng: random.Random) -> str:
    """Such as "a mellow jazz tune with saxophone, double bass and drums"; names every player."""
    style = str(labels.style)
    adjectives = (*MOOD_WORDS[str(labels.mood)], *tempo_words(labels.tempo or 0), "")
    nouns = [noun for noun in STYLE_WORDS[style][1] if noun not in ("", "music")]
    words = [rng.choice(adjectives), style, rng.choice(nouns)]
    names = [INSTRUMENT_WORDS.get(name, (name,))[0] for name in labels.instruments]
    players = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"{with_article(' '.join(filter(None, words)))} with {players}"


def write_prompts(
    path: Path = PROMPTS,
    soundfont: Path | None = None,
    texts: int = TEXTS,
    controls: int = CONTROLS,
) -> None:
    """Write the prompts, those of words first; the same bytes each time.

    Raises:
        UserError: no soundfont, which the dynamics of the controls are measured with.
    """
    font = find_soundfont(soundfont)
    prompts = [text_prompt(number) for number in range(texts)]
    prompts += [control_prompt(number, font) for number in range(controls)]
    with whole_file(path, overwrite=True) as file:
        for prompt in prompts:
            told = {name: value for name, value in to_json(prompt.labels).items() if value}
            row = {"prompt": prompt.text, "kind": prompt.kind, "seed": prompt.seed}
            row |= {"start": prompt.start, "bpm": prompt.bpm, "key": prompt.key, "labels": told}
            file.write((json.dumps(row) + "\n").encode())


if __name__ == "__main__":
    write_prompts()
    print(PROMPTS)

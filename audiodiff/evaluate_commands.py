"""The commands that measure music models; nothing heavy is imported before it is needed."""

import json
from pathlib import Path

import click

from audiodiff.settings import DEFAULT_GUIDANCE_SCALE
from shared.console import (
    FILE,
    all_of,
    evaluation_options,
    guidance_options,
    model_options,
    quality_option,
    sampling_options,
    say,
)
from shared.settings import DEFAULT_SCHEDULE, GuidanceSettings


@click.command("music")
@all_of(
    model_options,
    quality_option,
    sampling_options(DEFAULT_GUIDANCE_SCALE),
    guidance_options,
    evaluation_options,
)
def evaluate_music(
    model: str,
    device: str,
    dtype: str,
    quality: bool,
    steps: int,
    guidance_scale: float,
    sampler: str,
    guidance: GuidanceSettings,
    prompts: Path | None,
    limit: int | None,
    seed: int,
    judge: Path | None,
    as_json: bool,
) -> None:
    """Make clips of labelled prompts and print how well they follow them."""
    from shared.models import find_model
    from shared.student import choose_denoiser

    choice = choose_denoiser(
        find_model(model, "music").folder,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        schedule=DEFAULT_SCHEDULE,
        guidance=guidance,
        quality=quality,
    )

    from audiodiff import MusicPipeline
    from audiodiff.adherence import PROMPTS, read_evaluation
    from audiodiff.evaluate import evaluate
    from audiodiff.judge import load_judge

    labelled = read_evaluation(prompts or PROMPTS)
    report = evaluate(
        MusicPipeline.load(model, device, dtype, choice.student),
        load_judge(judge, say),
        labelled,
        limit=limit,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=choice.sampler,
        schedule=choice.schedule,
        guidance=guidance,
        say=say,
    )
    click.echo(json.dumps(report.record()) if as_json else report.table())


@click.command("control")
@all_of(model_options, sampling_options(DEFAULT_GUIDANCE_SCALE))
@click.option("--prompts", type=FILE, help="JSON lines with labels, not the project's own.")
@click.option("--limit", type=click.IntRange(min=1), help="Prompts, drawn by lot.")
@click.option("--seed", default=0, show_default=True, help="Of the first prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON record.")
def evaluate_control(
    model: str,
    device: str,
    dtype: str,
    steps: int,
    guidance_scale: float,
    sampler: str,
    prompts: Path | None,
    limit: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Give controls by channels and by gradient and print how well they are kept."""
    from shared.models import find_model

    find_model(model, "music")

    from audiodiff import MusicPipeline
    from audiodiff.adherence import PROMPTS, read_evaluation
    from audiodiff.evaluate_control import evaluate_control
    from audiodiff.judge import load_judge

    report = evaluate_control(
        MusicPipeline.load(model, device, dtype),
        load_judge(None, say),
        read_evaluation(prompts or PROMPTS),
        limit=limit,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        say=say,
    )
    click.echo(json.dumps(report.record()) if as_json else report.table())

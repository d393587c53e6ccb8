"""The command that measures layouts: parse, call, report. Heavy imports wait until needed."""

import json
from pathlib import Path

import click

from imagediff.settings import DEFAULT_GUIDANCE_SCALE
from shared.console import (
    all_of,
    guidance_options,
    measuring_options,
    model_options,
    sampling_options,
    say,
)
from shared.settings import GuidanceSettings


@click.command("layout")
@all_of(model_options, sampling_options(DEFAULT_GUIDANCE_SCALE), guidance_options)
@click.option("--limit", type=click.IntRange(min=1), help="Layouts; by default 60.")
@measuring_options
def evaluate_layout(
    model: str,
    device: str,
    dtype: str,
    steps: int,
    guidance_scale: float,
    sampler: str,
    guidance: GuidanceSettings,
    limit: int | None,
    seed: int,
    judge: Path | None,
    as_json: bool,
) -> None:
    """Draw layouts of held-out scenes and print where things are and what they are."""
    from shared.layout import check_adapter
    from shared.models import find_model

    check_adapter(find_model(model).folder)

    from imagediff import ImagePipeline
    from imagediff.evaluate_layout import evaluate_layout
    from imagediff.judge import load_judge

    report = evaluate_layout(
        ImagePipeline.load(model, device, dtype),
        load_judge(judge, say),
        limit=limit,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        guidance=guidance,
    )
    click.echo(json.dumps(report.record()) if as_json else report.table())

"""The commands about samplers, as far as they need neither art."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from shared.comparison import DEFAULT_SAMPLERS, DEFAULT_STEPS
from shared.console import (
    FILE,
    all_of,
    gathered,
    guidance_options,
    model_options,
    negative_option,
    overwrite_option,
    schedule_option,
)
from shared.settings import GuidanceSettings


@click.group(invoke_without_command=True)
@click.option("--schedules", is_flag=True, help="The spacings of noise levels, not the samplers.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON record for each.")
@click.pass_context
def samplers(context: click.Context, schedules: bool, as_json: bool) -> None:
    """List the samplers: order, network calls a step, with noise or without, and what they are.

    The error falls with the number of steps to the power of the order; order 0 is for those of
    which more steps alone do not make it fall. An adaptive one chooses its steps itself, whatever
    --steps says.
    """
    if context.invoked_subcommand is not None:
        return
    from shared.samplers import SAMPLERS
    from shared.schedules import SCHEDULES

    records = [entry.record(name) for name, entry in (SCHEDULES if schedules else SAMPLERS).items()]
    if as_json:
        for record in records:
            click.echo(json.dumps(record))
        return
    width = max(len(record["name"]) for record in records)
    for record in records:
        facts = ""
        if not schedules:
            noise = "stochastic" if record["stochastic"] else "deterministic"
            order, calls = record["order"], record["evaluations_per_step"]
            work = "order adaptive" if order is None else f"order {order}  {calls:2} a step"
            facts = f"{work:18}  {noise:13}  "
        click.echo(f"{record['name']:{width}}  {facts}{record['summary']} ({record['paper']})")


@dataclass(frozen=True)
class Comparing:
    """What a comparison of samplers asks beside the prompt; each the option of its name.

    ``guidance_scale`` None stands for the art's own default, ``seed`` None for one drawn by lot.
    """

    names: str
    steps: str
    seed: int | None
    output: Path | None
    guidance_scale: float | None
    schedule: str
    guidance: GuidanceSettings
    negative_prompt: str
    model: str
    device: str
    dtype: str
    overwrite: bool


comparing_options = all_of(
    click.option("--samplers", "names", default=DEFAULT_SAMPLERS, show_default=True),
    click.option("--steps", default=DEFAULT_STEPS, show_default=True),
    click.option("--seed", type=int, help="Of all of them."),
    click.option("-o", "--output", type=FILE, help="A .png file for pictures, a folder for music."),
    click.option(
        "--guidance-scale", type=float, help="How strongly the prompt is followed; 1 is off."
    ),
    all_of(schedule_option, guidance_options, negative_option, model_options, overwrite_option),
    gathered("comparing", Comparing),
)

"""What the commands of both arts ask and say alike. Only commands import this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from shared.edit_settings import FillSettings
from shared.errors import UserError
from shared.settings import (
    AUTOGUIDANCE_SCALE,
    DEFAULT_SAMPLER,
    DEFAULT_SCHEDULE,
    GuidanceSettings,
)

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

DEVICES = click.Choice(["auto", "cpu", "cuda", "mps"])
DTYPES = click.Choice(["auto", "float32", "bfloat16", "float16"])
FILE = click.Path(path_type=Path)


def all_of(*options: Decorator) -> Decorator:
    """Several decorators as one; the help lists their options in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def sampling_options(guidance_scale: float | str, steps_option: str = "--steps") -> Decorator:
    """``--steps``, ``--guidance-scale`` and ``--sampler``.

    Args:
        guidance_scale: its default; or, where that depends, words for the help, and it is None.
    """
    return all_of(
        click.option(
            steps_option, "steps", default=25, show_default=True, help="Sampling steps, 1 to 10000."
        ),
        click.option(
            "--guidance-scale",
            type=float,
            default=None if isinstance(guidance_scale, str) else guidance_scale,
            show_default=guidance_scale if isinstance(guidance_scale, str) else True,
            help="How strongly the prompt is followed; 1 is off.",
        ),
        click.option(
            "--sampler",
            default=DEFAULT_SAMPLER,
            show_default=True,
            help="Name of the sampler; duotone samplers lists them.",
        ),
    )


def guidance_options(command: Command) -> Command:
    """``--guidance-interval`` and the like; the command gets all of them as ``guidance``."""

    @all_of(
        click.option(
            "--guidance-interval",
            metavar="LOW:HIGH",
            default="0:1",
            show_default=True,
            help="Guide in these steps only, as shares of all, from noise (0) to the end (1).",
        ),
        click.option(
            "--guidance-rescale",
            default=0.0,
            show_default=True,
            help="Bring the contrast of the guided output back, 0 to 1; 0 is off, 0.7 is common.",
        ),
        click.option(
            "--cfg-pp",
            metavar="SCALE",
            type=float,
            help="CFG++ with this scale, 0 to 1, in the place of --guidance-scale.",
        ),
        click.option(
            "--pag-scale",
            default=0.0,
            show_default=True,
            help="Perturbed-attention guidance beside the prompt's; 0 is off, 3 is the paper's.",
        ),
        click.option(
            "--autoguidance",
            metavar="MODEL",
            help="Guide away from this worse model of the same latents, beside the prompt.",
        ),
        click.option(
            "--autoguidance-scale",
            default=AUTOGUIDANCE_SCALE,
            show_default=True,
            help="How far away from it; 1 is off.",
        ),
    )
    @wraps(command)
    def gathering(
        *args: Any,
        guidance_interval: str,
        guidance_rescale: float,
        cfg_pp: float | None,
        pag_scale: float,
        autoguidance: str | None,
        autoguidance_scale: float,
        **others: Any,
    ) -> Any:
        guidance = GuidanceSettings(
            interval=_interval(guidance_interval),
            rescale=guidance_rescale,
            cfg_pp=cfg_pp,
            pag_scale=pag_scale,
            autoguidance=autoguidance,
            autoguidance_scale=autoguidance_scale,
        )
        return command(*args, guidance=guidance, **others)

    return cast(Command, gathering)


def _interval(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise UserError(
            f"guidance interval must be LOW:HIGH, shares of the steps, as 0.2:0.8, not {text!r}"
        ) from None


negative_option = click.option("--negative-prompt", default="", help="What to move away from.")
schedule_option = click.option(
    "--schedule",
    default=DEFAULT_SCHEDULE,
    show_default=True,
    help="Spacing of noise levels; duotone samplers --schedules lists them.",
)
quality_option = click.option(
    "--quality", is_flag=True, help="Take the model itself, not a student for few steps."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace files that exist.")
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes."
)
model_options = all_of(
    click.option(
        "--model", default="builtin", show_default=True, help="Name or folder of a model."
    ),
    click.option("--device", type=DEVICES, default="auto", show_default=True),
    click.option("--dtype", type=DTYPES, default="auto", show_default=True),
)
measuring_options = all_of(
    click.option(
        "--seed", default=0, show_default=True, help="Of the first prompt; the next have + 1."
    ),
    click.option(
        "--judge", type=FILE, help="Folder of another judge, trained there if it is empty."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print a JSON record."),
)
evaluation_options = all_of(
    click.option("--prompts", type=FILE, help="JSON lines with labels, not the project's own."),
    click.option("--limit", type=click.IntRange(min=1), help="Prompts of each kind, drawn by lot."),
    measuring_options,
)


@dataclass(frozen=True)
class Evaluating:
    """What an evaluation of edits asks for; each the option of its name.

    ``guidance_scale`` None stands for the art's own default, ``methods`` for its own choice.
    """

    methods: str | None
    steps: int
    guidance_scale: float | None
    sampler: str
    model: str
    device: str
    dtype: str
    prompts: Path | None
    limit: int | None
    seed: int
    judge: Path | None
    as_json: bool

    def names(self) -> list[str] | None:
        """The filling methods.

        Raises:
            UserError: one that there is not.
        """
        if self.methods is None:
            return None
        from shared.editing import FILLINGS
        from shared.naming import choose

        names = self.methods.split(",")
        for name in names:
            choose("filling method", name, FILLINGS)
        return names


def count_and_seed_options(things: str, thing: str) -> Decorator:
    """``--count`` and ``--seed`` of the things that are made."""
    return all_of(
        click.option("--count", default=1, show_default=True, help=f"{things} to make."),
        click.option("--seed", type=int, help=f"Of the first {thing}; the next have seed + 1, ..."),
    )


def gathered(name: str, kind: type) -> Decorator:
    """The options that are fields of a dataclass, as one argument of the command."""
    names = [field.name for field in fields(kind)]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def gathering(**given: Any) -> Any:
            values = {field: given.pop(field) for field in names}
            return command(**given, **{name: kind(**values)})

        return gathering  # pyright: ignore[reportReturnType]

    return decorate


fill_options = all_of(
    click.option(
        "--method",
        default=FillSettings.method,
        show_default=True,
        help="How what is free is filled: consistency, blend, repaint, gradient, posterior or "
        "concat.",
    ),
    click.option(
        "--jump-length", default=FillSettings.jump_length, show_default=True, help="RePaint's."
    ),
    click.option(
        "--jump-count", default=FillSettings.jump_count, show_default=True, help="RePaint's."
    ),
    click.option("--xi", default=FillSettings.xi, show_default=True, help="The gradient's step."),
    click.option(
        "--feather", default=4, show_default=True, help="Pixels of blended border around it."
    ),
    gathered("fill", FillSettings),
)


@dataclass(frozen=True)
class Making:
    """What every command asks that makes something out of a file; each the option of its name.

    ``guidance_scale`` None stands for the art's own default.
    """

    output: Path | None
    count: int
    seed: int | None
    steps: int
    guidance_scale: float | None
    sampler: str
    schedule: str
    guidance: GuidanceSettings
    negative_prompt: str
    model: str
    device: str
    dtype: str
    as_json: bool
    overwrite: bool


def making_options(guidance_scale: float | str, steps_option: str = "--steps") -> Decorator:
    """The options of :class:`Making`; the command takes them as one argument, ``making``."""
    return all_of(
        click.option(
            "-o", "--output", type=FILE, help="A file, or an existing folder; else beside you."
        ),
        count_and_seed_options("Results", "result"),
        sampling_options(guidance_scale, steps_option),
        all_of(schedule_option, guidance_options, negative_option, model_options),
        all_of(json_option("result"), overwrite_option),
        gathered("making", Making),
    )


def evaluating_options(guidance_scale: str) -> Decorator:
    """The options of :class:`Evaluating`; the command takes them as one, ``evaluating``."""
    return all_of(
        click.option(
            "--methods", metavar="A,B", help="Filling methods; by default the art's choice."
        ),
        sampling_options(guidance_scale),
        model_options,
        evaluation_options,
        gathered("evaluating", Evaluating),
    )


def json_option(thing: str) -> Decorator:
    """``--json``: a record for each thing that is made."""
    return click.option(
        "--json", "as_json", is_flag=True, help=f"Print a JSON record for each {thing}."
    )


def progress(total: int, unit: str):
    """A progress bar on stderr; its ``write`` prints beside it."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, leave=False, dynamic_ncols=True)


def advance(bar, done: int | None = None) -> None:
    """One further, or to ``done``."""
    bar.update(1 if done is None else done - bar.n)


def refuse_for(things: str, *names: str) -> None:
    """Raise UserError if an option was given on the command line that means nothing for these."""
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "")
        if option.name in names and given is ParameterSource.COMMANDLINE:
            raise UserError(f"{option.opts[0]} is of no use for {things}")


def say(message: str) -> None:
    """A line to the user, on stderr."""
    click.echo(message, err=True)


def show(values: dict[str, Any]) -> None:
    """Names and values in two columns on stdout, safe for a terminal."""
    from shared.provenance import printable

    lines = {}
    for key, value in values.items():
        if value == ():
            continue
        parts = value if isinstance(value, dict) else {"": value}
        lines |= {f"{key} {part}".rstrip(): told for part, told in parts.items()}
    width = max(map(len, lines), default=0)
    for key, value in lines.items():
        told = _joined(value) if isinstance(value, tuple) else str(value)
        click.echo(f"{printable(key):{width}}  {printable(told)}")


def _joined(values: tuple[Any, ...]) -> str:
    """Width and height as 128x96, other numbers as 0, 1."""
    size = len(values) == 2 and all(isinstance(value, int) for value in values)
    return ("x" if size else ", ").join(map(str, values))

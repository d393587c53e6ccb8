"""The commands that make students, as far as they need neither art."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import click

from shared.console import FILE, all_of
from shared.errors import UserError

METHODS = {
    "progressive": "Halve the steps, round after round: one of the student's does what two did.",
    "guided": "Make the guidance scale an input: one network call a step and not two.",
    "consistency": "Learn where denoising ends, from any place on its path: one to four steps.",
    "trajectory": "Follow paths that the teacher has walked once, in few steps: the quickest run.",
}


def distill_group(arts: Mapping[str, str]) -> click.Group:
    """``distill`` with a command for each method.

    Args:
        arts: kind of model -> the module whose ``ART`` (a :class:`shared.distillation.run.Art`) is
            what that art brings; imported when it is needed, for it brings torch.
    """

    @click.group()
    def distill() -> None:
        """Make a student of a model: few steps, or one network call where guidance takes two."""

    options = all_of(
        click.option("--model", required=True, help="Name or folder of the teacher."),
        click.option("--art", type=click.Choice(list(arts)), help="Which builtin model."),
        click.option("--data", type=FILE, required=True, help="Captioned folder (metadata.jsonl)."),
        click.option("--out", type=FILE, required=True, help="Folder of the student."),
        click.option("--config", type=FILE, help="YAML file of the run, not the project's own."),
        click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out."),
    )

    def command(method: str) -> Callable[..., None]:
        def run(
            model: str, art: str | None, data: Path, out: Path, config: Path | None, resume: bool
        ) -> None:
            from shared.models import BUILTIN, find_model

            if model == BUILTIN and art is None:
                raise UserError(f"there is one {BUILTIN!r} of each art; say --art image or music")
            teacher = find_model(model, art)

            from shared.distillation.run import distill

            art_of = import_module(arts[teacher.kind]).ART
            distill(method, config, art_of, teacher.folder, data, out, resume)

        return run

    for method, summary in METHODS.items():
        distill.add_command(click.command(method, help=summary)(options(command(method))))
    return distill

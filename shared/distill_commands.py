"""The commands that make students, as far as they need neither art."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shared.console import FILE, all_of
from shared.errors import UserError

if TYPE_CHECKING:
    from shared.distillation.run import Art

METHODS = {
    "progressive": "Halve the steps, round after round: one of the student's does what two did.",
    "guided": "Make the guidance scale an input: one network call a step and not two.",
    "consistency": "Learn where denoising ends, from any place on its path: one to four steps.",
}


def distill_group(arts: Mapping[str, Callable[[], Art]]) -> click.Group:
    """``distill`` with a command for each method.

    Args:
        arts: kind of model -> what gives what that art brings; only called when it is needed.
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

            distill(method, config, arts[teacher.kind](), teacher.folder, data, out, resume)

        return run

    for method, summary in METHODS.items():
        distill.add_command(click.command(method, help=summary)(options(command(method))))
    return distill

"""The options by which controls are handed to a command; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from audiodiff.inputs.asked import Asked
from shared.console import all_of

_KEY = "audiodiff.control_options"


class MeterType(click.ParamType):
    """ "3/4", or 3, as the number of beats in a bar."""

    name = "beats"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The beats of a bar."""
        beats, slash, unit = str(value).partition("/")
        if not beats.strip().isdigit() or (slash and unit.strip() != "4"):
            self.fail(f"{value!r} is no meter; 3/4 and 4/4 are, or 3 and 4", param, ctx)
        return int(beats)


METER = MeterType()


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    context.meta.setdefault(_KEY, {})[option.name] = value


def _control(name: str, metavar: str, text: str) -> Callable[..., Any]:
    return click.option(name, metavar=metavar, help=text, expose_value=False, callback=_keep)


def _handling(name: str, field: str, metavar: str, text: str) -> Callable[..., Any]:
    return click.option(
        name, field, metavar=metavar, help=text, multiple=True, expose_value=False, callback=_keep
    )


control_options = all_of(
    _control("--melody", "FILE|NOTES", "A tune: MIDI, a voice or instrument, or 'C4:1 E4:2 -:1'."),
    _control("--chords", "CHORDS", "A bar each, or with beats: 'Am F C/E G7', 'Am:2 F:2'."),
    _control("--rhythm", "FILE|STEPS", "Beats and hits: audio, MIDI, or steps 'x...x..x'."),
    _control("--dynamics", "FILE|CURVE", "Loudness: audio, or SECONDS:dB '0:-30 4:-12'."),
    _control("--like", "FILE", "A recording whose sound to take."),
    _control("--brightness", "CURVE", "Spectral centroid: SECONDS:Hz '0:800 6:4000', or one."),
    _control("--stereo-width", "CURVE", "SECONDS:WIDTH, 0 (mono) to 1."),
    _control("--noisiness", "CURVE", "Spectral flatness: SECONDS:SHARE, 0 (tones) to 1 (noise)."),
    _control("--onset-density", "CURVE", "SECONDS:ONSETS, how many sounds begin in a second."),
    _handling("--weight", "weights", "CONTROL=W", "How much it counts: melody=1.5; 1 is plain."),
    _handling("--span", "spans", "CONTROL=FROM:TO", "Seconds in which it counts: melody=2:4."),
    _handling(
        "--control-by",
        "routes",
        "[CONTROL=]ROUTE",
        "channels, gradient or both; by default channels for a melody or chords alone, else both.",
    ),
)


def asked_controls() -> Asked:
    """What the command that runs, which has `control_options`, was asked for."""
    return Asked(**click.get_current_context().meta[_KEY])

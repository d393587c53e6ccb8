"""What a command was asked for, as it was typed, and how each control is to be held."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from audiodiff.inputs import text
from audiodiff.sketch import LOUDEST_WEIGHT, ROUTES, Part
from shared.errors import UserError
from shared.naming import choose

BEST_BY: Mapping[str, str] = {
    "melody": "channels",
    "chords": "channels",
    "rhythm": "channels",
    "dynamics": "both",
    "like": "gradient",
    "brightness": "gradient",
    "stereo_width": "gradient",
    "noisiness": "gradient",
    "onset_density": "gradient",
}
"""Each control's route where none is asked for; what the model has no channel for has only one.

Channels cost nothing. Loudness they hold least, so that gradients help there.
"""
ONLY_GRADIENT = ("like", "brightness", "stereo_width", "noisiness", "onset_density")

AnyPart = TypeVar("AnyPart", bound=Part)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of a command, as they were typed; None where they were not.

    ``weights``, ``spans`` and ``routes`` are NAME=VALUE each, of the control NAME; a route without
    a name is that of all controls.
    """

    melody: str | None = None
    chords: str | None = None
    rhythm: str | None = None
    dynamics: str | None = None
    like: str | None = None
    brightness: str | None = None
    stereo_width: str | None = None
    noisiness: str | None = None
    onset_density: str | None = None
    weights: Sequence[str] = ()
    spans: Sequence[str] = ()
    routes: Sequence[str] = ()


@dataclass(frozen=True)
class Handling:
    """How the controls are to be held, as far as that was said."""

    weights: Mapping[str, float]
    spans: Mapping[str, tuple[float, float]]
    routes: Mapping[str, str]
    route: str | None  # of all that are not in ``routes``

    def hold(self, name: str, part: AnyPart | None) -> AnyPart | None:
        """The part with its weight, span and route."""
        if part is None:
            return None
        general = None if name in ONLY_GRADIENT else self.route
        return replace(
            part,
            weight=self.weights.get(name, 1.0),
            span=self.spans.get(name),
            by=self.routes.get(name) or general or BEST_BY[name],
        )

    def check_given(self, names: Collection[str]) -> None:
        """Raise UserError if something is said of a control that is not given."""
        said = {"--weight": self.weights, "--span": self.spans, "--control-by": self.routes}
        for option, values in said.items():
            for name in values:
                if name not in names:
                    raise UserError(f"{option} is about {option_of(name)}, which is not given")


def handling(asked: Asked) -> Handling:
    """Read ``weights``, ``spans`` and ``routes``.

    Raises:
        UserError: one that cannot be read, of no control, or a route that a control has not.
    """
    weights, spans = {}, {}
    for entry in asked.weights:
        name, value = _pair(entry, "--weight", "melody=0.5")
        weights[name] = _weight(name, value)
    for entry in asked.spans:
        name, value = _pair(entry, "--span", "melody=2:4")
        spans[name] = text.read_span(value, f"--span {name}")
    routes, route = {}, None
    for entry in asked.routes:
        if "=" not in entry:
            route = _route(entry)
            continue
        name, value = _pair(entry, "--control-by", "melody=gradient")
        routes[name] = _route(value)
        if name in ONLY_GRADIENT and routes[name] != "gradient":
            raise UserError(f"the model has no channel for {name}; it is held by gradient only")
    return Handling(weights, spans, routes, route)


def option_of(name: str) -> str:
    """The option that gives a control: "stereo_width" -> "--stereo-width"."""
    return "--" + name.replace("_", "-")


def _weight(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= LOUDEST_WEIGHT:
        raise UserError(f"--weight {name}={value}: expected a number from 0 to {LOUDEST_WEIGHT:g}")
    return number


def _route(name: str) -> str:
    return choose("route of --control-by", name, {route: route for route in ROUTES})


def _pair(entry: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not equals:
        raise UserError(f"{option} {entry!r}: expected CONTROL=VALUE, such as {example}")
    known = {control: control for control in BEST_BY}
    return choose(f"control of {option}", name.replace("-", "_"), known), value

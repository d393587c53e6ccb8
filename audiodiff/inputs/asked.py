"""What a command was asked for, as it was typed, and how each control is to be held."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from audiodiff.inputs import text
from audiodiff.sketch import LOUDEST_WEIGHT, ROUTES, Part
from shared.errors import UserError
from shared.naming import choose

IN_CHANNELS = ("melody", "chords", "rhythm", "dynamics")
ONLY_GRADIENT = ("like", "brightness", "stereo_width", "noisiness", "onset_density")
"""Controls that the model has channels for, and those that it has none for."""

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
    several: bool  # controls are given that the model has channels for

    def hold(self, name: str, part: AnyPart | None) -> AnyPart | None:
        """The part with its weight, span and route."""
        if part is None:
            return None
        if name in ONLY_GRADIENT:
            route = "gradient"
        else:
            route = self.routes.get(name) or self.route or best_route(name, self.several)
        weight, span = self.weights.get(name, 1.0), self.spans.get(name)
        return replace(part, weight=weight, span=span, by=route)

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
    several = sum(getattr(asked, name) is not None for name in IN_CHANNELS) > 1
    return Handling(weights, spans, routes, route, several)


def best_route(name: str, several: bool) -> str:
    """The route of a control that the model has a channel for, where none is asked for.

    Measured, see docs/controls.md: channels hold a melody or chords by themselves, and cost less
    time and less of the style; several at once, loudness, bars and strokes need gradients as well.
    """
    return "both" if several or name in ("dynamics", "rhythm") else "channels"


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
    known = {control: control for control in (*IN_CHANNELS, *ONLY_GRADIENT)}
    return choose(f"control of {option}", name.replace("-", "_"), known), value

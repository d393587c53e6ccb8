"""All styles that can be composed, by name."""

from audiodiff.instruments import INSTRUMENTS, RANGES
from audiodiff.style import Style
from audiodiff.styles_acoustic import ACOUSTIC
from audiodiff.styles_electronic import ELECTRONIC

__all__ = ["INSTRUMENTS", "RANGES", "STYLES", "Style"]

STYLES: dict[str, Style] = ELECTRONIC | ACOUSTIC

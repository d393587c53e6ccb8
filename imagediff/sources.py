"""What the pictures that something was made of are said to show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagediff.picture_file import Picture


def prompt_of(picture: Picture) -> str:
    """What the picture's file says that it was made of; nothing if it does not."""
    from imagediff.png import PARAMETERS, RECORD
    from shared.provenance import parse_parameters

    try:
        prompt = json.loads(picture.text.get(RECORD, "{}")).get("prompt")
    except (ValueError, AttributeError, RecursionError):
        prompt = None
    if isinstance(prompt, str):
        return prompt
    return parse_parameters(picture.text.get(PARAMETERS, ""))["Prompt"]

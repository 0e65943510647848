"""JSON in which every number is finite, and in words why something else cannot be read."""

import json
from typing import Any, NoReturn

import orjson

UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError)
"""What reading JSON of another shape raises."""


def strict_json(content: bytes | str) -> Any:
    """Read JSON. Raises ValueError for anything else, NaN and infinity included."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:  # the slower reader has the better words for what is wrong
        text = content if isinstance(content, str) else content.decode()
        return json.loads(text, parse_constant=_refuse_constant)


def why_unreadable(error: Exception) -> str:
    """Return in words why a file could not be read."""
    if isinstance(error, KeyError):
        return f"lacks {error.args[0]!r}"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON ({error})"
    return str(error) or type(error).__name__


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")

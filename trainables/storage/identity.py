"""Identities: the hash of everything that made a result, and seeds drawn from it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> str:
    """Write plain values as JSON in one way only.

    Raises TypeError for anything but dict, list, tuple, str, int, float, bool and None: the text
    of other objects may change from run to run, so it identifies nothing.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Hash an identity to 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]


def seed_from(*parts: str | int) -> int:
    """Draw a seed (63 bits) from the parts of an identity."""
    text = ":".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    # 1.0 and 1 are one number, so they are one identity.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(
        f"{value!r} has no stable text; use numbers, text, lists and dicts in identities"
    )

"""What a record's notes say of the certificates of its model, read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NORM = "l2"
"""The only norm that certificates are measured in: radii of two norms are never compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificationNotes:
    """What was proven of each point. N points."""

    radii: tuple[float, ...]
    """(N,) certified L2 radius in pixel units; 0 where nothing is proven."""
    right: tuple[bool, ...]
    """(N,) whether the certified class is the true one."""
    failure_probability: float | None
    """Highest probability that the certificate of one image is wrong; None where the model
    does not certify."""


def certification_notes(notes: Mapping[str, Any]) -> CertificationNotes | None:
    """Read the notes of a record; None where certificates were not measured.

    Where they have another shape, it raises as for any bad JSON.
    """
    plain = notes.get("certification")
    if plain is None:
        return None
    radii, right = plain["radii"], plain["right"]
    if not isinstance(radii, list) or not isinstance(right, list) or len(radii) != len(right):
        raise ValueError("its notes hold no radius and no verdict for each certified point")
    if not all(isinstance(each, bool) for each in right):
        raise ValueError("its notes say of a certified class neither that it is right nor wrong")
    numbers = tuple(float(radius) for radius in radii)
    if not all(math.isfinite(radius) and radius >= 0 for radius in numbers):
        raise ValueError("its notes hold a certified radius that is negative or not finite")
    if plain["norm"] != NORM:
        raise ValueError(f"its notes hold radii in the norm {plain['norm']!r}; known: {NORM}")
    failure = plain.get("failure_probability")
    return CertificationNotes(
        radii=numbers,
        right=tuple(right),
        failure_probability=None if failure is None else float(failure),
    )

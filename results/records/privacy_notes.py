"""What a record's notes say of the privacy of its model's training rows, read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How often the strongest membership attack assigned which score. B bins."""

    edges: tuple[float, ...]
    """(B + 1,) rising; the outer bins hold what lies beyond them too."""
    members: tuple[int, ...]
    """(B,)"""
    non_members: tuple[int, ...]
    """(B,)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyNotes:
    """What accompanies the privacy metrics; None where it was not measured."""

    attack: str | None = None
    """The membership attack of the largest area."""
    turned_round: bool = False
    """Whether its scores are turned round, since its area is below 0.5."""
    scores: Scores | None = None
    """That attack's."""
    shadows: int | None = None
    """Shadow models that membership attacks had."""
    dp_delta: float | None = None
    """The delta at which dp_epsilon is counted."""


def privacy_notes(notes: Mapping[str, Any]) -> PrivacyNotes:
    """Read the notes of a record; where they have another shape, raise as for any bad JSON."""
    plain = notes.get("membership") or {}
    scores = plain.get("scores")
    shadows = plain.get("shadows")
    delta = (notes.get("clean") or {}).get("dp_delta")
    return PrivacyNotes(
        attack=str(plain["attack"]) if plain.get("attack") else None,
        turned_round=bool(plain.get("turned_round", False)),
        scores=None if scores is None else _scores(scores),
        shadows=None if shadows is None else int(shadows["models"]),
        dp_delta=None if delta is None else float(delta),
    )


def _scores(plain: Mapping[str, Any]) -> Scores:
    edges = tuple(float(edge) for edge in plain["edges"])
    counts = [tuple(int(count) for count in plain[side]) for side in ("members", "non_members")]
    if any(len(side) != len(edges) - 1 for side in counts):
        raise ValueError("its notes hold no count of membership scores for each bin")
    if not all(map(math.isfinite, edges)) or list(edges) != sorted(edges):
        raise ValueError("its notes hold bins of membership scores that do not rise")
    if any(not any(side) or min(side) < 0 for side in counts):
        raise ValueError("its notes hold membership scores of no member or of no non-member")
    return Scores(edges=edges, members=counts[0], non_members=counts[1])

"""What a record's notes say of the poisoned set that its twin was trained on, read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreHistogram:
    """How many rows of the target class a filter assigned which score. B bins."""

    scorer: str
    """Name of the defense."""
    edges: tuple[float, ...]
    """(B + 1,) from low to high."""
    clean: tuple[int, ...]
    """(B,)"""
    poisoned: tuple[int, ...]
    """(B,)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisoningNotes:
    """A poisoned training set and what filters saw of it."""

    poisoned_rows: int
    training_rows: int
    target_share: float
    """Share of the target class' rows that are poisoned."""
    histograms: tuple[ScoreHistogram, ...]


def poisoning_notes(notes: Mapping[str, Any]) -> PoisoningNotes | None:
    """Read the notes of a record; None where nothing was poisoned.

    Where they have another shape, it raises as for any bad JSON.
    """
    plain = notes.get("backdoor")
    if plain is None:
        return None
    return PoisoningNotes(
        poisoned_rows=int(plain["poisoned_rows"]),
        training_rows=int(plain["training_rows"]),
        target_share=float(plain["share_of_target_class"]),
        histograms=tuple(_histogram(name, row) for name, row in plain["row_scores"].items()),
    )


def _histogram(scorer: str, row: Mapping[str, Any]) -> ScoreHistogram:
    edges = tuple(float(edge) for edge in row["edges"])
    clean, poisoned = (tuple(int(count) for count in row[kind]) for kind in ("clean", "poisoned"))
    if not len(edges) - 1 == len(clean) == len(poisoned) > 0:
        raise ValueError(f"its notes hold no count for each bin of the scores of {scorer}")
    if list(edges) != sorted(edges) or not all(math.isfinite(edge) for edge in edges):
        raise ValueError(f"its notes hold bins of the scores of {scorer} that do not rise")
    return ScoreHistogram(scorer=scorer, edges=edges, clean=clean, poisoned=poisoned)

"""What a record's notes say of the poisoned set that its twin was trained on, read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.records.record import metric_from_plain, metric_to_plain
from trainables.records.value import Measured


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
class AttackNotes:
    """One of several backdoor attacks."""

    name: str
    success: Measured
    """Mean over its pairs."""
    pairs: tuple[tuple[str, Measured], ...]
    """Pair, as `7 to 1`, and its success."""

    def text(self) -> str:
        """Write it on one line, such as `blend .52 (7 to 1: .90, 3 to 8: .14)`."""
        pairs = ", ".join(f"{pair}: {success.value:.2f}" for pair, success in self.pairs)
        return f"{self.name} {self.success.value:.2f} ({pairs})"

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "attack": self.name,
            "success": metric_to_plain(self.success),
            "pairs": {pair: metric_to_plain(success) for pair, success in self.pairs},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisoningNotes:
    """A poisoned training set and what filters saw of it."""

    poisoned_rows: int
    training_rows: int
    target_share: float
    """Share of the target class' rows that are poisoned."""
    histograms: tuple[ScoreHistogram, ...]
    attacks: tuple[AttackNotes, ...] = ()
    """Where several were measured, the worst first."""
    adaptive: bool | None = None
    """Whether poison that is made against each filter and repair was measured; None where one
    attack alone was."""
    not_adaptive_because: tuple[str, ...] = ()


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
        attacks=tuple(_attack(row) for row in plain.get("attacks", ())),
        adaptive=plain.get("adaptive"),
        not_adaptive_because=tuple(str(why) for why in plain.get("not_adaptive_because", ())),
    )


def _attack(row: Mapping[str, Any]) -> AttackNotes:
    return AttackNotes(
        name=str(row["attack"]),
        success=_measured(row["success"]),
        pairs=tuple((_pair(each), _measured(each["success"])) for each in row["pairs"]),
    )


def _pair(row: Mapping[str, Any]) -> str:
    return f"{'all' if row['source'] is None else row['source']} to {row['target']}"


def _measured(row: Mapping[str, Any]) -> Measured:
    found = metric_from_plain(row)
    if not isinstance(found, Measured):
        raise ValueError("its notes hold a backdoor without a success")
    return found


def _histogram(scorer: str, row: Mapping[str, Any]) -> ScoreHistogram:
    edges = tuple(float(edge) for edge in row["edges"])
    clean, poisoned = (tuple(int(count) for count in row[kind]) for kind in ("clean", "poisoned"))
    if not len(edges) - 1 == len(clean) == len(poisoned) > 0:
        raise ValueError(f"its notes hold no count for each bin of the scores of {scorer}")
    if list(edges) != sorted(edges) or not all(math.isfinite(edge) for edge in edges):
        raise ValueError(f"its notes hold bins of the scores of {scorer} that do not rise")
    return ScoreHistogram(scorer=scorer, edges=edges, clean=clean, poisoned=poisoned)

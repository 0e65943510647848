"""A bundle measured again, against its card: where a figure falls short, and where it holds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from results.bundle.errors import BundleError
from results.statistics.intervals import difference, side
from trainables.records.record import metric_to_plain
from trainables.records.value import Measured

Verdict = Literal["holds", "falls short", "not on the card"]
COMPARED = re.compile(
    r"^(clean_accuracy|robust_accuracy|robust_accuracy_l2|certified_accuracy(_at_[\d.]+)?"
    r"|average_certified_radius|undetected_success_rate|clean_rejection_rate)$"
)
"""What a card promises of the model itself; costs are of a machine."""
PROMISED = ("clean_accuracy", "robust_accuracy")
"""What every card says: one that does not was cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of the card and the same measured now."""

    metric: str
    card: Measured | None
    now: Measured
    verdict: Verdict

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "metric": self.metric,
            "card": None if self.card is None else metric_to_plain(self.card),
            "now": metric_to_plain(self.now),
            "verdict": self.verdict,
        }


def compare(
    card: Mapping[str, Any], now: Mapping[str, Measured], worse: Mapping[str, bool]
) -> tuple[Row, ...]:
    """Compare what is measured now with the card's figures of this very model.

    `worse` says of each metric whether more is worse. A figure falls short where the interval of
    the difference lies wholly on the bad side of 0: intervals that overlap do not prove that
    it holds, nor two that just touch that it does not.
    """
    measured = _figures(card)
    rows = []
    for name, value in now.items():
        if COMPARED.match(name):
            old = measured.get(name)
            verdict = _judge(old, value, worse[name])
            rows.append(Row(metric=name, card=old, now=value, verdict=verdict))
    return tuple(rows)


def falls_short(rows: Sequence[Row]) -> bool:
    """Return whether any figure falls short of the card, or the card does not say what all say."""
    return any(
        row.verdict == "falls short" or (row.card is None and row.metric in PROMISED)
        for row in rows
    )


def _figures(card: Mapping[str, Any]) -> dict[str, Measured]:
    """Read the model's own figures; BundleError where the card is of another form."""
    try:
        return {
            name: Measured(
                float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"])
            )
            for name, row in card["measured"]["metrics"].items()
            if COMPARED.match(name)
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise BundleError(f"its card is of another format ({detail}); export it again") from None


def _judge(card: Measured | None, now: Measured, more_is_worse: bool) -> Verdict:
    if card is None:
        return "not on the card"
    order = side(difference(now, card), 0.0)
    return "falls short" if order == ("higher" if more_is_worse else "lower") else "holds"

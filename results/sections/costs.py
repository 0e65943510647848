"""What each defense costs and what it promises: the table of costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from results.audit.audit import Audited
from results.records.record import Record
from results.records.run import Run
from results.statistics.fronts import Front
from trainables.records.value import Measured

COSTS = (
    "training_seconds",
    "latency_ms_p50",
    "latency_ms_p95",
    "forward_passes_per_prediction",
    "peak_memory_mib",
)
_NO_GUARANTEE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One row: a trial of the search, or an audited candidate with its audited figures."""

    trial: str
    label: str
    undefended: bool
    guarantee: str
    """In words: `certified by pixeldp`, `empirical` or `none`."""
    audited: bool
    values: Mapping[str, Measured]


def costs(run: Run, front: Front, candidates: Sequence[Audited]) -> tuple[Cost, ...]:
    """Return the audited candidates, the undefended, each defense alone and the front's members.

    One that was audited is shown by its audited figures alone.
    """
    rows = [
        Cost(
            trial=candidate.trial,
            label=candidate.label,
            undefended=candidate.undefended,
            guarantee=guarantee(run, candidate.records[0]),
            audited=True,
            values=_known(candidate.values),
        )
        for candidate in candidates
        if candidate.records
    ]
    seen = {row.trial for row in rows}
    for record in (*_singles(run), *front.members):
        if record.trial not in seen:
            seen.add(record.trial)
            rows.append(_searched(run, record))
    return tuple(row for row in rows if row.values)


def plain_cost(cost: Cost) -> dict[str, Any]:
    """Return a row as plain JSON values."""
    return {
        "trial": cost.trial,
        "defense": cost.label,
        "guarantee": cost.guarantee,
        "audited": cost.audited,
        "metrics": {name: asdict(value) for name, value in cost.values.items()},
    }


def guarantee(run: Run, record: Record) -> str:
    """Return what a stack promises: what proves something is named."""
    kinds = {
        str(defense["name"]): str(
            run.manifest.get("defenses", {}).get(defense["name"], {}).get("guarantee", "")
        )
        for defense in record.stack
    }
    proving = [name for name, kind in kinds.items() if kind == "certified"]
    if proving:
        return f"certified by {' and '.join(proving)}"
    return "empirical" if "empirical" in kinds.values() else _NO_GUARANTEE


def _searched(run: Run, record: Record) -> Cost:
    values = {name: value for name in COSTS if (value := record.value(name)) is not None}
    return Cost(
        trial=record.trial,
        label=record.label,
        undefended=not record.stack,
        guarantee=guarantee(run, record),
        audited=False,
        values=values,
    )


def _singles(run: Run) -> list[Record]:
    """Return the first trial of each spec with at most one defense, seeds aside."""
    found: dict[str, Record] = {}
    for record in run.usable:
        if len(record.stack) <= 1:
            found.setdefault(record.without_seed(), record)
    return sorted(found.values(), key=lambda record: len(record.stack))


def _known(values: Mapping[str, Measured]) -> dict[str, Measured]:
    return {name: values[name] for name in COSTS if name in values}

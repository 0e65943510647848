"""How far a run is, in numbers: for the `status` command and the live table."""

from __future__ import annotations

from dataclasses import dataclass

from results.records.record import Objective, Record
from results.records.run import Run
from results.statistics.fronts import fronts
from trainables.records.value import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many trials ended how; each record is counted once, except the struck off, also done."""

    asked: int
    done: int
    """Completed and not stale."""
    struck_off: int
    """Of these, how many may be on no front: masking is suspected, or no attack was adaptive."""
    failed: int
    stopped: int
    stale: int
    """Completed, but a stage has another version now."""
    corrupt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BestValue:
    """The best value of one objective and whose it is."""

    metric: str
    direction: str
    value: Measured
    label: str
    trial: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Counts, the best of each objective, and the front over all of them."""

    run: str
    counts: Counts
    best: tuple[BestValue, ...]
    front_size: int
    hypervolume: float | None
    """None where an objective has no worst value."""


def counts(run: Run) -> Counts:
    """Count the records of a run by how they ended."""
    statuses = [record.status for record in run.records]
    return Counts(
        asked=int(run.manifest["trials"]),
        done=len(run.usable),
        struck_off=len(run.struck_off),
        failed=statuses.count("failed"),
        stopped=statuses.count("stopped"),
        stale=sum(record.status == "completed" and record.stale for record in run.records),
        corrupt=len(run.corrupt),
    )


def best_record(run: Run, objective: Objective) -> tuple[Record, Measured] | None:
    """Return the eligible trial with the best value; the earliest of ties, None where none has."""
    rows = [(r, value) for r in run.eligible if (value := r.value(objective.metric)) is not None]
    sign = -1.0 if objective.maximized else 1.0
    return min(rows, key=lambda row: sign * row[1].value) if rows else None


def summary(run: Run) -> Summary:
    """Sum a run up; with several data sets the front is that of the first."""
    overall = fronts(run)[0]
    best = []
    for objective in run.objectives:
        found = best_record(run, objective)
        if found is not None:
            record, value = found
            best.append(
                BestValue(
                    metric=objective.metric,
                    direction=objective.direction,
                    value=value,
                    label=record.label,
                    trial=record.trial,
                )
            )
    return Summary(
        run=run.name,
        counts=counts(run),
        best=tuple(best),
        front_size=len(overall.members),
        hypervolume=overall.hypervolume,
    )

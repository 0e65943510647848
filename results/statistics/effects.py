"""What a defense changes: differences to the undefended trial of the same scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from results.records.record import Objective, Record, setting_text
from results.records.run import Run
from results.statistics.intervals import HIGHER, LOWER, difference, pool, side, two_way
from results.statistics.outcomes import outcome_matrix
from trainables.records.value import Measured

STRUCK_OFF = "struck off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One objective of a defended trial compared with the undefended one."""

    metric: str
    defended: Measured
    undefended: Measured
    difference: Measured
    """Defended minus undefended."""
    verdict: str
    """better, worse, cannot be told, or struck off: it looks better, but cannot be trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one defense alone changes."""

    record: Record
    """The first of the seeds."""
    seeds: int
    changes: tuple[Change, ...]
    is_struck_off: bool = False
    """Whether one of the seeds is struck off."""


def bounds(run: Run, metric: str) -> tuple[float, float] | None:
    """Return the range in which a metric lies by its nature, from the manifest; None where open."""
    base = metric if metric in run.manifest["metrics"] else metric.rpartition("_at_")[0]
    declared = run.manifest["metrics"].get(base, {})
    if declared.get("unit") != "fraction":
        return None
    return (-1.0, 1.0) if "difference" in declared.get("interval", "") else (0.0, 1.0)


def pooled(run: Run, records: Sequence[Record], metric: str) -> Measured | None:
    """Return the mean of a metric over the seeds that measured it; None where none did.

    Its interval is two-way: from the outcomes of each point where the records hold them, and else
    from the seeds' own intervals.
    """
    measured = [record for record in records if record.value(metric) is not None]
    outcomes_KN = outcome_matrix(measured, metric)
    if outcomes_KN is not None and len(measured) > 1:
        return two_way(outcomes_KN)
    values = [value for record in measured if (value := record.value(metric)) is not None]
    return pool(values, bounds(run, metric)) if values else None


def undefended(run: Run, like: Record) -> tuple[Record, ...]:
    """Return the usable undefended trials of the same data, model, training and effort."""
    return run.undefended.get(like.scenario(), ())


def change(
    run: Run, objective: Objective, defended: Sequence[Record], plain: Sequence[Record]
) -> Change | None:
    """Return what changes from the plain trials to the defended ones; None where not measured."""
    after, before = (pooled(run, records, objective.metric) for records in (defended, plain))
    if after is None or before is None:
        return None
    return changed(objective, after, before)


def changed(
    objective: Objective, after: Measured, before: Measured, moved: Measured | None = None
) -> Change:
    """Return what changes from `before`, undefended, to `after`, defended.

    `moved` is their difference where more is known of it than of two independent values.
    """
    moved = difference(after, before) if moved is None else moved
    return Change(
        metric=objective.metric,
        defended=after,
        undefended=before,
        difference=moved,
        verdict=_verdict(moved, objective),
    )


def defense_effects(run: Run) -> tuple[Effect, ...]:
    """Return one effect per single-defense spec on the run's objectives, by the defense's label."""
    return effects_over(run, run.objectives)


def effects_over(run: Run, objectives: Sequence[Objective]) -> tuple[Effect, ...]:
    """Return one effect per single-defense spec, its seeds pooled, by the defense's label."""
    specs: dict[str, list[Record]] = {}
    for record in run.usable:
        if len(record.stack) == 1:
            specs.setdefault(record.without_seed(), []).append(record)
    effects = []
    for records in specs.values():
        plain = undefended(run, records[0])
        changes = [change(run, objective, records, plain) for objective in objectives]
        known = tuple(single for single in changes if single is not None)
        struck = any(record.why_struck_off for record in records)
        if struck:
            known = tuple(map(disbelieved, known))
        if known:
            effects.append(
                Effect(record=records[0], seeds=len(records), changes=known, is_struck_off=struck)
            )
    return tuple(sorted(effects, key=_order))


def disbelieved(change: Change) -> Change:
    """Return a change of a trial whose figures are not to be believed: no gain is one."""
    return replace(change, verdict=STRUCK_OFF) if change.verdict == "better" else change


def _order(effect: Effect) -> tuple[str, list[tuple[bool, float, str]], str]:
    """Order effects by the defense's name, then by its settings, numbers by size."""
    defense = effect.record.stack[0]
    settings = [value for setting, value in defense.items() if setting != "name"]
    numbers = [isinstance(value, int | float) for value in settings]
    keys = [
        (not number, value if number else 0.0, setting_text(value))
        for number, value in zip(numbers, settings, strict=True)
    ]
    return str(defense["name"]), keys, effect.record.trial


def _verdict(moved: Measured, objective: Objective) -> str:
    order = side(moved, 0.0)
    if order not in (HIGHER, LOWER):
        return str(order)
    return "better" if (order == HIGHER) == objective.maximized else "worse"

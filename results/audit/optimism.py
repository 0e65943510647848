"""How the search flattered what it chose: its validation screen against the test audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results.audit.audit import Audited, audited
from results.records.record import Objective
from results.records.run import Run
from results.statistics.intervals import difference
from trainables.records.value import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One metric of one candidate: what the search saw and what the audit found."""

    candidate: Audited
    search: Measured
    audit: Measured
    optimism: Measured
    """By how much the search's figure is the better one; negative where the audit's is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimism:
    """One objective over all candidates that search and audit measured."""

    objective: Objective
    gaps: tuple[Gap, ...]
    """Gaps of the chosen candidates, in the manifest's order."""
    undefended: tuple[Gap, ...]
    """Gaps of the undefended models, which nobody chose: due to other points and attacks."""
    mean: Measured | None
    """Mean optimism of the chosen candidates; None where there is none. They share their points and
    so err together: its half-widths are the means of theirs."""


def optimism(run: Run) -> tuple[Optimism, ...]:
    """Return the optimism of the search in each objective; nothing where nothing was audited.

    The two figures are of other points, other trainings and other attacks, so that their intervals
    are joined as those of independent values.
    """
    candidates = audited(run)
    if not candidates:
        return ()
    return tuple(_of(objective, candidates) for objective in run.objectives)


def _of(objective: Objective, candidates: Sequence[Audited]) -> Optimism:
    gaps = [gap for each in candidates if (gap := _gap(objective, each)) is not None]
    chosen = tuple(gap for gap in gaps if not gap.candidate.undefended)
    return Optimism(
        objective=objective,
        gaps=chosen,
        undefended=tuple(gap for gap in gaps if gap.candidate.undefended),
        mean=_mean([gap.optimism for gap in chosen]),
    )


def _gap(objective: Objective, candidate: Audited) -> Gap | None:
    search = candidate.search.value(objective.metric) if candidate.search else None
    audit = candidate.values.get(objective.metric)
    if search is None or audit is None:
        return None
    better = difference(search, audit) if objective.maximized else difference(audit, search)
    return Gap(candidate=candidate, search=search, audit=audit, optimism=better)


def _mean(values: Sequence[Measured]) -> Measured | None:
    if not values:
        return None
    value, low, high = (
        sum(getattr(each, end) for each in values) / len(values) for end in ("value", "low", "high")
    )
    return Measured(value, low, high, min(each.n for each in values))

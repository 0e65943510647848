"""Which audited defense to deploy: what is required and wanted, held against intervals.

Axes: N candidates, D goals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.audit.audit import VERIFIED, Audited, audited
from results.choosing.requirements import Goal, Requirement
from results.errors import ResultsError
from results.records.run import Run
from results.statistics.fronts import front
from results.statistics.knee import marginal_utilities

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """How many verified candidates a requirement excludes, whatever the others exclude."""

    requirement: Requirement
    count: int
    unmeasured: int
    """Of these, how many have no value of the metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A requirement that a candidate does not meet."""

    requirement: Requirement
    shortfall: float | None
    """In units of the metric; None where it was not measured."""
    reason: str = ""
    """Why it was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestMiss:
    """The verified candidate that misses the requirements by least."""

    candidate: Audited
    misses: tuple[Miss, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A verified undefended model: what the picks are compared with."""

    candidate: Audited
    misses: tuple[Miss, ...]
    """None of them: it meets the requirements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What fits, the best first, and what keeps the others out."""

    requirements: tuple[Requirement, ...]
    goals: tuple[Goal, ...]
    optimistic: bool
    picks: tuple[Audited, ...]
    """The verified candidates that meet everything and may be picked, ranked."""
    references: tuple[Reference, ...]
    """The verified undefended models, where they may not be picked."""
    verified: tuple[Audited, ...]
    """With the undefended ones."""
    unverified: tuple[Audited, ...]
    """Audited, but not verified: never recommended."""
    searched: int
    """Usable trials of the search that nobody audited: never recommended."""
    excluded: tuple[Excluded, ...]
    nearest: NearestMiss | None
    """None where something fits, or nothing that may be picked is verified."""
    knee: Audited | None
    """A suggestion where nothing is asked; None where something is, or nothing is verified."""

    @property
    def chosen(self) -> Audited | None:
        """The suggestion where nothing is asked, or else the first pick; None where none fits."""
        return self.knee or (self.picks[0] if self.picks else None)

    @property
    def only_undefended(self) -> bool:
        """Whether nothing fits except an undefended model that may not be picked."""
        return not self.picks and any(not each.misses for each in self.references)


def known_metrics(run: Run) -> tuple[str, ...]:
    """Return the metrics that may be named: measured in the audit, then those only declared."""
    measured = sorted({name for each in audited(run) for name in each.values})
    objectives = [objective.metric for objective in run.objectives]
    further = sorted({name for record in run.records for name in record.metrics})
    return tuple(dict.fromkeys((*objectives, *measured, *run.manifest["metrics"], *further)))


def default_goals(run: Run) -> tuple[Goal, ...]:
    """Return the run's objectives as goals."""
    return tuple(Goal(metric=each.metric, maximized=each.maximized) for each in run.objectives)


def select(
    run: Run,
    requirements: Sequence[Requirement] = (),
    goals: Sequence[Goal] = (),
    optimistic: bool = False,
    allow_undefended: bool = False,
) -> Selection:
    """Rank the verified candidates that meet every requirement.

    The undefended model is what a defense is compared with, and no answer to the question which one
    to deploy: it is picked and suggested only where that is allowed.

    The pessimistic end of each interval counts, for requirements and goals, or the optimistic one.
    Ranked are first those that no other pick beats in every goal, then those that only the former
    beat, and so on; among these by the first goal. Without goals the run's objectives are the
    goals. A candidate without a value of a required metric is excluded, and one without a value of
    a goal is worse in it than all that have one. ResultsError where a metric is to be both large
    and small.
    """
    wanted = tuple(goals) or default_goals(run)
    _refuse_contradictions(wanted)
    candidates = audited(run)
    verified = tuple(each for each in candidates if each.verdict == VERIFIED)
    able = [each for each in verified if allow_undefended or not each.undefended]
    fitting = [each for each in able if not misses(each, requirements, optimistic)]
    seen = {each.trial for each in candidates}
    return Selection(
        requirements=tuple(requirements),
        goals=wanted,
        optimistic=optimistic,
        picks=ranked(fitting, wanted, optimistic),
        references=tuple(
            Reference(candidate=each, misses=misses(each, requirements, optimistic))
            for each in verified
            if each.undefended and not allow_undefended
        ),
        verified=verified,
        unverified=tuple(each for each in candidates if each.verdict != VERIFIED),
        searched=sum(record.trial not in seen for record in run.usable),
        excluded=tuple(_excluded(each, verified, optimistic) for each in requirements),
        nearest=None if fitting else nearest_miss(able, requirements, optimistic),
        knee=None if requirements or goals else knee(able, wanted, optimistic),
    )


def misses(
    candidate: Audited, requirements: Sequence[Requirement], optimistic: bool = False
) -> tuple[Miss, ...]:
    """Return the requirements that a candidate does not meet."""
    found = []
    for requirement in requirements:
        value = candidate.values.get(requirement.metric)
        if value is None:
            reason = candidate.missing.get(requirement.metric, "its audit did not measure it")
            found.append(Miss(requirement=requirement, shortfall=None, reason=reason))
        elif not requirement.met(value, optimistic):
            shortfall = requirement.shortfall(value, optimistic)
            found.append(Miss(requirement=requirement, shortfall=shortfall))
    return tuple(found)


def ranked(
    candidates: Sequence[Audited], goals: Sequence[Goal], optimistic: bool = False
) -> tuple[Audited, ...]:
    """Order candidates: non-dominated first, then by the first goal; ties keep their order."""
    losses_ND = _losses(candidates, goals, optimistic)
    layer_N = np.zeros(len(candidates), dtype=int)
    left = np.arange(len(candidates))
    while len(left) > 0:
        layer_N[left] += 1
        left = left[~front(losses_ND[left])]
    order = sorted(range(len(candidates)), key=lambda i: (layer_N[i], tuple(losses_ND[i])))
    return tuple(candidates[place] for place in order)


def nearest_miss(
    candidates: Sequence[Audited], requirements: Sequence[Requirement], optimistic: bool = False
) -> NearestMiss | None:
    """Return the candidate whose worst shortfall is least; None where there is no candidate.

    A shortfall counts in shares as it is, and of a metric whose threshold is above 1, such as
    milliseconds, as a share of the threshold; what was not measured counts as farthest.
    """
    found = [
        NearestMiss(candidate=each, misses=missed)
        for each in candidates
        if (missed := misses(each, requirements, optimistic))
    ]
    return min(found, key=lambda miss: (_worst(miss), len(miss.misses))) if found else None


def knee(
    candidates: Sequence[Audited], goals: Sequence[Goal], optimistic: bool = False
) -> Audited | None:
    """Suggest one of the front of candidates that have every goal: see `marginal_utilities`."""
    whole = [each for each in candidates if all(goal.metric in each.values for goal in goals)]
    if not whole:
        return None
    return whole[int(marginal_utilities(_losses(whole, goals, optimistic)).argmax())]


def _losses(candidates: Sequence[Audited], goals: Sequence[Goal], optimistic: bool) -> Floats:
    """Return the goals (N, D) as losses; worse than all others where a candidate has no value."""
    columns = [_column(candidates, goal, optimistic) for goal in goals]
    return np.array(columns, dtype=np.float64).reshape(len(goals), len(candidates)).T


def _column(candidates: Sequence[Audited], goal: Goal, optimistic: bool) -> list[float]:
    values = [each.values.get(goal.metric) for each in candidates]
    known = [goal.loss(value, optimistic) for value in values if value is not None]
    # Finite: what finds the front misjudges rows that hold an infinity.
    none = max(known, default=0.0) + 1.0
    return [none if value is None else goal.loss(value, optimistic) for value in values]


def _excluded(
    requirement: Requirement, candidates: Sequence[Audited], optimistic: bool
) -> Excluded:
    missed = [miss for each in candidates for miss in misses(each, [requirement], optimistic)]
    unmeasured = sum(miss.shortfall is None for miss in missed)
    return Excluded(requirement=requirement, count=len(missed), unmeasured=unmeasured)


def _worst(miss: NearestMiss) -> float:
    return max(
        math.inf
        if each.shortfall is None
        else each.shortfall / max(1.0, abs(each.requirement.threshold))
        for each in miss.misses
    )


def _refuse_contradictions(goals: Sequence[Goal]) -> None:
    seen: dict[str, bool] = {}
    for goal in goals:
        if seen.setdefault(goal.metric, goal.maximized) != goal.maximized:
            raise ResultsError(
                f"{goal.metric} is to be both maximized and minimized; name it in one of the two"
            )

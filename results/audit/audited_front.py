"""The front of the audited candidates, and how surely each is on it.

Axes: N candidates, D objectives, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.audit.audit import VERIFIED, Audited, audited
from results.records.record import Objective
from results.records.run import Run
from results.statistics.fronts import front, front_shares, split_normal, to_losses
from results.statistics.outcomes import outcome_matrix
from results.statistics.paired import resampled_means

Floats = NDArray[np.float64]
DRAWS = 1000
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedFront:
    """The verified candidates that no other verified one beats, by their means over seeds."""

    objectives: tuple[Objective, ...]
    candidates: tuple[Audited, ...]
    """N verified candidates that have every objective."""
    on_front: tuple[bool, ...]
    """(N,)"""
    shares: tuple[float, ...]
    """(N,) share of draws in which each is on the front."""
    paired: tuple[str, ...]
    """Objectives whose points were resampled, the same ones for all candidates; the others are
    drawn from the candidates' own intervals."""
    one_training: tuple[str, ...] = ()
    """Objectives that no candidate has from two trainings, so that their variance is assumed."""
    draws: int = DRAWS


def audited_front(run: Run) -> AuditedFront:
    """Return the front over the run's objectives among the verified candidates.

    A share is of draws in which the points, the same for all candidates, and the seeds vary: see
    `resampled_means`. Objectives that were measured on the same points share the draw of them;
    others, such as an attack on fewer points, are drawn apart. An objective without outcomes of
    points is drawn for each candidate on its own from its interval, which errs towards doubt. Of
    several data sets the first counts.
    """
    objectives = run.objectives
    whole = [
        each
        for each in audited(run)
        if each.verdict == VERIFIED and all(o.metric in each.values for o in objectives)
    ]
    whole = [each for each in whole if each.data == whole[0].data]
    maximized = [objective.maximized for objective in objectives]
    values = [[each.values[o.metric].value for o in objectives] for each in whole]
    values_ND = np.array(values, dtype=np.float64).reshape(len(whole), len(objectives))
    drawn = {each.metric: _drawn(whole, each.metric) for each in objectives}
    shares = np.zeros(0)
    if whole:
        drawn_RND = np.stack([rows_RN for rows_RN, _ in drawn.values()], axis=-1)
        shares = front_shares(to_losses(drawn_RND, maximized))
    return AuditedFront(
        objectives=objectives,
        candidates=tuple(whole),
        on_front=tuple(bool(on) for on in front(to_losses(values_ND, maximized))),
        shares=tuple(float(share) for share in shares),
        paired=tuple(metric for metric, (_, paired) in drawn.items() if paired),
        one_training=tuple(
            o.metric for o in objectives if whole and max(_seeds(each, o) for each in whole) < 2
        ),
    )


def _seeds(candidate: Audited, objective: Objective) -> int:
    return candidate.seeds.get(objective.metric, len(candidate.records))


def _drawn(candidates: Sequence[Audited], metric: str) -> tuple[Floats, bool]:
    """Draw a metric (R, N) of all candidates, and say whether on the same points."""
    rows = [outcome_matrix(each.records, metric) for each in candidates]
    known = [row for row in rows if row is not None]
    everyone = [record for each in candidates for record in each.records]
    if len(known) == len(rows) > 0 and outcome_matrix(everyone, metric) is not None:
        return resampled_means(known, draws=DRAWS, seed=_SEED, metric=metric), True
    ends = [each.values[metric] for each in candidates]
    generator = np.random.default_rng([_SEED, *metric.encode()])
    value_RN, low_RN, high_RN = (
        np.broadcast_to([getattr(end, name) for end in ends], (DRAWS, len(ends)))
        for name in ("value", "low", "high")
    )
    return split_normal(value_RN, low_RN, high_RN, generator), False

"""Pareto fronts and hypervolumes of losses: less is better. N trials, D objectives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import moocore
import numpy as np
from numpy.typing import NDArray

from results.records.record import Objective, Record
from results.records.run import Run
from results.statistics.intervals import Z

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CLEAN = "clean_accuracy"
_DRAWS, _FEWEST_DRAWS = 400, 100
_MOST_DRAWN = 1_000_000
"""Draws times trials: beyond it a report would take longer than the 100 draws are worth."""
_SEED = 0
_STRUCK_OFF = "struck off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The trials that no other trial beats."""

    key: str
    """`all`, or the metric that is set against clean accuracy."""
    title: str
    objectives: tuple[Objective, ...]
    records: tuple[Record, ...]
    """N trials that were compared, in order of finishing."""
    on_front: tuple[bool, ...]
    """(N,)"""
    struck_off: tuple[Record, ...]
    """Trials that would have been compared, were their robust accuracy to be believed."""
    left_out: Mapping[str, int]
    """Why a trial was not compared -> how many."""
    hypervolumes: tuple[float, ...] | None
    """(N,) after each finished trial; None where an objective has no worst value."""

    @property
    def overall(self) -> bool:
        """Whether it is over all objectives of the run."""
        return self.key == "all" or self.key.startswith("all_")

    @property
    def members(self) -> tuple[Record, ...]:
        """The trials on the front."""
        return tuple(r for r, on in zip(self.records, self.on_front, strict=True) if on)

    @property
    def reference(self) -> tuple[float, ...] | None:
        """The point that hypervolumes reach to: each objective's worst value; None without one."""
        return _worst_point(self.objectives)

    @property
    def hypervolume(self) -> float | None:
        """The hypervolume of all trials; 0 of none."""
        if self.hypervolumes is None:
            return None
        return self.hypervolumes[-1] if self.hypervolumes else 0.0


def to_losses(values: Floats, maximized: Sequence[bool]) -> Floats:
    """Turn values (..., D) into losses; the only place where signs are flipped."""
    return np.where(np.asarray(maximized, dtype=bool), -values, values)


def front(losses: Floats) -> Mask:
    """Mark which of (N, D) losses no other row beats; ties stay. NaN and infinity raise."""
    _refuse_endless(losses)
    if len(losses) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(losses, keep_weakly=True), dtype=bool)


def hypervolume(losses: Floats, reference: Floats) -> float:
    """Return the volume between (N, D) losses and the reference point (D,).

    NaN and infinity raise.
    """
    _refuse_endless(losses)
    if len(losses) == 0:
        return 0.0
    return float(moocore.hypervolume(losses, reference))


def hypervolume_history(losses: Floats, reference: Floats) -> Floats:
    """Return the hypervolume (N,) after each of (N, D) losses, in their order.

    NaN and infinity raise.
    """
    _refuse_endless(losses)
    history = np.zeros(len(losses))
    best, volume = losses[:0], 0.0
    for place, loss in enumerate(losses):
        if not (best <= loss).all(axis=1).any():
            best = np.concatenate([best[~(loss <= best).all(axis=1)], loss[None]])
            volume = max(volume, hypervolume(best, reference))
        history[place] = volume
    return history


def front_membership(losses: Floats, below: Floats, above: Floats) -> Floats:
    """Return the share (N,) of draws in which each trial is on the front.

    Each loss is drawn on its own from a split normal around `losses` (N, D) whose 95 % interval
    reaches `below` and `above` (N, D). Trials that share their points move together; that is left
    out, so the shares err towards doubt.
    """
    if len(losses) == 0:
        return np.zeros(0)
    generator = np.random.default_rng(_SEED)
    drawn = (split_normal(losses, below, above, generator) for _ in range(draws_of(len(losses))))
    return front_shares(drawn)


def front_shares(drawn: Iterable[Floats]) -> Floats:
    """Return the share (N,) of draws of losses (N, D), one at least, with each point on the
    front.
    """
    fronts_RN = np.array([front(losses) for losses in drawn])
    shares: Floats = fronts_RN.mean(axis=0)
    return shares


def split_normal(
    values: Floats, below: Floats, above: Floats, generator: np.random.Generator
) -> Floats:
    """Draw around each value from a normal whose 95 % interval reaches from `below` to `above`."""
    noise = generator.standard_normal(values.shape)
    return values + noise * np.where(noise < 0, values - below, above - values) / Z


def draws_of(trials: int) -> int:
    """Return the number of draws behind a share: 400, or of many trials as few as 100."""
    return max(_FEWEST_DRAWS, min(_DRAWS, _MOST_DRAWN // max(1, trials)))


def membership(found: Front) -> dict[str, float]:
    """Return trial -> share of draws from the intervals in which it is on the front."""
    maximized = [objective.maximized for objective in found.objectives]
    losses_ND = to_losses(_array(found.records, found.objectives, "value"), maximized)
    low_ND = to_losses(_array(found.records, found.objectives, "low"), maximized)
    high_ND = to_losses(_array(found.records, found.objectives, "high"), maximized)
    shares = front_membership(losses_ND, np.minimum(low_ND, high_ND), np.maximum(low_ND, high_ND))
    trials = [record.trial for record in found.records]
    return {trial: float(share) for trial, share in zip(trials, shares, strict=True)}


def fronts(run: Run) -> tuple[Front, ...]:
    """Return the front over all objectives, and one per other objective against clean accuracy.

    Trials of different data sets or efforts are never compared: each gets its own fronts. A trial
    that is struck off (`Record.why_struck_off`) is compared on none.
    """
    groups = {_group(record): None for record in run.usable} or {("", ""): None}
    choices: list[tuple[str, tuple[Objective, ...]]] = [("all", run.objectives)]
    clean = [objective for objective in run.objectives if objective.metric == CLEAN]
    others = [objective for objective in run.objectives if objective.metric != CLEAN]
    if clean:
        choices += [(other.metric, (clean[0], other)) for other in others]
    found = []
    for group in groups:
        suffix = "" if len(groups) == 1 else "_" + "_".join(group).replace("/", "_")
        for key, objectives in choices:
            found.append(_front(run, key + suffix, objectives, group))
    return tuple(found)


def _front(run: Run, key: str, objectives: tuple[Objective, ...], group: tuple[str, str]) -> Front:
    reasons = {record.trial: _why_left_out(record, objectives, group) for record in run.records}
    records = tuple(record for record in run.records if reasons[record.trial] is None)
    left_out = Counter(reason for reason in reasons.values() if reason is not None)
    if run.corrupt:
        left_out["record cannot be read"] = len(run.corrupt)
    maximized = [objective.maximized for objective in objectives]
    losses_ND = to_losses(_array(records, objectives, "value"), maximized)
    worst = _worst_point(objectives)
    volumes: tuple[float, ...] | None = None
    if worst is not None:
        reference = to_losses(np.array(worst, dtype=np.float64), maximized)
        volumes = tuple(float(volume) for volume in hypervolume_history(losses_ND, reference))
    return Front(
        key=key,
        title=_title(objectives),
        objectives=objectives,
        records=records,
        on_front=tuple(bool(on) for on in front(losses_ND)),
        struck_off=tuple(record for record in run.records if reasons[record.trial] == _STRUCK_OFF),
        left_out=dict(left_out),
        hypervolumes=volumes,
    )


def _worst_point(objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    worst = tuple(each.worst for each in objectives if each.worst is not None)
    return worst if len(worst) == len(objectives) else None


def _why_left_out(
    record: Record, objectives: Sequence[Objective], group: tuple[str, str]
) -> str | None:
    if record.status != "completed":
        return record.status
    if record.stale:
        return "stale"
    missing = [each.metric for each in objectives if record.value(each.metric) is None]
    if missing:
        return f"{' and '.join(missing)} missing"
    if group != ("", "") and _group(record) != group:
        return "another data set or effort"
    return _STRUCK_OFF if record.why_struck_off else None


def _array(
    records: Sequence[Record], objectives: Sequence[Objective], end: Literal["value", "low", "high"]
) -> Floats:
    """Return the objectives (N, D) of records that have them all, or one end of their intervals."""
    found = np.empty((len(records), len(objectives)))
    for place, each in enumerate(objectives):
        values = [record.own.metrics[each.metric] for record in records]
        found[:, place] = list(map(attrgetter(end), values))
    return found


def _group(record: Record) -> tuple[str, str]:
    data = record.spec.get("data") or {}
    return str(data.get("name", "")), str(record.spec.get("effort", ""))


def _title(objectives: Sequence[Objective]) -> str:
    names = [objective.metric for objective in objectives]
    return " against ".join(reversed(names)) if len(names) == 2 else ", ".join(names)


def _refuse_endless(losses: Floats) -> None:
    # moocore treats any row that holds an infinity or NaN as beaten, or as unbeaten.
    rows = int((~np.isfinite(losses)).any(axis=-1).sum()) if losses.size else 0
    if rows:
        raise ValueError(
            f"{rows} of {len(losses)} trials have an objective that is NaN or infinite; leave them "
            "out"
        )

"""How each defense moves every threat: the matrix of side effects against the undefended model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from results.audit.audit import SUSPECTED, Audited
from results.records.record import Objective
from results.records.run import Run
from results.statistics.effects import Change, Effect, changed, disbelieved, effects_over
from results.statistics.paired import compare

HEADLINES = (
    ("clean images", "clean_accuracy"),
    ("evasion", "robust_accuracy"),
    ("evasion in L2", "robust_accuracy_l2"),
    ("certification", "average_certified_radius"),
    ("detection", "undetected_success_rate"),
    ("backdoor", "backdoor_success_rate"),
    ("membership", "membership_auc"),
    ("membership, few false alarms", "tpr_at_fpr_0_01"),
    ("inversion", "inversion_accuracy"),
    ("calibration", "ece"),
    ("cost", "latency_ms_p50"),
)
"""(threat, the metric that stands for it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One threat of the matrix."""

    threat: str
    objective: Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedRow:
    """How an audited candidate differs from the undefended model, on the same test points."""

    audited: Audited
    changes: Mapping[str, Change]
    """By metric; one that was not measured of both is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Defenses by threats."""

    columns: tuple[Column, ...]
    singles: tuple[tuple[Effect, Mapping[str, Change]], ...]
    """Each defense alone, by the search's figures, with its changes by metric."""
    audited: tuple[AuditedRow, ...]


def matrix(run: Run, candidates: Sequence[Audited]) -> Matrix | None:
    """Return the matrix over the threats that were measured; None where no difference is known."""
    columns = _columns(run)
    effects = effects_over(run, [column.objective for column in columns])
    singles = tuple((effect, _by_metric(effect.changes)) for effect in effects)
    rows = _audited_rows(candidates, [column.objective for column in columns])
    known = {name for _, changes in singles for name in changes}
    known |= {name for row in rows for name in row.changes}
    columns = [column for column in columns if column.objective.metric in known]
    if not columns:
        return None
    return Matrix(columns=tuple(columns), singles=singles, audited=rows)


def _columns(run: Run) -> list[Column]:
    """Return the headline of each threat, then the objectives that are none."""
    declared = run.manifest["metrics"]
    named = [(threat, metric) for threat, metric in HEADLINES if metric in declared]
    known = {metric for _, metric in named}
    named += [("objective", o.metric) for o in run.objectives if o.metric not in known]
    objectives = {objective.metric: objective for objective in run.objectives}
    return [
        Column(
            threat=threat,
            objective=objectives.get(metric)
            or Objective(metric=metric, direction=declared[metric]["direction"], worst=None),
        )
        for threat, metric in named
    ]


def _audited_rows(
    candidates: Sequence[Audited], objectives: Sequence[Objective]
) -> tuple[AuditedRow, ...]:
    rows = []
    for candidate in candidates:
        plain = _undefended(candidates, candidate)
        if candidate.undefended or plain is None or not candidate.records:
            continue
        changes = [
            changed(
                objective,
                candidate.values[objective.metric],
                plain.values[objective.metric],
                found.difference,
            )
            for objective in objectives
            if (found := compare(candidate, plain, objective.metric)) is not None
        ]
        if candidate.verdict == SUSPECTED:
            changes = [disbelieved(change) for change in changes]
        rows.append(AuditedRow(audited=candidate, changes=_by_metric(changes)))
    return tuple(rows)


def _undefended(candidates: Sequence[Audited], like: Audited) -> Audited | None:
    """Return the audited undefended model of the same scenario."""
    if not like.records:
        return None
    scenario = like.records[0].scenario()
    for candidate in candidates:
        plain = candidate.undefended and candidate.records
        if plain and candidate.records[0].scenario() == scenario:
            return candidate
    return None


def _by_metric(changes: Sequence[Change]) -> dict[str, Change]:
    return {change.metric: change for change in changes}


def plain_matrix(found: Matrix | None) -> dict[str, object] | None:
    """Return the matrix as plain JSON values: every difference with its interval and verdict."""
    if found is None:
        return None
    return {
        "columns": [
            {"threat": column.threat, "metric": column.objective.metric}
            for column in found.columns
        ],
        "alone": [
            {"trial": effect.record.trial, "defense": effect.record.label,
             "struck_off": effect.is_struck_off, "changes": _plain_changes(changes)}
            for effect, changes in found.singles
        ],
        "audited": [
            {"trial": row.audited.trial, "defense": row.audited.label,
             "verdict": row.audited.verdict, "changes": _plain_changes(row.changes)}
            for row in found.audited
        ],
    }  # fmt: skip


def _plain_changes(changes: Mapping[str, Change]) -> dict[str, object]:
    return {
        metric: {
            "difference": change.difference.value,
            "low": change.difference.low,
            "high": change.difference.high,
            "n": change.difference.n,
            "verdict": change.verdict,
        }
        for metric, change in changes.items()
    }

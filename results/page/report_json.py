"""The content of a report as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from results.audit.audited_front import AuditedFront
from results.audit.comparisons import plain_pairs
from results.audit.optimism import Optimism
from results.choosing.recommendation import plain_recommendation
from results.page.content import Content
from results.records.record import Record
from results.sections.certificates import plain_certificates
from results.sections.costs import plain_cost
from results.sections.findings import standard_radius
from results.sections.matrix import plain_matrix
from results.sections.poisoning import plain_poisoning
from results.sections.privacy import plain_privacy
from results.sections.reproduction import PublishedTable
from results.sections.robustness import DETECTION, RobustnessCurve
from results.statistics.fronts import Front
from trainables.records.record import metric_to_plain

FORMAT = 1


def plain(content: Content) -> dict[str, Any]:
    """Return the content as plain JSON values."""
    run = content.run
    return (
        {
            "format": FORMAT,
            "run": run.name,
            "command": run.manifest.get("command"),
            "data": run.manifest.get("data_title"),
            "standard_radius": standard_radius(run),
            "counts": asdict(content.counts),
            "warning": content.warning,
            "findings": content.findings,
            "fronts": [
                _plain_front(front, content.shares[front.key], content.probable(front))
                for front in content.fronts
            ],
            "hypervolume": content.fronts[0].hypervolume,
            "best": [
                {
                    "metric": best.objective.metric,
                    "direction": best.objective.direction,
                    "trial": best.record.trial,
                    "defense": best.record.label,
                    "value": metric_to_plain(best.value),
                    "change": asdict(best.change) if best.change else None,
                    "costs": [asdict(cost) for cost in best.costs],
                }
                for best in content.best
            ],
            "defense_effects": [
                {
                    "trial": effect.record.trial,
                    "defense": effect.record.label,
                    "seeds": effect.seeds,
                    "changes": [asdict(change) for change in effect.changes],
                }
                for effect in content.effects
            ],
            "matrix": plain_matrix(content.matrix),
            "audited_front": _plain_audited_front(content.audited_front),
            "optimism": [_plain_optimism(each) for each in content.optimism],
            "pairs": plain_pairs(content.pairs),
            "costs": [plain_cost(cost) for cost in content.costs],
            "failures": [
                {"trial": record.trial, "defense": record.label, "error": record.error}
                for record in run.records
                if record.status == "failed"
            ],
            "corrupt": [{"file": file, "reason": reason} for file, reason in run.corrupt],
            "published": _plain_published(content.published),
            "certificates": plain_certificates(content.certificates, content.certifying),
            "privacy": plain_privacy(content.telling),
            "poisoning": plain_poisoning(content.poisoned),
        }
        | plain_recommendation(content.recommendation)
        | _plain_attacks(content)
    )


def _plain_audited_front(found: AuditedFront | None) -> dict[str, Any] | None:
    if found is None:
        return None
    rows = zip(found.candidates, found.on_front, found.shares, strict=True)
    return {
        "draws": found.draws,
        "paired": list(found.paired),
        "one_training": list(found.one_training),
        "candidates": [
            {"trial": each.trial, "defense": each.label, "on_front": on, "share": share}
            for each, on, share in rows
        ],
    }


def _plain_optimism(found: Optimism) -> dict[str, Any]:
    return {
        "metric": found.objective.metric,
        "mean": asdict(found.mean) if found.mean else None,
        "candidates": [
            {
                "trial": gap.candidate.trial,
                "defense": gap.candidate.label,
                "search": asdict(gap.search),
                "audit": asdict(gap.audit),
                "optimism": asdict(gap.optimism),
            }
            for gap in (*found.gaps, *found.undefended)
        ],
    }


def _plain_front(
    front: Front, shares: dict[str, float], probable: Sequence[Record]
) -> dict[str, Any]:
    return {
        "key": front.key,
        "objectives": [asdict(objective) for objective in front.objectives],
        "compared": len(front.records),
        "left_out": dict(front.left_out),
        "hypervolume": front.hypervolume,
        "hypervolume_reference": None if front.reference is None else list(front.reference),
        "members": [
            {"trial": member.trial, "defense": member.label, "share": shares[member.trial]}
            for member in front.members
        ],
        "probable": [record.trial for record in probable],
    }


def _plain_attacks(content: Content) -> dict[str, Any]:
    """Return who is struck off, and how robust the shown trials are."""
    curves = content.robustness.curves if content.robustness else ()
    return {
        "struck_off": [
            {
                "trial": record.trial,
                "defense": record.label,
                "masking": record.masking,
                "adaptive": record.evasion.adaptive,
                "not_adaptive_because": list(record.evasion.not_adaptive_because),
            }
            for record in content.run.struck_off
        ],
        "robustness": [_plain_curve(curve) for curve in curves],
        "broken_by": [
            {"trial": record.trial, "points": dict(record.evasion.broken_by)}
            for record in (content.broken.rows if content.broken else ())
        ],
        "detection": [
            {"trial": record.trial, "defense": record.label} | _plain_detection(record)
            for record in content.rejecting
        ],
    }


def _plain_curve(curve: RobustnessCurve) -> dict[str, Any]:
    return {
        "trial": curve.record.trial,
        "defense": curve.record.label,
        "points": [
            {"multiple": multiple, **metric_to_plain(value)} for multiple, value in curve.points
        ],
        "unbounded": metric_to_plain(curve.unbounded) if curve.unbounded else None,
    }


def _plain_detection(record: Record) -> dict[str, Any]:
    values = {name: record.value(name) for name in DETECTION}
    return {name: metric_to_plain(value) if value else None for name, value in values.items()}


def _plain_published(table: PublishedTable | None) -> dict[str, Any] | None:
    if table is None:
        return None
    cells = [{**asdict(cell), "within": cell.within} for cell in table.cells]
    return {**asdict(table), "cells": cells, "agreement": table.agreement}

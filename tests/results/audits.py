"""Builds audited runs by hand: a search and, in its folder `audit`, the audit of its candidates."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from tests.results.run_folders import (
    ATTACK_METRICS,
    OBJECTIVES,
    Json,
    declared,
    evasion_notes,
    fgsm,
    manifest,
    record,
    share,
    temperature,
    write_run,
)

POINTS = 270
SEEDS = (1000, 1001, 1002)
AUDIT_METRICS = ATTACK_METRICS | {
    "backdoor_success_rate": declared("Share of triggered images sent astray.", "minimize", 1.0),
    "latency_ms_p95": declared("Time of a prediction.", "minimize") | {"unit": "ms"},
    "forward_passes_per_prediction": declared("Forward passes.", "minimize") | {"unit": "passes"},
    "certified_accuracy": declared("Share with a certificate.", "maximize", 0.0),
    "robust_accuracy_l2": declared("Share that stays right in L2.", "maximize", 0.0),
}
AUDIT_OBJECTIVES = [
    *OBJECTIVES,
    {"metric": "backdoor_success_rate", "direction": "minimize", "worst": 1.0},
]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One audited candidate: what the search said of it, and what its audit found."""

    trial: str
    stack: list[Json]
    search: dict[str, float]
    audit: dict[str, float]
    why: str = "front"
    masking: str = ""
    failed_seeds: int = 0
    adaptive: bool = True
    changes: Json = field(default_factory=dict)
    """What the records of its audit have otherwise."""


def exact(value: float) -> Json:
    """Return a count as a metric."""
    return {"value": value, "low": value, "high": value, "n": 1}


def audit_notes(scores: dict[str, float], place: int, masking: str, adaptive: bool) -> Json:
    """Return an audit record's notes, with outcomes whose shares are the scores to one point.

    A point that is hard for one model is hard for the others too; who is robust is right.
    """
    shared, own = random.Random(0), random.Random(place + 1)
    hardness = [shared.gauss(0, 1) + 0.5 * own.gauss(0, 1) for _ in range(POINTS)]
    order = sorted(range(POINTS), key=hardness.__getitem__)
    because = [] if adaptive else ["the detector gives no reject_margin"]
    notes = evasion_notes(masking, adaptive=adaptive, not_adaptive_because=because)
    outcomes: Json = {"points": POINTS}
    for metric in ("clean_accuracy", "robust_accuracy"):
        right = set(order[: round(scores[metric] * POINTS)])
        outcomes[metric] = "".join("1" if point in right else "0" for point in range(POINTS))
    return notes | {"outcomes": outcomes}


def audit_records(candidate: Candidate, place: int) -> list[Json]:
    """Return the records of a candidate's audit, a seed each; the last ones fail where asked."""
    rows = []
    for number, seed in enumerate(SEEDS):
        trial = f"audit{place}seed{number}"
        spec = {"effort": "audit"}
        if number >= len(SEEDS) - candidate.failed_seeds:
            rows.append(record(trial, candidate.stack, spec=spec, seed=seed, metrics={},
                               status="failed", error="out of memory"))  # fmt: skip
            continue
        shift = 0.01 * (number - 1)
        scores = {name: min(1.0, max(0.0, v + shift)) for name, v in candidate.audit.items()}
        for metric in ("clean_accuracy", "robust_accuracy"):
            scores[metric] = round(scores[metric] * POINTS) / POINTS
        metrics: dict[str, Any] = {name: share(value, POINTS) for name, value in scores.items()}
        metrics["masking_suspected"] = exact(float(bool(candidate.masking)))
        metrics["forward_passes_per_prediction"] = exact(1.0)
        if number == 0:
            metrics["latency_ms_p95"] = {"value": 2.5, "low": 2.4, "high": 2.7, "n": 100}
        notes = audit_notes(scores, place * len(SEEDS) + number, candidate.masking,
                            candidate.adaptive)  # fmt: skip
        changes = {"notes": notes, "finished": f"2026-01-01T12:{place:02d}:{number:02d}+00:00"}
        rows.append(record(trial, candidate.stack, spec=spec, seed=seed, metrics=metrics,
                           **changes | candidate.changes))  # fmt: skip
    return rows


def write_audited(folder: Path, candidates: Sequence[Candidate], **changes: Any) -> Path:
    """Write a run, and in it the audit of its candidates; `changes` are of both manifests."""
    shared = {"metrics": AUDIT_METRICS, "objectives": AUDIT_OBJECTIVES} | changes
    searched = [
        record(c.trial, c.stack, metrics=c.search, notes=evasion_notes(),
               finished=f"2026-01-01T10:{place:02d}:00+00:00")
        for place, c in enumerate(candidates)
    ]  # fmt: skip
    write_run(folder, manifest(**shared), searched)
    audits = [audit_records(candidate, place) for place, candidate in enumerate(candidates)]
    plan = {
        "search_run": folder.name, "seeds": list(SEEDS), "effort": "audit",
        "candidates": [
            {"search_trial": c.trial, "why": c.why, "trials": [row["trial"] for row in rows]}
            for c, rows in zip(candidates, audits, strict=True)
        ],
    }  # fmt: skip
    write_run(folder / "audit", manifest(**shared, audit=plan), list(chain(*audits)))
    return folder


def scores(clean: float, robust: float, auc: float, backdoor: float) -> dict[str, float]:
    """Name the four objectives."""
    return {"clean_accuracy": clean, "robust_accuracy": robust, "membership_auc": auc,
            "backdoor_success_rate": backdoor}  # fmt: skip


def demo_candidates() -> list[Candidate]:
    """Return six candidates: undefended, three verified, a masked one that led the search, and one
    of which a seed failed."""
    smoothed = [fgsm(0.06), {"name": "label_smoothing", "alpha": 0.1}]
    return [
        Candidate(trial="plain000", stack=[], search=scores(0.97, 0.20, 0.62, 0.95),
                  audit=scores(0.96, 0.16, 0.62, 0.95), why="undefended"),
        Candidate(trial="mild0000", stack=[fgsm(0.06)], search=scores(0.95, 0.55, 0.60, 0.60),
                  audit=scores(0.94, 0.50, 0.60, 0.62)),
        Candidate(trial="smooth00", stack=smoothed, search=scores(0.94, 0.58, 0.56, 0.03),
                  audit=scores(0.935, 0.52, 0.57, 0.04), why="touches the front"),
        Candidate(trial="strong00", stack=[fgsm(0.2)], search=scores(0.85, 0.75, 0.55, 0.40),
                  audit=scores(0.84, 0.71, 0.56, 0.42)),
        Candidate(trial="masked00", stack=[temperature(5.0)], search=scores(0.97, 0.93, 0.52, 0.03),
                  audit=scores(0.96, 0.92, 0.53, 0.03),
                  masking="a score-only search breaks points that gradients do not: 0.21 of 270"),
        Candidate(trial="partial0", stack=[{"name": "label_smoothing", "alpha": 0.2}],
                  search=scores(0.96, 0.3, 0.54, 0.02), audit=scores(0.95, 0.28, 0.54, 0.02),
                  failed_seeds=1),
    ]  # fmt: skip


def write_demo_audit(folder: Path) -> Path:
    """Write the audited run of `demo_candidates`."""
    return write_audited(folder, demo_candidates())

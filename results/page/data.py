"""What the page's own code works on: trials and audited candidates as one JSON object."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from results.audit.audit import Audited
from results.page.figure_infos import pareto_info
from results.records.record import Record
from results.records.run import Run
from results.sections.costs import COSTS
from results.sections.matrix import HEADLINES
from results.statistics.fronts import Front
from trainables.records.value import Measured

MOST_TRIALS = 2_000
"""With more trials the page takes the front, the audited, the best, and a sample of the others."""
MOST_CELLS = 60_000
"""Trials times metrics: of more, the metrics that come last are left out."""
_DIGITS = 5
_SEED = 0


def page_data(
    run: Run,
    fronts: Sequence[Front],
    shares: dict[str, dict[str, float]],
    candidates: Sequence[Audited],
    best: Sequence[Record],
    knee: str | None,
) -> dict[str, Any]:
    """Return what the page filters and draws; numbers of the search with five digits."""
    kept = _thinned(run, fronts, candidates, best)
    measured = _measured(kept)
    names = _offered(run, kept, candidates)
    return {
        "objectives": [
            {"metric": each.metric, "maximized": each.maximized} for each in run.objectives
        ],
        "maximized": {name: _maximized(run, name) for name in names},
        "planes": _planes(run, fronts),
        "of": len(run.usable),
        "trials": _trials(kept, fronts, shares, candidates),
        "values": {name: _column(kept, name) for name in names if name in measured},
        "candidates": [_candidate(each) for each in candidates],
        "knee": knee,
    }


def script_text(data: dict[str, Any]) -> str:
    """Write JSON that may stand in a script tag: nothing in it can end the tag or comment it out.

    Source: the HTML standard, section 4.12.1.3.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def _thinned(
    run: Run, fronts: Sequence[Front], candidates: Sequence[Audited], best: Sequence[Record]
) -> list[Record]:
    """Choose the trials that the page knows of, in the order in which they finished."""
    if len(run.usable) <= MOST_TRIALS:
        return list(run.usable)
    chosen = {record.trial for record in run.usable if not record.stack}
    chosen |= {candidate.trial for candidate in candidates} | {record.trial for record in best}
    for front in fronts:
        if len(chosen) < MOST_TRIALS:
            chosen |= {member.trial for member in front.members}
    others = [record.trial for record in run.usable if record.trial not in chosen]
    room = max(0, MOST_TRIALS - len(chosen))
    chosen |= set(random.Random(_SEED).sample(others, min(room, len(others))))
    return [record for record in run.usable if record.trial in chosen]


def _measured(kept: Sequence[Record]) -> set[str]:
    return {name for record in kept for name in record.measured}


def _offered(run: Run, kept: Sequence[Record], candidates: Sequence[Audited]) -> list[str]:
    """Return the metrics that may be required: the objectives first, then headlines and costs."""
    audited = [name for candidate in candidates for name in candidate.values]
    measured = _measured(kept) | set(audited)
    first = [each.metric for each in run.objectives]
    first += [metric for _, metric in HEADLINES]
    order = dict.fromkeys([*first, *COSTS, *run.metric_names(), *sorted(audited)])
    names = [n for n in order if n in measured and _direction(run, n) in ("minimize", "maximize")]
    room = MOST_CELLS // max(1, len(kept))
    return names[: max(room, len(run.objectives))]


def _direction(run: Run, metric: str) -> str:
    declared = run.manifest["metrics"]
    base = metric if metric in declared else metric.rpartition("_at_")[0]
    known = {each.metric: each.direction for each in run.objectives}
    return known.get(metric) or str(declared.get(base, {}).get("direction", "none"))


def _maximized(run: Run, metric: str) -> bool:
    return _direction(run, metric) == "maximize"


def _planes(run: Run, fronts: Sequence[Front]) -> list[dict[str, Any]]:
    """Return a plane per front of two objectives; where there is none, that of the first two."""
    planes: list[dict[str, Any]] = []
    group = 0
    for place, front in enumerate(fronts):
        group = place if front.overall else group
        info = None if front.overall else pareto_info(front)
        if info is not None:
            x, y = (each.metric for each in front.objectives)
            frame = {"x": info.frame.x, "y": info.frame.y} if info.frame else None
            planes.append({"title": front.title, "x": x, "y": y, "group": group, "frame": frame})
    if not planes and len(run.objectives) > 1 and run.usable:
        x, y = (each.metric for each in run.objectives[:2])
        planes = [{"title": f"{y} against {x}", "x": x, "y": y, "group": 0, "frame": None}]
    return planes


def _trials(
    kept: Sequence[Record],
    fronts: Sequence[Front],
    shares: dict[str, dict[str, float]],
    candidates: Sequence[Audited],
) -> list[dict[str, Any]]:
    """Describe each trial; what does not hold of one is left out."""
    audited = {candidate.trial: candidate for candidate in candidates}
    groups = {r.trial: group for group, front in enumerate(fronts) for r in _compared(front)}
    members = {member.trial for front in fronts if front.overall for member in front.members}
    share = {
        trial: value
        for front in fronts
        if front.overall
        for trial, value in shares[front.key].items()
    }
    rows = []
    for record in kept:
        candidate = audited.get(record.trial)
        row = {
            "id": record.trial,
            "label": record.label if record.stack else "undefended",
            "seed": record.spec.get("seed"),
            "undefended": not record.stack,
            "struck": record.why_struck_off,
            "verdict": candidate.verdict if candidate else "unverified",
            "because": candidate.because if candidate else "",
            "front": record.trial in members,
            "share": share.get(record.trial),
            "group": groups.get(record.trial),
        }
        rows.append({k: v for k, v in row.items() if v is not False and v is not None and v != ""})
    return rows


def _candidate(candidate: Audited) -> dict[str, Any]:
    """Return an audited candidate with its figures in full: the page selects by them."""
    return {
        "id": candidate.trial,
        "label": candidate.label,
        "verdict": candidate.verdict,
        "because": candidate.because,
        "undefended": candidate.undefended,
        "seeds": len(candidate.records),
        "values": {
            name: [value.value, value.low, value.high, value.n]
            for name, value in candidate.values.items()
        },
    }


def _compared(front: Front) -> tuple[Record, ...]:
    return (*front.records, *front.struck_off) if front.overall else ()


def _column(kept: Sequence[Record], metric: str) -> list[list[float] | None]:
    return [_rounded(record.value(metric)) for record in kept]


def _rounded(value: Measured | None) -> list[float] | None:
    if value is None:
        return None
    ends = (value.value, value.low, value.high)
    return [*(float(f"{number:.{_DIGITS}g}") for number in ends), value.n]

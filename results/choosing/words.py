"""A selection in words and as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from results.audit.audit import Audited
from results.choosing.merging import Group
from results.choosing.selection import NearestMiss, Selection
from results.records.values import counted, number_text, value_text

KNEE = (
    "the knee of the front: the largest loss if removed, averaged over all weightings of the "
    "goals, scaled to the front's span (Branke et al., 2004)"
)


def measured_text(candidate: Audited, metric: str) -> str:
    """Write a metric of a candidate with its interval, points and seeds, or why it has none."""
    value = candidate.values.get(metric)
    if value is None:
        return f"not measured: {candidate.missing.get(metric, 'its audit did not measure it')}"
    seeds = counted(candidate.seeds.get(metric, 1), "seed")
    return f"{value_text(value)} (n = {value.n:,}, {seeds})"


def requirement_sentences(selection: Selection) -> list[str]:
    """Write how many of the verified candidates each requirement excludes."""
    end = "optimistic" if selection.optimistic else "pessimistic"
    total = counted(len(selection.verified), "verified candidate")
    sentences = []
    for excluded in selection.excluded:
        unmeasured = f" ({excluded.unmeasured} without a value)" if excluded.unmeasured else ""
        sentences.append(
            f"{excluded.requirement.text()} excludes {excluded.count} of {total}{unmeasured}, by "
            f"the {end} end of each 95 % interval."
        )
    return sentences


def only_undefended_sentence(selection: Selection) -> str:
    """Write that nothing fits except the undefended model."""
    what = "meets the requirements" if selection.requirements else "is verified"
    return f"Only the undefended model {what}, and it is the reference that no run recommends."


def nearest_sentence(nearest: NearestMiss, optimistic: bool) -> str:
    """Write what misses the requirements by least, and by how much in which metric."""
    parts = []
    for miss in nearest.misses:
        metric, text = miss.requirement.metric, miss.requirement.text()
        if miss.shortfall is None:
            parts.append(f"{text}: not measured ({miss.reason})")
            continue
        value = nearest.candidate.values[metric]
        end = number_text(miss.requirement.end(value, optimistic))
        parts.append(
            f"{text} by {number_text(miss.shortfall)} ({metric} is {value_text(value)}, of which "
            f"{end} counts)"
        )
    return f"The nearest miss is {nearest.candidate.name}, which misses {'; '.join(parts)}."


def not_recommended_sentences(selection: Selection) -> list[str]:
    """Write what is never recommended, and why."""
    sentences = [
        f"Not recommended: {each.name} ({each.verdict}): {each.because}."
        for each in selection.unverified
    ]
    if selection.searched:
        sentences.append(
            f"Not recommended: {counted(selection.searched, 'trial')} of the search that no audit "
            "has verified."
        )
    return sentences


def plain_selection(selection: Selection, groups: Iterable[Group[Audited]]) -> dict[str, Any]:
    """Return a selection as plain JSON values; `groups` are its picks, merged or each by itself."""
    nearest = selection.nearest
    return {
        "requirements": [
            {
                **asdict(each.requirement),
                "excludes": each.count,
                "unmeasured": each.unmeasured,
            }
            for each in selection.excluded
        ],
        "goals": [asdict(goal) for goal in selection.goals],
        "optimistic": selection.optimistic,
        "picks": [
            plain_candidate(group.first)
            | {"rank": rank, "not_told_apart": [other.trial for other in group.others]}
            for rank, group in enumerate(groups, start=1)
        ],
        "references": [
            plain_candidate(each.candidate) | {"fits": not each.misses}
            for each in selection.references
        ],
        "verified": len(selection.verified),
        "not_recommended": [plain_candidate(each) for each in selection.unverified],
        "searched": selection.searched,
        "nearest": None
        if nearest is None
        else {
            "candidate": plain_candidate(nearest.candidate),
            "misses": [
                {
                    "requirement": miss.requirement.text(),
                    "shortfall": miss.shortfall,
                    "reason": miss.reason,
                }
                for miss in nearest.misses
            ],
        },
        "knee": selection.knee.trial if selection.knee else None,
    }


def plain_candidate(candidate: Audited) -> dict[str, Any]:
    """Return an audited candidate as plain JSON values."""
    return {
        "trial": candidate.trial,
        "defense": candidate.label,
        "data": candidate.data,
        "undefended": candidate.undefended,
        "verdict": candidate.verdict,
        "because": candidate.because,
        "not_attacked_by": list(candidate.uncovered),
        "why": candidate.why,
        "audit_trials": [record.trial for record in candidate.records],
        "values": {
            metric: {**asdict(value), "seeds": candidate.seeds[metric]}
            for metric, value in candidate.values.items()
        },
        "missing": dict(candidate.missing),
    }

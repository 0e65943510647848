"""What a run recommends, in words: verified defenses alone, by their audited figures."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Any

from results.audit.audit import SUSPECTED, UNVERIFIED, Audited
from results.choosing.selection import Selection, select
from results.choosing.words import only_undefended_sentence
from results.records.run import Run
from results.records.values import counted, interval_text, signed_text, value_text
from results.sections.matrix import AuditedRow, Matrix
from results.statistics.intervals import verdict_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What stands at the top of the report, where nothing is required."""

    headline: str
    sentences: tuple[str, ...]
    chosen: Audited | None
    """None where nothing is recommended."""
    selection: Selection
    command: str
    """What to type next."""


def recommendation(run: Run, found: Matrix | None) -> Recommendation:
    """Return what is recommended and why, what else is verified, and what the audit struck off."""
    selection = select(run)
    address = shlex.quote(run_address(run))
    if not selection.verified and not selection.unverified:
        return Recommendation(
            headline="Nothing is recommended: no candidate was audited.",
            sentences=(
                "These figures are from the search: cheap attacks on validation points, and the "
                "best of many looks better than it is. The audit retrains the best candidates "
                "and attacks them with the strongest attacks on test points.",
            ),
            chosen=None,
            selection=selection,
            command=f"python -m orchestrator audit {address}",
        )
    judged = tuple(_judged(each) for each in selection.unverified)
    command = f"python -m orchestrator select {address}"
    chosen = selection.chosen
    if chosen is None:
        count = counted(len(selection.unverified), "audited candidate")
        why, words = f"none of {count} is verified", judged
        if selection.only_undefended:
            why = "no audited defense is verified"
            words = (only_undefended_sentence(selection), *judged)
        return Recommendation(
            headline=f"Nothing is recommended: {why}.",
            sentences=words,
            chosen=None,
            selection=selection,
            command=command,
        )
    return Recommendation(
        headline=f"Recommended where nothing is required: {chosen.name}.",
        sentences=(*_reasons(run, chosen, found), *_others(selection, chosen), *judged),
        chosen=chosen,
        selection=selection,
        command=command,
    )


def run_address(run: Run) -> str:
    """Return the run's folder or URI as a user types it, from the command that made it."""
    words = shlex.split(str(run.manifest.get("command") or ""))
    folder = "runs"
    for place, word in enumerate(words):
        if word == "--runs" and place + 1 < len(words):
            folder = words[place + 1]
        elif word.startswith("--runs="):
            folder = word.removeprefix("--runs=")
    return f"{folder.rstrip('/')}/{run.name}"


def plain_recommendation(advice: Recommendation) -> dict[str, Any]:
    """Return it as plain JSON values, with every audited candidate and the verdict on it."""
    selection = advice.selection
    audited = (*selection.verified, *selection.unverified)
    return {
        "recommendation": {
            "headline": advice.headline,
            "sentences": list(advice.sentences),
            "trial": advice.chosen.trial if advice.chosen else None,
            "command": advice.command,
        },
        "selection": {
            "goals": [asdict(goal) for goal in selection.goals],
            "picks": [each.trial for each in selection.picks],
            "references": [each.candidate.trial for each in selection.references],
            "knee": selection.knee.trial if selection.knee else None,
            "never_audited": selection.searched,
        },
        "verdicts": [
            {"trial": each.trial, "defense": each.label, "verdict": each.verdict,
             "because": each.because, "not_attacked_by": list(each.uncovered)}
            for each in audited
        ],
        "audit": [
            {
                "trial": each.trial,
                "defense": each.label,
                "why": each.why,
                "audit_trials": [record.trial for record in each.records],
                "seeds": len(each.records),
                "planned": each.planned,
                "metrics": {
                    name: asdict(value) | {"seeds": each.seeds[name]}
                    for name, value in each.values.items()
                },
                "missing": dict(each.missing),
            }
            for each in audited
        ],
    }  # fmt: skip


def _reasons(run: Run, chosen: Audited, found: Matrix | None) -> list[str]:
    figures = [
        f"{each.metric} {value_text(value)} (n = {value.n:,})"
        for each in run.objectives
        if (value := chosen.values.get(each.metric)) is not None
    ]
    words = [
        f"Verified: {chosen.because}. Audited on test points: {', '.join(figures)}.",
        "It is the knee of the verified: the largest loss if removed, on average over all ways to "
        "weigh the objectives. Set your requirements below, and the choice follows.",
    ]
    rows = found.audited if found else ()
    for row in rows:
        if row.audited.trial == chosen.trial:
            words.insert(1, _against_undefended(run, row))
    return words


def _against_undefended(run: Run, row: AuditedRow) -> str:
    parts = [
        f"{each.metric} {signed_text(change.difference.value)} "
        f"{interval_text(change.difference)} ({verdict_text(change.verdict)})"
        for each in run.objectives
        if (change := row.changes.get(each.metric)) is not None
    ]
    return f"Against the undefended model after the same audit: {'; '.join(parts)}."


def _others(selection: Selection, chosen: Audited) -> list[str]:
    others = [each.name for each in selection.picks if each.trial != chosen.trial]
    return [f"Also verified, in order of the objectives: {'; '.join(others)}."] if others else []


def _judged(candidate: Audited) -> str:
    name = candidate.name
    if candidate.verdict == SUSPECTED:
        return f"Struck off by the audit: {name}. Masking suspected: {candidate.because}."
    assert candidate.verdict == UNVERIFIED
    return f"Not verified: {name}, for {candidate.because}."

"""`select`: which verified defense fits, printed, as a gate's exit code, and exported."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from orchestrator.run.paths import RunPaths
from results.audit.audit import Audited
from results.audit.certificate_check import check_certificates
from results.choosing.merging import Group, merged_audited
from results.choosing.requirements import Goal, check_metric, parse_requirement
from results.choosing.selection import Reference, Selection, known_metrics, select
from results.choosing.words import (
    KNEE,
    measured_text,
    nearest_sentence,
    not_recommended_sentences,
    only_undefended_sentence,
    plain_selection,
    requirement_sentences,
)
from results.records.run import Run, load
from results.records.values import counted, interval_text, signed_text
from results.statistics.paired import compare

FITS, NOTHING_FITS = 0, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectRequest:
    """What `select` was asked for."""

    run: RunPaths
    requirements: tuple[str, ...] = ()
    maximize: tuple[str, ...] = ()
    minimize: tuple[str, ...] = ()
    optimistic: bool = False
    allow_undefended: bool = False
    merge: bool = False
    as_json: bool = False
    export: str | None = None
    """Folder that the bundle of the choice is written to: of the first pick, or where nothing is
    asked of the suggestion."""
    data_dir: str | None = None
    lpips_weights: str | None = None


def run_select(request: SelectRequest, console: Console) -> int:
    """Print what fits, and export what is chosen where asked; return 0, or 3 where nothing fits.

    Raises ResultsError for a run, requirement or metric that is none, and where a certificate of
    the run is refuted.
    """
    run = load(request.run.root)
    check_certificates(run)
    selection = _selected(run, request)
    groups = _groups(selection, request.merge)
    if request.as_json:
        plain = {"run": run.name, **plain_selection(selection, groups)}
        sys.stdout.write(json.dumps(plain, indent=1, allow_nan=False) + "\n")
    else:
        for line in _lines(run, request, selection, groups):
            console.print(Text(line), soft_wrap=True)
    if selection.chosen is None:
        return NOTHING_FITS
    if request.export is not None:
        from orchestrator.commands.export import export

        # With --json standard output is for JSON alone.
        progress = Console(stderr=True) if request.as_json else console
        export(
            request.run,
            run,
            selection.chosen,
            Path(request.export),
            progress,
            data_dir=request.data_dir,
            lpips_weights=request.lpips_weights,
        )
    return FITS


def _selected(run: Run, request: SelectRequest) -> Selection:
    known = known_metrics(run)
    goals = [
        *(Goal(metric=metric, maximized=True) for metric in request.maximize),
        *(Goal(metric=metric, maximized=False) for metric in request.minimize),
    ]
    for goal in goals:
        check_metric(goal.metric, known, "--maximize" if goal.maximized else "--minimize")
    requirements = [parse_requirement(text, known) for text in request.requirements]
    return select(run, requirements, goals, request.optimistic, request.allow_undefended)


def _groups(selection: Selection, merge: bool) -> list[Group[Audited]]:
    if not merge:
        return [Group(first=pick, others=()) for pick in selection.picks]
    return merged_audited(selection.picks, [goal.metric for goal in selection.goals])


def _lines(
    run: Run, request: SelectRequest, selection: Selection, groups: Sequence[Group[Audited]]
) -> list[str]:
    lines = requirement_sentences(selection) if selection.verified else []
    if not groups:
        lines += _why_nothing(request, selection)
    else:
        ranked = ", then ".join(goal.text() for goal in selection.goals)
        lines.append(f"Ranked: what no other pick beats in every goal first; {ranked}.")
    for rank, group in enumerate(groups, start=1):
        lines += _pick(rank, group, selection)
    for reference in selection.references:
        lines += _reference(reference, selection)
    if selection.knee is not None:
        lines.append(f"Suggested, as nothing is required: {selection.knee.name}, {KNEE}.")
    return [f"Run {run.name}.", *lines, *not_recommended_sentences(selection)]


def _why_nothing(request: SelectRequest, selection: Selection) -> list[str]:
    command = f"python -m orchestrator audit {request.run.shown}"
    if not selection.verified:
        if not selection.unverified:
            return [f"Nothing was audited, so nothing is recommended; audit the run: {command}"]
        return [
            f"None of {counted(len(selection.unverified), 'audited candidate')} is verified, so "
            f"nothing is recommended; complete the audit, or audit more: {command} --candidates N"
        ]
    lines = ["Nothing fits."]
    if selection.only_undefended:
        lines = [f"{only_undefended_sentence(selection)} --allow-undefended lets it be picked."]
    if selection.nearest is not None:
        lines.append(nearest_sentence(selection.nearest, selection.optimistic))
    return lines


def _pick(rank: int, group: Group[Audited], selection: Selection) -> list[str]:
    pick = group.first
    head = f"{rank}. {pick.name}{_on_data(pick, selection)}"
    lines = [f"{head}: {pick.verdict}, {pick.because}", *_figures(pick, selection)]
    if group.others:
        others = ", ".join(other.name for other in group.others)
        lines.append(f"     not significantly different in any goal: {others}")
    return lines


def _reference(reference: Reference, selection: Selection) -> list[str]:
    fits = "" if reference.misses else ", meets the requirements"
    plain = reference.candidate
    return [
        f"Reference: the undefended model{_on_data(plain, selection)}: {plain.verdict}{fits}",
        *_figures(plain, selection),
    ]


def _on_data(candidate: Audited, selection: Selection) -> str:
    several = len({each.data for each in selection.verified}) > 1
    return f" on {candidate.data}" if several else ""


def _figures(candidate: Audited, selection: Selection) -> list[str]:
    required = [requirement.metric for requirement in selection.requirements]
    return [
        f"     {metric} {measured_text(candidate, metric)}"
        f"{_against_undefended(candidate, metric, selection)}"
        for metric in dict.fromkeys([*required, *(goal.metric for goal in selection.goals)])
    ]


def _against_undefended(pick: Audited, metric: str, selection: Selection) -> str:
    """Write the difference to the undefended model of the same scenario, where it was audited."""
    plain = next((each for each in _undefended(selection) if _alike(each, pick)), None)
    found = compare(pick, plain, metric) if plain and not pick.undefended else None
    if found is None:
        return ""
    moved = found.difference
    sure = found.told_apart and not found.one_training
    significance = "" if sure else f", {found.verdict}"
    difference = f"{signed_text(moved.value)} {interval_text(moved)}"
    return f"; {difference} against undefended{significance}"


def _undefended(selection: Selection) -> list[Audited]:
    return [each for each in (*selection.verified, *selection.unverified) if each.undefended]


def _alike(first: Audited, second: Audited) -> bool:
    return bool(first.records and second.records) and (
        first.records[0].scenario() == second.records[0].scenario()
    )

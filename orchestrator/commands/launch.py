"""`launch`: check everything, then run or resume a sweep and write its report."""

import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import results
from orchestrator.arguments import parse_duration
from orchestrator.audit.plan import AuditOptions, plan_audit
from orchestrator.closing import (
    DONE,
    FAILED,
    NO_CANDIDATE,
    count_failed,
    exit_code,
    say_finished,
    say_interrupted,
    say_recorded,
    say_report,
    say_why_failed,
)
from orchestrator.commands.audit import audit_options, run_audit
from orchestrator.commands.checks import Checked, check_runs
from orchestrator.commands.dry_run import print_plan
from orchestrator.commands.means import Means, joined, resources_here, trial_limits
from orchestrator.request import LaunchRequest
from orchestrator.run.finished import note_finished
from orchestrator.run.inputs import Inputs, set_aside, settled_inputs
from orchestrator.run.manifest import (
    only_driver,
    read_manifest,
    read_records,
    refuse_foreign_folder,
    refuse_other_space,
    write_manifest,
)
from orchestrator.run.paths import RunPaths, check_writable, run_paths
from orchestrator.search.gpu_hours import check_gpu_hours
from orchestrator.search.proposals import Proposals, budget_end, whole_grid
from orchestrator.search.samplers import MODELS, MOST_FOR_TPE, describe_sampler
from orchestrator.sweep.resources import TrialResources
from results.records.values import counted
from search_spaces import Space, load_space
from search_spaces.domains import Flat
from trainables.errors import InputError
from trainables.records.record import LOST

if TYPE_CHECKING:
    from orchestrator.sweep.progress import Progress


def launch(request: LaunchRequest, console: Console) -> int:
    """Run or resume a sweep; return the exit code. Raises InputError before anything is written."""
    space = load_space(request.space, request.overrides)
    paths = run_paths(request.runs, request.run_name)
    deadline = time.time() + parse_duration(request.time_budget) if request.time_budget else None
    resources = resources_here(request, space)
    if request.address is None:  # a cluster's GPUs are counted when it is joined
        check_gpu_hours(request.max_gpu_hours, resources.gpus)
    limits = trial_limits(
        space, seconds=request.trial_time_limit, memory_gib=request.trial_memory_gib
    )
    grid = whole_grid(space) if space.file.search.algorithm == "grid" else None
    trials = planned_trials(space, grid)
    checked = check_runs(
        space,
        data_dir=request.data_dir,
        lpips_weights=request.lpips_weights,
        download=request.download,
    )
    if request.dry_run:
        checked.say(console)
        options = _audit_options(space, request, resources) if request.audit else None
        print_plan(space, paths, trials, resources, checked.datasets[0], options, console)
        return DONE
    check_writable(request.runs)
    agreed = _agreed(space, trials, grid, checked, paths, accept=request.accept_changes)
    checked.say(console)
    del grid  # the proposals keep what they need of it
    space = agreed.space
    with ExitStack() as stack:
        # A cluster is joined before anything is written: it may not be there.
        means = joined(
            stack,
            request,
            space,
            resources,
            limits=limits,
            command=command_line(),
            deadline=deadline,
            most_gpu_hours=request.max_gpu_hours,
        )
        check_gpu_hours(request.max_gpu_hours, means.resources.gpus)
        stack.enter_context(only_driver(paths))
        proposals = _begin(agreed, paths, means, console)
        complete = _finish(proposals, space, paths, means, console)
        complete = complete and not _lost(proposals, console)
        _say_what_ran(complete, proposals, paths, console)
        complete = complete and _audit(proposals, request, space, paths, means, console)
    code = _last_words(complete, proposals, paths, console)
    if isinstance(paths.root, Path):
        note_finished(request, paths, proposals.nothing_left() if complete else None)
    return code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreed:
    """What a sweep runs, once the manifest of a run that is there allows it."""

    space: Space
    trials: int
    grid: Mapping[str, Flat] | None
    data_title: str
    before: Mapping[str, Any] | None
    """The manifest; None where the run is new."""
    inputs: Inputs


def _agreed(
    space: Space,
    trials: int,
    grid: Mapping[str, Flat] | None,
    checked: Checked,
    paths: RunPaths,
    *,
    accept: bool,
) -> _Agreed:
    """Raise InputError where the run that is there has another space, or other images or code."""
    before = _refuse_other_run(paths, space)
    inputs = settled_inputs(before, checked.inputs, paths, accept=accept)
    if inputs.accepted:
        space = replace(space, accepted=inputs.accepted)
        grid = grid and whole_grid(space)
    return _Agreed(
        space=space,
        trials=trials,
        grid=grid,
        data_title=checked.datasets[0].title,
        before=before,
        inputs=inputs,
    )


def _begin(agreed: _Agreed, paths: RunPaths, means: Means, console: Console) -> Proposals:
    """Write the manifest and open the study; the caller holds the run."""
    _begin_again(agreed.before, agreed.inputs, paths, console)
    records = read_records(paths)
    write_manifest(
        paths,
        agreed.space,
        command=means.command,
        trials=agreed.trials,
        data_title=agreed.data_title,
        further={"inputs": agreed.inputs.plain()},
    )
    return Proposals(
        agreed.space,
        paths.journal,
        records,
        trials=agreed.trials,
        deadline=means.deadline,
        gpu_hours=means.gpu_hours(records, paths.audit),
        grid=agreed.grid,
    )


def _refuse_other_run(paths: RunPaths, space: Space) -> dict[str, Any] | None:
    """Return the manifest of the run that is there; None where there is none."""
    manifest = read_manifest(paths)
    if manifest is None:
        refuse_foreign_folder(paths)
    else:
        refuse_other_space(paths, manifest["space"], space.canonical())
    return manifest


def _begin_again(
    before: Mapping[str, Any] | None, inputs: Inputs, paths: RunPaths, console: Console
) -> None:
    """Set aside what was made of images or code that a resume has replaced."""
    accepted = (before or {}).get("inputs", {}).get("accepted", "")
    if inputs.accepted != accepted:
        moved = set_aside(paths, accepted)
        console.print(
            f"The images or the code of this run changed: {counted(moved, 'record')} set aside, "
            "its trials start again",
            soft_wrap=True,
        )


def planned_trials(space: Space, grid: Mapping[str, Flat] | None) -> int:
    """Return the number of trials: as asked, and all of them in a grid where nothing was asked."""
    asked = space.file.search.trials
    if asked is not None:
        return asked
    if grid is None:
        raise InputError(f"space {space.name}: search: set trials: NUMBER, or pass --trials")
    return len(grid)


def _finish(
    proposals: Proposals, space: Space, paths: RunPaths, means: Means, console: Console
) -> bool:
    """Run what is left, if anything; Ray is imported and started for that alone."""
    resources = means.resources
    before = len(proposals.finished)
    reason = proposals.nothing_left()
    if reason is not None:
        say_finished(console, paths.name, before, reason)
        return True
    left = proposals.trials - before
    resumed = f"Resuming: {before} trials are recorded. " if before else ""
    console.print(
        f"{resumed}Running {left} trials of space {space.name} into {paths.shown}, "
        f"{resources.concurrent} at once, {resources.described}",
        soft_wrap=True,
    )
    algorithm = space.file.search.algorithm
    if proposals.trials > MOST_FOR_TPE and algorithm in MODELS:
        console.print(f"Sampler: {describe_sampler(algorithm, proposals.trials)}.")

    def progress() -> "Progress":
        from orchestrator.sweep.progress import Progress  # imports Ray

        return Progress(proposals, console)

    return means.run(space, paths, proposals, progress, limits=means.limits, reported=paths)


def _say_what_ran(complete: bool, proposals: Proposals, paths: RunPaths, console: Console) -> None:
    done = len(proposals.finished)
    failed = count_failed(proposals.finished.values())
    say_recorded(console, done, proposals.trials, failed)
    if proposals.ended is not None and done < proposals.trials and complete:
        console.print(f"The sweep ended early: {proposals.ended.reason}.")
    if failed:
        say_why_failed(console, paths)


def _audit(
    proposals: Proposals,
    request: LaunchRequest,
    space: Space,
    paths: RunPaths,
    means: Means,
    console: Console,
) -> bool:
    """Audit the best of a search that has ended; return False where that was interrupted."""
    if not request.audit or space.file.pools == "published":
        return True  # a reproduction selects nothing, so that there is nothing to audit
    later = f"python -m orchestrator audit {paths.shown}"
    spent = budget_end(means.deadline, proposals.gpu_hours)
    if spent is not None:
        console.print(f"No audit: {spent.reason}. It runs later by: {later}", soft_wrap=True)
        return True
    plan = plan_audit(paths, space, _audit_options(space, request, means.resources))
    if not plan.planned:
        console.print(f"No audit: {NO_CANDIDATE}.")
        return True
    trials = run_audit(plan, paths, space, means, console)
    if trials.ended is not None and trials.ended.spent:
        reason = trials.ended.reason
        console.print(f"The audit ended early: {reason}. Complete it by: {later}", soft_wrap=True)
        return True
    return trials.missing == 0


def _last_words(complete: bool, proposals: Proposals, paths: RunPaths, console: Console) -> int:
    page = results.current_report(paths.root) if complete else None
    say_report(console, paths, page, complete=complete)
    if not complete:
        say_interrupted(console, command_line())
        return FAILED
    finished = proposals.finished.values()
    return exit_code(len(finished), count_failed(finished))


def _lost(proposals: Proposals, console: Console) -> int:
    """Count the trials that ended by no fault of their own, and say what becomes of them."""
    lost = sum(record.lost for record in proposals.finished.values())
    if lost:
        console.print(f"{lost} trials: {LOST}. They run when the sweep is resumed.")
    return lost


def command_line() -> str:
    """Return the command that this process was started with."""
    return shlex.join(["python", "-m", "orchestrator", *sys.argv[1:]])


def _audit_options(space: Space, request: LaunchRequest, resources: TrialResources) -> AuditOptions:
    return audit_options(
        space,
        resources.gpus > 0,
        candidates=request.audit_candidates,
        seeds=request.audit_seeds,
    )

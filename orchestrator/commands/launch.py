"""`launch`: check everything, then run or resume a sweep and write its report."""

import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from rich.console import Console

import results
from orchestrator.arguments import parse_duration
from orchestrator.audit.plan import AuditOptions, plan_audit
from orchestrator.closing import (
    DONE,
    FAILED,
    NO_CANDIDATE,
    exit_code,
    say_finished,
    say_recorded,
    say_why_failed,
)
from orchestrator.commands.audit import AuditMeans, audit_options, run_audit
from orchestrator.commands.dry_run import print_plan
from orchestrator.request import LaunchRequest
from orchestrator.run.finished import note_finished
from orchestrator.run.manifest import (
    only_driver,
    read_manifest,
    read_records,
    refuse_foreign_folder,
    refuse_other_space,
    write_manifest,
)
from orchestrator.run.paths import RunPaths, check_writable, report_address, run_paths
from orchestrator.search.gpu_hours import GpuHours, check_gpu_hours
from orchestrator.search.proposals import Proposals, budget_end
from orchestrator.search.samplers import MOST_FOR_TPE, describe_sampler
from orchestrator.sweep.resources import TrialResources, asked_resources, machine_for
from orchestrator.sweep.sessions import RaySession
from search_spaces import Space, load_space
from search_spaces.domains import Flat
from trainables.datasets import Dataset, find_data_dir, load_dataset
from trainables.errors import InputError
from trainables.metrics.perceptual import find_weights, load_lpips
from trainables.records.record import LOST, TrialRecord
from trainables.storage.artefacts import ArtefactStore
from trainables.storage.folders import absolute_place, redacted
from trainables.trial.context import TrialContext, build_context
from trainables.trial.limits import TrialLimits

logger = logging.getLogger(__name__)


def launch(request: LaunchRequest, console: Console) -> int:
    """Run or resume a sweep; return the exit code. Raises InputError before anything is written."""
    space = load_space(request.space, request.overrides)
    paths = run_paths(request.runs, request.run_name)
    deadline = time.time() + parse_duration(request.time_budget) if request.time_budget else None
    machine = machine_for(request.address)
    resources = asked_resources(request, space.file.resources, machine)
    if request.address is None:  # a cluster's GPUs are counted when it is joined
        check_gpu_hours(request.max_gpu_hours, resources.gpus)
    limits = _limits(request, space)
    trials = planned_trials(space)
    dataset = check_runs(space, request)
    if request.dry_run:
        options = _audit_options(space, request, resources) if request.audit else None
        print_plan(space, paths, trials, resources, dataset, options, console)
        return DONE
    check_writable(request.runs)
    manifest = read_manifest(paths)
    if manifest is None:
        refuse_foreign_folder(paths)
    else:
        refuse_other_space(paths, manifest["space"], space.canonical())
    with ExitStack() as stack:
        # A cluster is joined before anything is written: it may not be there.
        session = RaySession(stack, request.address)
        if request.address is not None:
            resources = asked_resources(request, space.file.resources, session.joined())
            check_gpu_hours(request.max_gpu_hours, resources.gpus)
        stack.enter_context(only_driver(paths))
        records = read_records(paths)
        write_manifest(
            paths,
            space,
            command=command_line(),
            trials=trials,
            data_title=dataset.title,
        )
        proposals = _proposals(space, paths, records, trials, deadline, request.max_gpu_hours)
        del records  # the proposals keep what they need of them
        means = AuditMeans(
            resources=resources,
            limits=limits,
            data_dir=request.data_dir,
            lpips_weights=request.lpips_weights,
            session=session,
            command=command_line(),
            deadline=deadline,
            most_gpu_hours=request.max_gpu_hours,
        )
        complete = _finish(proposals, request, space, paths, means, console)
        complete = complete and not _lost(proposals, console)
        _say_what_ran(complete, proposals, paths, console)
        complete = complete and _audit(proposals, request, space, paths, means, console)
    code = _last_words(complete, proposals, paths, console)
    if isinstance(paths.root, Path):
        note_finished(request, paths, proposals.nothing_left() if complete else None)
    return code


def _proposals(
    space: Space,
    paths: RunPaths,
    records: Mapping[str, TrialRecord],
    trials: int,
    deadline: float | None,
    most_gpu_hours: float | None,
) -> Proposals:
    """Return the proposals of a run; what its search and its audit have used counts as used."""
    spent = [*records.values(), *read_records(paths.audit).values()]
    return Proposals(
        space,
        paths.journal,
        records,
        trials=trials,
        deadline=deadline,
        gpu_hours=None if most_gpu_hours is None else GpuHours(most_gpu_hours, spent),
    )


def planned_trials(space: Space) -> int:
    """Return the number of trials: as asked, and all of them in a grid where nothing was asked."""
    asked = space.file.search.trials
    if space.file.search.algorithm != "grid":
        if asked is None:
            raise InputError(f"space {space.name}: search: set trials: NUMBER, or pass --trials")
        return asked
    grid = space.distinct_specs(limit=1_000_000)
    if grid is None:
        raise InputError(f"space {space.name}: search: the grid has more than 1,000,000 points")
    return len(grid) if asked is None else asked


def check_runs(space: Space, request: LaunchRequest) -> Dataset:
    """Load each scenario's data and fit every defense to its model, before a sweep is begun.

    Returns the first scenario's data set. Raises InputError for what no trial could run with.
    """
    if request.lpips_weights is not None:
        weights = find_weights(request.lpips_weights)
        assert weights is not None  # one was named
        load_lpips(weights)
    datasets, contexts = [], []
    store = ArtefactStore(Path("unused"))
    for number, scenario in enumerate(space.scenarios):
        dataset = load_dataset(
            scenario.dataset,
            data_dir=request.data_dir,
            image_size=scenario.image_size,
            device=torch.device("cpu"),
            download=request.download,
        )
        datasets.append(dataset)
        base = {"scenario": number} if len(space.scenarios) > 1 else {}
        draws: list[Flat] = [{**base}]
        for slot, names in space.slots.items():
            draws += [{**base, f"slot.{slot}": name} for name in names]
        for flat in draws:
            contexts.append(build_context(space.spec(flat), dataset, store, torch.device("cpu")))
    _check_models([ctx for ctx in contexts if ctx.spec.stack])
    return datasets[0]


def _check_models(contexts: Sequence[TrialContext]) -> None:
    """Ask each defense whether it can be trained with the layers of its model.

    What some cannot is said, and stands in the records of their trials; InputError where none can.
    """
    refused = []
    for ctx in contexts:
        try:
            ctx.check_model()
        except InputError as error:
            refused.append(f"{ctx.spec.model.name}: {error}")
    if refused and len(refused) == len(contexts):
        raise InputError(refused[0])
    for words in refused:
        logger.warning("%s. Trials with it will fail; the others run", words)


def _limits(request: LaunchRequest, space: Space) -> TrialLimits:
    declared, seconds, memory = (
        space.file.resources, request.trial_time_limit, request.trial_memory_gib,
    )  # fmt: skip
    return TrialLimits(
        seconds=declared.trial_time_limit if seconds is None else seconds,
        memory_gib=declared.trial_memory_gib if memory is None else memory,
    )


def _finish(
    proposals: Proposals,
    request: LaunchRequest,
    space: Space,
    paths: RunPaths,
    means: AuditMeans,
    console: Console,
) -> bool:
    """Run what is left, if anything; Ray is imported and started for that alone."""
    resources = means.resources
    before = len(proposals.finished)
    reason = proposals.nothing_left()
    if reason is not None:
        say_finished(console, paths.name, before, reason)
        return True
    from orchestrator.sweep.live_report import LiveReport
    from orchestrator.sweep.progress import Progress
    from orchestrator.sweep.sweep import SweepOptions, run_sweep

    left = proposals.trials - before
    resumed = f"Resuming: {before} trials are recorded. " if before else ""
    console.print(
        f"{resumed}Running {left} trials of space {space.name} into {paths.shown}, "
        f"{resources.concurrent} at once, {resources.described}"
    )
    if proposals.trials > MOST_FOR_TPE and space.file.search.algorithm == "tpe":
        console.print(f"Sampler: {describe_sampler('tpe', proposals.trials)}.")
    live = LiveReport(paths, lambda: len(proposals.finished))
    means.session.start()
    with live:
        return run_sweep(
            space,
            paths,
            proposals,
            resources,
            SweepOptions(
                data_dir=find_data_dir(request.data_dir),
                lpips_weights=absolute_place(request.lpips_weights),
                artefacts_gib=space.file.resources.artefacts_gib,
                limits=means.limits,
            ),
            Progress(proposals, console),
            [live],
        )


def _say_what_ran(complete: bool, proposals: Proposals, paths: RunPaths, console: Console) -> None:
    done = len(proposals.finished)
    failed = _failed(proposals)
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
    means: AuditMeans,
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
    report = report_address(paths.root, page or results.write_report(paths.root))
    if not complete:
        console.print(f"Report so far: {report}", soft_wrap=True)
        console.print(f"Interrupted; resume with: {redacted(command_line())}", soft_wrap=True)
        return FAILED
    console.print(f"Report: {report}", soft_wrap=True)
    return exit_code(len(proposals.finished), _failed(proposals))


def _lost(proposals: Proposals, console: Console) -> int:
    """Count the trials that ended by no fault of their own, and say what becomes of them."""
    lost = sum(record.lost for record in proposals.finished.values())
    if lost:
        console.print(f"{lost} trials: {LOST}. They run when the sweep is resumed.")
    return lost


def _failed(proposals: Proposals) -> int:
    return sum(record.status == "failed" for record in proposals.finished.values())


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

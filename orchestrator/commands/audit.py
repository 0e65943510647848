"""The audit: the search's best retrained with new seeds, and attacked with everything there is.

It is a run of its own within the run, and a Ray workload like the search: its trials are known
beforehand instead of proposed, and all else is the same.
"""

from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console

import results
from orchestrator.audit.plan import AuditOptions, AuditPlan, plan_audit, write_plan
from orchestrator.audit.specs import SHADOWS_ON_CPU
from orchestrator.closing import (
    FAILED,
    NO_CANDIDATE,
    count_failed,
    exit_code,
    say_audit,
    say_interrupted,
    say_report,
)
from orchestrator.commands.checks import check_runs
from orchestrator.commands.means import Means, joined, resources_here, trial_limits
from orchestrator.run.inputs import refuse_changes
from orchestrator.run.manifest import only_driver, read_manifest, read_records
from orchestrator.run.paths import RunPaths
from orchestrator.search.gpu_hours import GpuHours
from orchestrator.search.proposals import Ended, Proposal, budget_end
from orchestrator.sweep.resources import Gpus
from search_spaces import Space, stored_space
from search_spaces.objectives import Objective
from trainables.errors import InputError
from trainables.records.record import TrialRecord
from trainables.trial.given import GivenSpecs, flat_of
from trainables.trial.spec import TrialSpec

if TYPE_CHECKING:
    from orchestrator.sweep.progress import AuditProgress

TIME_FACTOR = 10
"""Times the limit of a search's trial, one of an audit may take."""


class AuditTrials:
    """The audit's trials one after another, those without a record."""

    def __init__(
        self,
        objectives: tuple[Objective, ...],
        specs: list[TrialSpec],
        records: Mapping[str, TrialRecord],
        *,
        deadline: float | None = None,
        gpu_hours: GpuHours | None = None,
    ) -> None:
        self._space = GivenSpecs(objectives)
        self.trials, self.gpu_hours, self.deadline = len(specs), gpu_hours, deadline
        self.finished = {s.trial: records[s.trial] for s in specs if s.trial in records}
        self.ended: Ended | None = None
        self._waiting = deque(spec for spec in specs if spec.trial not in self.finished)
        self._live: set[str] = set()

    @property
    def space(self) -> GivenSpecs[Objective]:
        """What reads the flat dicts of its trials."""
        return self._space

    @property
    def running(self) -> int:
        """Trials that were proposed and have not finished."""
        return len(self._live)

    @property
    def missing(self) -> int:
        """Trials without a record."""
        return self.trials - len(self.finished)

    def next(self) -> Proposal | Ended:
        """Propose the next trial, or end the audit."""
        if self.ended is None and not self._waiting:
            self.ended = Ended(f"all {self.trials} trials are done or running")
        if self.ended is None:
            self.ended = budget_end(self.deadline, self.gpu_hours)
        if self.ended is not None:
            return self.ended
        spec = self._waiting.popleft()
        self._live.add(spec.trial)
        return Proposal(flat_of(spec), spec)

    def finish(self, record: TrialRecord) -> None:
        """Take a finished trial's record."""
        self._live.discard(record.trial)
        self.finished[record.trial] = record.bare()

    def withdraw(self, trial: str, reason: str) -> None:
        """Take a trial back for which the budget does not suffice, and end the audit."""
        self._live.discard(trial)
        self.ended = Ended(reason, spent=True)

    def close(self) -> None:
        """Forget what still runs; it runs when the audit is resumed."""
        self._live.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """What `audit` was asked for; None leaves what the run's space says."""

    run: RunPaths
    candidates: int | None
    seeds: int | None
    data_dir: str | None
    lpips_weights: str | None
    address: str | None
    max_concurrent: int | None
    cpus_per_trial: float | None
    gpus_per_trial: Gpus | None


def audit(request: AuditRequest, command: str, console: Console) -> int:
    """Audit a run, or complete its audit, and write its report again; return the exit code.

    Raises InputError before anything is written.
    """
    paths = request.run
    results.load(paths.root)  # says in words where there is no run
    manifest = read_manifest(paths) or {}
    space = stored_space(manifest)
    checked = check_runs(space, data_dir=request.data_dir, lpips_weights=request.lpips_weights)
    refuse_changes(manifest, checked.inputs, paths.shown)
    here = resources_here(request, space)
    with ExitStack() as stack:
        limits = trial_limits(space)
        means = joined(stack, request, space, here, limits=limits, command=command)
        stack.enter_context(only_driver(paths))
        on_gpu = means.resources.gpus > 0
        options = audit_options(space, on_gpu, candidates=request.candidates, seeds=request.seeds)
        plan = plan_audit(paths, space, options)
        if not plan.planned:
            raise InputError(f"{paths.shown}: nothing to audit: {NO_CANDIDATE}")
        trials = run_audit(plan, paths, space, means, console)
    say_report(console, paths, results.current_report(paths.root))
    if trials.missing:
        say_interrupted(console, command)
        return FAILED
    return exit_code(len(trials.finished), count_failed(trials.finished.values()))


def audit_options(
    space: Space, on_gpu: bool, *, candidates: int | None, seeds: int | None
) -> AuditOptions:
    """Settle how much is audited: as asked, else as the space says."""
    declared = space.file.audit
    if space.given_weights and (seeds or 1) > 1:
        raise InputError(
            f"{seeds} seeds were asked for, but given weights are one network: they are audited on "
            "one"
        )
    own = 1 if space.given_weights else declared.seeds
    return AuditOptions(
        candidates=declared.candidates if candidates is None else candidates,
        seeds=own if seeds is None else seeds,
        points=None if on_gpu else declared.points,
        shadows=None if on_gpu else SHADOWS_ON_CPU,
    )


def run_audit(
    plan: AuditPlan, run: RunPaths, space: Space, means: Means, console: Console
) -> AuditTrials:
    """Run what an audit's plan lacks; what is recorded stays. The caller holds the run."""
    records = read_records(plan.paths)
    trials = AuditTrials(
        space.objectives,
        plan.specs,
        records,
        deadline=means.deadline,
        gpu_hours=means.gpu_hours(records, run),
    )
    write_plan(plan, space, run, command=means.command)
    if trials.missing:
        resumed = f"{len(trials.finished)} trials are recorded. " if trials.finished else ""
        console.print(
            f"Audit: {plan.described()}. {resumed}Running {trials.missing} trials into "
            f"{plan.paths.shown}, {means.resources.concurrent} at once, "
            f"{means.resources.described}",
            soft_wrap=True,
        )
        for change in plan.changed:
            console.print(f"Unlike the search: {change}", soft_wrap=True)
        _sweep(plan, run, trials, means, console)
    say_audit(
        console,
        run.root,
        recorded=len(trials.finished),
        trials=trials.trials,
        failed=count_failed(trials.finished.values()),
    )
    return trials


def _sweep(
    plan: AuditPlan, run: RunPaths, trials: AuditTrials, means: Means, console: Console
) -> None:
    def progress() -> "AuditProgress":
        from orchestrator.sweep.progress import AuditProgress  # imports Ray

        return AuditProgress(trials, console, plan)

    seconds = means.limits.seconds
    plan.paths.state.mkdir(parents=True, exist_ok=True)
    means.run(
        trials.space,
        plan.paths,
        trials,
        progress,
        limits=replace(means.limits, seconds=seconds and TIME_FACTOR * seconds),
        reported=run,
    )

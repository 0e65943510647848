"""What a search and its audit run with: resources, limits, data, a Ray session and a budget."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from orchestrator.run.manifest import read_records
from orchestrator.run.paths import RunPaths
from orchestrator.search.gpu_hours import GpuHours
from orchestrator.search.proposals import TrialSource
from orchestrator.search.study import Measures
from orchestrator.sweep.resources import Asked, TrialResources, asked_resources, machine_for
from orchestrator.sweep.sessions import RaySession
from search_spaces import Space
from trainables.datasets import find_data_dir
from trainables.records.record import TrialRecord
from trainables.storage.folders import absolute_place
from trainables.trial.limits import TrialLimits

if TYPE_CHECKING:
    from orchestrator.sweep.progress import Progress


class AskedMeans(Asked, Protocol):
    """What the command line asks for, be it of a search or of an audit."""

    @property
    def address(self) -> str | None: ...
    @property
    def data_dir(self) -> str | None: ...
    @property
    def lpips_weights(self) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a search and its audit run with."""

    resources: TrialResources
    limits: TrialLimits
    """Limits of a trial of the search."""
    data_dir: str | None
    lpips_weights: str | None
    artefacts_gib: float
    session: RaySession
    command: str
    """What the manifest says that they were started with."""
    deadline: float | None = None
    most_gpu_hours: float | None = None

    def gpu_hours(self, records: Mapping[str, TrialRecord], other: RunPaths) -> GpuHours | None:
        """Return the GPU hours that are left, if they are limited.

        What the search and its audit have used counts as used: the `records` of one, and those of
        the `other`.
        """
        if self.most_gpu_hours is None:
            return None
        return GpuHours(self.most_gpu_hours, [*records.values(), *read_records(other).values()])

    def run(
        self,
        space: Measures,
        paths: RunPaths,
        source: TrialSource,
        progress: Callable[[], "Progress"],
        *,
        limits: TrialLimits,
        reported: RunPaths,
    ) -> bool:
        """Run trials until their source ends; return False where that was interrupted.

        Ray is imported and started for that alone. Meanwhile the report of `reported` is kept up
        to date.
        """
        from orchestrator.sweep.live_report import LiveReport
        from orchestrator.sweep.sweep import SweepOptions, run_sweep

        options = SweepOptions(
            data_dir=find_data_dir(self.data_dir),
            lpips_weights=absolute_place(self.lpips_weights),
            artefacts_gib=self.artefacts_gib,
            limits=limits,
        )
        live = LiveReport(reported, lambda: len(source.finished))
        self.session.start()
        with live:
            return run_sweep(space, paths, source, self.resources, options, progress(), [live])


def resources_here(asked: AskedMeans, space: Space) -> TrialResources:
    """Settle what each trial gets, before a cluster is joined."""
    return asked_resources(asked, space.file.resources, machine_for(asked.address))


def joined(
    stack: ExitStack,
    asked: AskedMeans,
    space: Space,
    here: TrialResources,
    *,
    limits: TrialLimits,
    command: str,
    deadline: float | None = None,
    most_gpu_hours: float | None = None,
) -> Means:
    """Join the cluster that is asked for, and settle what each trial gets there.

    Without a cluster that is what it gets `here`.
    """
    session = RaySession(stack, asked.address)
    declared = space.file.resources
    return Means(
        resources=here
        if asked.address is None
        else asked_resources(asked, declared, session.joined()),
        limits=limits,
        data_dir=asked.data_dir,
        lpips_weights=asked.lpips_weights,
        artefacts_gib=declared.artefacts_gib,
        session=session,
        command=command,
        deadline=deadline,
        most_gpu_hours=most_gpu_hours,
    )


def trial_limits(
    space: Space, *, seconds: float | None = None, memory_gib: float | None = None
) -> TrialLimits:
    """Settle the limits of a trial: as asked, else as the space says."""
    declared = space.file.resources
    return TrialLimits(
        seconds=declared.trial_time_limit if seconds is None else seconds,
        memory_gib=declared.trial_memory_gib if memory_gib is None else memory_gib,
    )

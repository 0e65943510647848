"""The sweep: Ray Tune executes what the proposals say."""

import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from orchestrator.paths import RunPaths
from orchestrator.progress import Progress
from orchestrator.proposals import Ended, Proposals
from orchestrator.resources import Machine, TrialResources
from search_spaces import Space
from trainables.artefacts import ArtefactStore
from trainables.errors import InputError
from trainables.record import TrialRecord, write_record
from trainables.trial import failed_record
from trainables.tune import ActorLease, trainable

logger = logging.getLogger(__name__)

WORKER_FAILURES = 2
"""How often a trial is run again whose worker or node died; its own errors are never retried."""
_EVICT_EVERY = 10
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """What a sweep needs beside its space and its resources."""

    data_dir: Path | None = None
    lpips_weights: Path | None = None
    artefacts_gib: float = 10.0


def run_sweep(
    space: Space,
    paths: RunPaths,
    proposals: Proposals,
    resources: TrialResources,
    options: SweepOptions,
    progress: Progress,
) -> bool:
    """Run trials until the proposals end; Ray must be initialised.

    Gives False where the sweep was interrupted. What is finished is recorded either way.
    """
    search = _Search(proposals, paths, options, progress)
    folder = paths.root.resolve()
    claims = ActorLease(str(folder))  # held here, so that it lives as long as the sweep
    function = trainable(
        space,
        run=folder,
        data_dir=options.data_dir,
        lpips_weights=options.lpips_weights,
        threads=resources.threads,
        lease="actor",
        failures="report",
    )
    shutil.rmtree(paths.scratch, ignore_errors=True)  # of a driver that was killed
    try:
        with _sigterm_as_sigint():
            tune.Tuner(
                tune.with_resources(function, {"cpu": resources.cpus, "gpu": resources.gpus}),
                tune_config=tune.TuneConfig(
                    search_alg=search,
                    num_samples=-1,
                    max_concurrent_trials=resources.concurrent,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="trials",
                    storage_path=str(paths.scratch.resolve()),
                    verbose=0,
                    callbacks=[progress],
                    failure_config=tune.FailureConfig(max_failures=WORKER_FAILURES),
                ),
            ).fit()
    finally:
        interrupted = bool(proposals.live) or proposals.ended is None
        proposals.close()
        progress.close()
        del claims
        shutil.rmtree(paths.scratch, ignore_errors=True)
    return not interrupted


@contextmanager
def ray_session(address: str | None) -> Iterator[Machine]:
    """Start a local Ray, or join a cluster, and tell what there is to run on.

    Raises InputError where the cluster cannot be joined.
    """
    local = address is None
    if address is not None and address != "auto":
        _check_answers(address)
    try:
        ray.init(
            # "local" even where another Ray runs on this machine: it is not ours to use.
            address="local" if local else address,
            num_cpus=len(os.sched_getaffinity(0)) if local else None,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # Workers of a cluster find the user's own modules where the driver does.
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(_import_path())}},
        )
    except ConnectionError as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error})") from None
    try:
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield Machine(cpus=there.get("CPU", 0), gpus=there.get("GPU", 0), grows=not local)
    finally:
        ray.shutdown()


class _Search(Searcher):
    """Tune's view of the proposals. What a trial came to is read from its record, not from Tune."""

    def __init__(
        self, proposals: Proposals, paths: RunPaths, options: SweepOptions, progress: Progress
    ) -> None:
        super().__init__()
        self.proposals, self.paths, self.progress = proposals, paths, progress
        self.store = ArtefactStore(paths.artefacts)
        self.most_bytes = int(options.artefacts_gib * 2**30)
        self.trials: dict[str, tuple[str, dict[str, Any]]] = {}

    def suggest(self, trial_id: str) -> Any:
        """Give the next draw, or say that there is none."""
        proposal = self.proposals.next()
        if isinstance(proposal, Ended):
            return Searcher.FINISHED
        self.trials[trial_id] = (proposal.spec.trial, proposal.flat)
        return proposal.flat

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take the record that the worker wrote; write one where the worker could not."""
        identity, flat = self.trials[trial_id]
        path = self.paths.records / f"{identity}.json"
        if path.exists():
            record = TrialRecord.from_json(path.read_text())
        elif error:
            reason = f"its worker died or could not start, {WORKER_FAILURES + 1} times"
            record = failed_record(self.proposals.space.spec(flat), flat, reason)
            write_record(record, self.paths.records)
        else:
            return  # interrupted: it is run again when the sweep is resumed
        self.proposals.finish(record)
        self.progress.note(record)
        if len(self.proposals.finished) % _EVICT_EVERY == 0:
            keep = self.progress.front_artefacts()
            self.store.evict(keep=keep, max_bytes=self.most_bytes)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the records and the journal are the state."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: a sweep resumes from its records."""
        raise NotImplementedError(f"{checkpoint_path}: run the launch command again instead")

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher for its own resume, which is never used here.
        return {}


@contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C, which Tune turns into a clean end."""
    old = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _check_answers(address: str) -> None:
    # Ray itself would wait for minutes where nothing listens.
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.removeprefix("ray://"), int(port)), _ANSWER_SECONDS):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"--address {address}: nothing answers there ({error}); write auto or HOST:PORT"
        ) from None


def _import_path() -> list[str]:
    return [os.path.abspath(entry) for entry in sys.path if os.path.isdir(entry or ".")]

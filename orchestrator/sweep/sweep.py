"""The sweep: Ray Tune executes what the proposals say."""

import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from orchestrator import OWN_TOKEN, TOKEN_FILE
from orchestrator.run.paths import RunPaths
from orchestrator.search.proposals import Ended, Proposal, TrialSource
from orchestrator.search.study import Measures
from orchestrator.sweep.metering import Meter, UntilSpent
from orchestrator.sweep.packing import Packing
from orchestrator.sweep.progress import Progress
from orchestrator.sweep.resources import Machine, TrialResources, this_machine
from orchestrator.sweep.retries import NEW_STARTS, WORKER_FAILURES, Retries
from orchestrator.sweep.stateless import Stateless
from trainables.errors import InputError, StorageError
from trainables.records.record import LOST, read_record, write_record
from trainables.storage.artefacts import ArtefactStore
from trainables.storage.folders import open_folder
from trainables.trial.given import GivenSpecs, config_of
from trainables.trial.limits import NO_LIMITS, TrialLimits
from trainables.trial.stages import failed_record
from trainables.tune import GPUS_KEY, OUTGREW, ActorLease, trainable

logger = logging.getLogger(__name__)

_EVICT_EVERY = 10
_EVICTION_REST = 20
"""Times as long as the last look at all artefacts took, the next one waits: they grow to many."""
_ANSWER_SECONDS = 10.0
_WORKER_ENV = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Else a worker without a GPU would see all of its node's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """What a sweep needs besides its space and its resources."""

    data_dir: str | None = None
    lpips_weights: str | None = None
    artefacts_gib: float = 10.0
    limits: TrialLimits = NO_LIMITS


def run_sweep(
    space: Measures,
    paths: RunPaths,
    proposals: TrialSource,
    resources: TrialResources,
    options: SweepOptions,
    progress: Progress,
    callbacks: Sequence[tune.Callback] = (),
) -> bool:
    """Run trials until the proposals end; Ray must be initialised.

    Returns False where the sweep was interrupted. What is finished is recorded either way. Raises
    StorageError where what ran could not be kept, as on a full disk, once the rest has ended.
    """
    packing = Packing(resources.gpus, auto=resources.auto, records=proposals.finished.values())
    retries = Retries()
    search = _Search(proposals, paths, options, progress, packing, retries)
    hours = proposals.gpu_hours
    meters = [] if hours is None else [Meter(hours)]
    # Held here, so that it lives as long as the sweep.
    claims = ActorLease(open_folder(paths.address).uri)
    function = trainable(
        GivenSpecs(space.objectives),
        run=paths.address,
        data_dir=options.data_dir,
        lpips_weights=options.lpips_weights,
        threads=resources.threads,
        lease="actor",
        failures="report",
        limits=options.limits,
    )
    _keep_tune_from_keeping()
    try:
        # Not within the run: what Tune keeps is of no use to us, and the run's disk may be full.
        with _sigterm_as_sigint(), _scratch() as scratch:
            tune.Tuner(
                tune.with_resources(function, _resources_of_config(resources.cpus)),
                tune_config=tune.TuneConfig(
                    search_alg=search,
                    scheduler=None if hours is None else UntilSpent(hours),
                    num_samples=-1,
                    max_concurrent_trials=resources.concurrent,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="trials",
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[progress, retries, *meters, *callbacks],
                    failure_config=tune.FailureConfig(max_failures=WORKER_FAILURES),
                ),
            ).fit()
    finally:
        interrupted = proposals.running > 0 or proposals.ended is None
        progress.close()
        del claims
        proposals.close()
    if search.failure is not None:
        raise StorageError(search.failure)
    return not interrupted


@contextmanager
def ray_session(address: str | None) -> Iterator[Machine]:
    """Start a local Ray, or join a cluster, and yield what there is to run on.

    Raises InputError where the cluster cannot be joined.
    """
    local = address is None
    if address is not None and address != "auto":
        _check_answers(address)
    if address is not None:
        _check_has_token(address)
    try:
        ray.init(
            # "local" even where another Ray runs on this machine: it is not ours to use.
            address="local" if local else address,
            # Ray itself would count GPUs that torch cannot use.
            num_cpus=int(this_machine().cpus) if local else None,
            num_gpus=int(this_machine().gpus) if local else None,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # Workers of a cluster find the user's own modules where the driver does.
            runtime_env={"env_vars": _WORKER_ENV | {"PYTHONPATH": os.pathsep.join(_import_path())}},
        )
    except ConnectionError as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error})") from None
    try:
        _keep_token_private(TOKEN_FILE)
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield Machine(cpus=there.get("CPU", 0), gpus=there.get("GPU", 0), grows=not local)
    finally:
        ray.shutdown()


class _Search(Stateless, Searcher):
    """Tune's view of the proposals. What a trial came to is read from its record, not from Tune."""

    def __init__(
        self,
        proposals: TrialSource,
        paths: RunPaths,
        options: SweepOptions,
        progress: Progress,
        packing: Packing,
        retries: Retries,
    ) -> None:
        super().__init__()
        self.retries = retries
        self.proposals, self.paths, self.progress = proposals, paths, progress
        self.packing, self.hours = packing, proposals.gpu_hours
        self.store = ArtefactStore(paths.artefacts)
        self.most_bytes = int(options.artefacts_gib * 2**30)
        self.next_eviction = 0.0
        self.trials: dict[str, Proposal] = {}
        self.new_starts: Counter[str] = Counter()
        self.failure: str | None = None
        """Why the sweep cannot go on: its storage takes no more."""

    def suggest(self, trial_id: str) -> Any:
        """Return the next draw with its GPUs, or say that there is none now, or none at all."""
        try:
            return Searcher.FINISHED if self.failure else self._suggest(trial_id)
        except StorageError as error:
            self.failure = str(error)
            return Searcher.FINISHED

    def _suggest(self, trial_id: str) -> Any:
        again = self.packing.again
        while again and (reason := self._why_spent()):
            self.proposals.withdraw(again.popleft().spec.trial, reason)
        if not self.packing.may_propose(_gpus_there):
            return None
        proposal = again.popleft() if again else self.proposals.next()
        if isinstance(proposal, Ended):
            # A trial that outgrows its share, or loses its worker, comes back: the end waits.
            return None if self.trials else Searcher.FINISHED
        self.trials[trial_id] = proposal
        config = config_of(proposal.spec, proposal.flat)
        return {**config, GPUS_KEY: self.packing.give(proposal)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take the record that the worker wrote; write one where the worker could not."""
        try:
            self._complete(trial_id, result, error)
        except StorageError as failure:
            self.failure = str(failure)

    def _complete(self, trial_id: str, result: dict[str, Any] | None, error: bool) -> None:
        proposal = self.trials.pop(trial_id)
        if result is not None and result.get("status") == OUTGREW:
            self._run_once_more(proposal, str(result.get("error")))
            return
        record = read_record(self.paths.records, proposal.spec.trial)
        if record is None and not error:
            self._note_unfinished(proposal)
            return
        if record is None and (said := self.retries.storage.get(trial_id)) is not None:
            raise StorageError(said)  # as it would be for all that follow
        if record is None and self.new_starts[proposal.spec.trial] < NEW_STARTS:
            self.new_starts[proposal.spec.trial] += 1
            self.packing.start_anew(proposal)
            return
        if record is None:
            record = replace(failed_record(proposal.spec, proposal.flat, LOST), lost=True)
            write_record(record, self.paths.records)
        self.packing.take_back(record.trial, record)
        self.proposals.finish(record)
        self.progress.note(record)
        self._evict()

    def _evict(self) -> None:
        started = time.monotonic()
        if len(self.proposals.finished) % _EVICT_EVERY == 0 and started >= self.next_eviction:
            keep = self.progress.front_artefacts()
            self.store.evict(keep=keep, max_bytes=self.most_bytes)
            ended = time.monotonic()
            self.next_eviction = ended + _EVICTION_REST * (ended - started)

    def _run_once_more(self, proposal: Proposal, error: str) -> None:
        share = self.packing.grew_out(proposal)
        logger.warning(
            "trial %s needs more than %g of a GPU's memory; it runs once more on a whole one (%s)",
            proposal.spec.trial,
            share,
            error,
        )

    def _note_unfinished(self, proposal: Proposal) -> None:
        """Take back a trial that was called off; an interrupted one runs when it is resumed."""
        self.packing.take_back(proposal.spec.trial, None)
        reason = self._why_spent()
        if reason is not None:
            self.proposals.withdraw(proposal.spec.trial, reason)

    def _why_spent(self) -> str | None:
        return None if self.hours is None else self.hours.why_end()

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the records and the journal are the state."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: a sweep resumes from its records."""
        raise NotImplementedError(f"{checkpoint_path}: run the launch command again instead")


def _keep_tune_from_keeping() -> None:
    """Have Tune write neither logs of each trial nor its own state: the records are both."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = str(365 * 24 * 3600)
    # It prints the whole traceback of each lost try; `Retries` says the same in a line.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _resources_of_config(
    cpus: float,
) -> Callable[[dict[Any, Any]], tune.PlacementGroupFactory]:
    """Read a trial's resources from its config: Tune asks a copy, which shares no state of ours."""
    return lambda config: tune.PlacementGroupFactory([{"CPU": cpus, "GPU": config[GPUS_KEY]}])


def _gpus_there() -> float:
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return there.get("GPU", 0.0)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="defense-sweep-", ignore_cleanup_errors=True)


@contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C, which Tune turns into a clean end."""
    old = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _check_has_token(address: str) -> None:
    # Ray itself would ask again for ever, with a token that no cluster knows.
    if OWN_TOKEN:
        raise InputError(
            f"--address {address}: there is no token for the cluster here; copy its {TOKEN_FILE}, "
            "readable by you alone, or set RAY_AUTH_TOKEN"
        )


def _keep_token_private(file: Path) -> None:
    """Let nobody else read the user's token, as Ray's own file does."""
    if file.is_file() and file.stat().st_uid == os.getuid() and file.stat().st_mode & 0o077:
        file.chmod(0o600)


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

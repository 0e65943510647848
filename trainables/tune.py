"""The Ray adapter: trials as a Tune trainable. The only file under trainables/ that imports Ray."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import ray
from ray import tune

from trainables.device import ran_out_of_memory
from trainables.errors import InputError, StorageError, TrialFailedError
from trainables.records.record import TrialRecord, read_record, write_record
from trainables.records.value import Measured
from trainables.storage.artefacts import ArtefactStore
from trainables.storage.folders import Folder, open_folder
from trainables.trial.given import sampled_of
from trainables.trial.gpu import hide_gpus
from trainables.trial.limits import NO_LIMITS, TrialLimits
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import failed_record, run_trial

logger = logging.getLogger(__name__)

GPUS_KEY = "gpus"
"""In a trial's config, besides the names that a space draws: what `tune.with_resources` sets."""
OUTGREW = "outgrew"
"""Status of a trial that needs more GPU memory than its share holds."""


class ObjectiveLike(Protocol):
    """What is reported to Tune under its metric's name."""

    @property
    def metric(self) -> str:
        """Name of the metric."""


class SpaceLike(Protocol):
    """What the adapter needs of a space."""

    @property
    def objectives(self) -> tuple[ObjectiveLike, ...]:
        """What is reported to Tune."""

    def spec(self, flat: Mapping[str, Any]) -> TrialSpec:
        """Build the spec that a config stands for."""


def trainable(
    space: SpaceLike,
    *,
    run: Path | str | None = None,
    data_dir: Path | str | None = None,
    lpips_weights: Path | str | None = None,
    threads: int = 1,
    lease: Literal["file", "actor"] = "file",
    failures: Literal["raise", "report"] = "raise",
    limits: TrialLimits = NO_LIMITS,
) -> Callable[[dict[str, Any]], None]:
    """Return a function for tune.Tuner: its config is the flat dict that a space's `draw` returns.

    Names that the config leaves out take their defaults, so {} is the undefended model; GPUS_KEY in
    it is none of them. A space of GivenSpecs takes what `config_of` returns, the spec itself.

    Records and artefacts go to the folder or URI `run` (default: the Tune experiment's own folder).
    Reports each objective, `trial` and `status`; a failed trial raises TrialFailedError, or with
    failures='report' is reported without its objectives.

    A trial to which Tune assigns no GPU (tune.with_resources) runs on the CPU and sees none. One
    that needs more than its share of a GPU's memory fails; with failures='report' it leaves no
    record and is reported with the status OUTGREW and its error, to be run on a whole GPU.

    A trial that breaks one of the `limits` leaves its record and ends its worker. Tune may then run
    it again: a trial whose record is there is not measured anew, and its record is reported.
    """

    def run_one(config: dict[str, Any]) -> None:
        config = {name: value for name, value in config.items() if name != GPUS_KEY}
        gpus = _gpus_given()
        own = Path(tune.get_context().get_trial_dir()).parent if run is None else run
        folder = open_folder(own)
        claims = ActorLease(folder.uri) if lease == "actor" else None
        store = ArtefactStore(folder.sub("artefacts"), claims)
        spec, sampled = space.spec(config), sampled_of(config)
        records = folder.sub("records")
        record = _recorded(records, spec.trial)
        if record is None:
            try:
                record = run_trial(
                    spec,
                    store,
                    sampled=sampled,
                    data_dir=data_dir,
                    lpips_weights=lpips_weights,
                    threads=threads,
                    gpus=gpus,
                    limits=limits,
                    on_breach=lambda broken: write_record(broken, records),
                )
            except InputError as error:  # as wrong on another try as on this one
                record = failed_record(spec, sampled, str(error))
            if failures == "report" and 0 < gpus < 1 and ran_out_of_memory(record.error or ""):
                tune.report({"trial": record.trial, "status": OUTGREW, "error": record.error})
                return
            write_record(record, records)
        if record.status == "failed" and failures == "raise":
            raise TrialFailedError(record.error)
        _report(record, space)

    return run_one


def _report(record: TrialRecord, space: SpaceLike) -> None:
    found = {o.metric: record.metrics.get(o.metric) for o in space.objectives}
    values = {name: value.value for name, value in found.items() if isinstance(value, Measured)}
    tune.report({**values, "trial": record.trial, "status": record.status})


def _recorded(records: Folder, trial: str) -> TrialRecord | None:
    try:
        return read_record(records, trial)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("the record of trial %s cannot be read (%s); it runs again", trial, error)
        return None


def _gpus_given() -> float:
    """Return how many GPUs Tune assigned to this trial: a share of one, whole ones, or 0.

    A trial without one sees none from here on.
    """
    resources = tune.get_context().get_trial_resources().required_resources
    given = float(resources.get("GPU", 0.0))
    if given == 0:
        hide_gpus()
    return given


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class _Claims:
    """Who builds which artefact, until when: one actor a run, so that no file system must lock.

    Every call may be repeated: where the actor's node goes, Ray restarts it and asks again. It
    then knows of no claims, so that two may build the same artefact, which costs time alone.
    """

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self.claims: dict[str, tuple[str, float]] = {}

    def acquire(self, key: str, holder: str) -> bool:
        """Take the key where nobody holds it or its holder was not heard of in time."""
        owner, until = self.claims.get(key, (holder, 0.0))
        if owner != holder and time.monotonic() < until:
            return False
        self.claims[key] = (holder, time.monotonic() + self.ttl)
        return True

    def release(self, key: str, holder: str) -> None:
        """Return the key back."""
        if self.claims.get(key, ("", 0.0))[0] == holder:
            del self.claims[key]


class ActorLease:
    """A lease kept by a Ray actor that all workers of a run share."""

    def __init__(self, run: str, ttl: float = 30.0) -> None:
        self.ttl = ttl
        self.claims = _Claims.options(  # type: ignore[attr-defined]
            name=f"claims:{run}", namespace="defense-sweep", get_if_exists=True
        ).remote(self.ttl)

    def acquire(self, key: str, holder: str) -> bool:
        """Take the key, or say that another holds it. Raises StorageError where nobody answers."""
        return bool(_answer(self.claims.acquire.remote(key, holder)))

    def renew(self, key: str, holder: str) -> None:
        """Hold the key for another time to live."""
        _answer(self.claims.acquire.remote(key, holder))

    def release(self, key: str, holder: str) -> None:
        """Return the key back."""
        _answer(self.claims.release.remote(key, holder))


def _answer(asked: Any) -> Any:
    try:
        return ray.get(asked)
    except ray.exceptions.RayActorError as error:  # no fault of the trial that asked
        raise StorageError(f"the claims on artefacts cannot be reached: {error}") from error

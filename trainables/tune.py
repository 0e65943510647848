"""The Ray adapter: trials as a Tune trainable. The only file under trainables/ that imports Ray."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import ray
from ray import tune

from trainables.artefacts import ArtefactStore
from trainables.errors import InputError
from trainables.metrics import Measured
from trainables.record import write_record
from trainables.spec import TrialSpec
from trainables.trial import failed_record, run_trial


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
        """Build the spec that a drawn dict stands for."""


class TrialFailedError(RuntimeError):
    """A trial's record says that it failed."""


def trainable(
    space: SpaceLike,
    *,
    run: Path | None = None,
    data_dir: Path | None = None,
    lpips_weights: Path | None = None,
    threads: int = 1,
    lease: Literal["file", "actor"] = "file",
    failures: Literal["raise", "report"] = "raise",
) -> Callable[[dict[str, Any]], None]:
    """Give a function for tune.Tuner: its config is the flat dict that a space's `draw` gives.

    Names that the config leaves out take their defaults, so {} is the undefended model. Records
    and artefacts go to the folder `run` (default: the Tune experiment's own). Reports each
    objective, `trial` and `status`; a failed trial raises TrialFailedError, or with
    failures='report' is reported without its objectives.
    """

    def run_one(config: dict[str, Any]) -> None:
        folder = run if run is not None else Path(tune.get_context().get_trial_dir()).parent
        store = ArtefactStore(
            folder / "artefacts", ActorLease(str(folder)) if lease == "actor" else None
        )
        spec = space.spec(config)
        try:
            record = run_trial(
                spec,
                store,
                sampled=config,
                data_dir=data_dir,
                lpips_weights=lpips_weights,
                threads=threads,
            )
        except InputError as error:  # as wrong on another try as on this one
            record = failed_record(spec, config, str(error))
        write_record(record, folder / "records")
        if record.status == "failed" and failures == "raise":
            raise TrialFailedError(record.error)
        found = {o.metric: record.metrics.get(o.metric) for o in space.objectives}
        values = {name: value.value for name, value in found.items() if isinstance(value, Measured)}
        tune.report({**values, "trial": record.trial, "status": record.status})

    return run_one


@ray.remote(num_cpus=0, max_restarts=-1)
class _Claims:
    """Who builds which artefact, until when: one actor a run, so that no file system must lock."""

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
        """Give the key back."""
        if self.claims.get(key, ("", 0.0))[0] == holder:
            del self.claims[key]


class ActorLease:
    """A lease kept by a Ray actor that all workers of a run share."""

    ttl = 30.0

    def __init__(self, run: str) -> None:
        self.claims = _Claims.options(  # type: ignore[attr-defined]
            name=f"claims:{run}", namespace="defense-sweep", get_if_exists=True
        ).remote(self.ttl)

    def acquire(self, key: str, holder: str) -> bool:
        """Take the key, or say that another holds it."""
        return bool(ray.get(self.claims.acquire.remote(key, holder)))

    def renew(self, key: str, holder: str) -> None:
        """Hold the key for another time to live."""
        ray.get(self.claims.acquire.remote(key, holder))

    def release(self, key: str, holder: str) -> None:
        """Give the key back."""
        ray.get(self.claims.release.remote(key, holder))

"""What a run is, written once when it starts: enough for results/ to read it without the code."""

import fcntl
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from orchestrator.run.heartbeat import beating
from orchestrator.run.paths import MANIFEST, RunPaths
from orchestrator.search.samplers import describe_sampler
from search_spaces import Space
from trainables.defenses import DEFENSES
from trainables.errors import InputError
from trainables.metrics import METRICS, metric
from trainables.records.record import LOST, TrialRecord
from trainables.records.strict import UNREADABLE, why_unreadable
from trainables.storage.folders import RemoteFolder, read_all, redacted
from trainables.trial.stages import stage_versions

logger = logging.getLogger(__name__)

FORMAT = 1
_MOST_SHOWN = 60
"""Maximum characters of a value in a line that reports a difference."""


def write_manifest(
    paths: RunPaths,
    space: Space,
    *,
    command: str,
    trials: int,
    data_title: str,
    further: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write the run's manifest, or bring the one that is there up to date.

    `further` is what an audit adds.
    """
    old = read_manifest(paths)
    manifest = {
        "format": FORMAT,
        "run": paths.name,
        "command": redacted(command),
        "created": old["created"] if old else datetime.now(UTC).isoformat(timespec="seconds"),
        "trials": trials,
        "seed": space.file.search.seed,
        "sampler": describe_sampler(space.file.search.algorithm, trials),
        "description": space.file.description,
        "space": space.canonical(),
        "resources": space.file.resources.model_dump(mode="json"),
        "audit_asked": space.file.audit.model_dump(mode="json"),
        "objectives": [asdict(objective) for objective in space.objectives],
        "metrics": {name: asdict(metric(name)) for name in _metric_names(space)},
        "stage_versions": stage_versions(),
        "data_title": data_title,
        "radius": space.scenarios[0].radius,
        "defenses": {
            name: {
                "meaning": defense.meaning,
                "guarantee": defense.guarantee,
                "source": defense.source,
                "slot": defense.slot,
            }
            for name, defense in DEFENSES.items()
        },
        "published": _published(space),
        **further,
    }
    paths.folder.write(MANIFEST, json.dumps(manifest, indent=1).encode())
    return manifest


def read_manifest(paths: RunPaths) -> dict[str, Any] | None:
    """Read a run's manifest; None where there is none."""
    try:
        manifest: dict[str, Any] = json.loads(paths.folder.read(MANIFEST))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(
            f"{paths.shown}: its {MANIFEST} cannot be read ({error}); take another --name, or "
            "remove the run"
        ) from None
    return manifest


def read_records(paths: RunPaths) -> dict[str, TrialRecord]:
    """Read a run's records; one that cannot be read is set aside, said so, and its trial rerun.

    So is a trial that was lost to its worker or its storage.
    """
    folder, records = paths.records, {}
    names = [entry.name for entry in folder.entries(".json")]
    for name, content in read_all(folder, names):
        try:
            record = TrialRecord.from_json(content).bare()
        except UNREADABLE as error:
            folder.write(f"{name}.corrupt", content)
            folder.delete(name)
            logger.warning(
                "%s/%s cannot be read (%s); set aside, its trial runs again",
                folder.uri, name, why_unreadable(error),
            )  # fmt: skip
            continue
        if record.lost:
            folder.delete(name)
            logger.warning("trial %s runs again: %s", record.trial, LOST)
            continue
        records[name.removesuffix(".json")] = record
    return records


@contextmanager
def only_driver(paths: RunPaths) -> Iterator[None]:
    """Hold the run for this process; InputError where another one is driving it.

    A lock keeps other drivers of this machine off (with a folder on NFS: of every machine), and
    beats in the store those of other machines where the run lies in one (see `beating`).
    """
    paths.state.mkdir(parents=True, exist_ok=True)
    with paths.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{paths.shown}: another launch is running this sweep; wait for it or end it, or "
                "take another --name"
            ) from None
        folder = paths.folder
        with beating(folder, paths.state) if isinstance(folder, RemoteFolder) else nullcontext():
            yield


def _metric_names(space: Space) -> list[str]:
    threats = space.threats(space.scenarios[0].radius)
    further = [name for threat in threats for name in threat.metric_names() if name not in METRICS]
    return [*METRICS, *further]


def _published(space: Space) -> dict[str, Any] | None:
    if space.file.published is None:
        return None
    return {**space.file.published.model_dump(mode="json"), "rows": space.published_rows()}


def refuse_foreign_folder(paths: RunPaths) -> None:
    """Raise InputError where the run's folder holds something, but no run."""
    found = paths.folder.occupant()
    if found is not None:
        raise InputError(
            f"{paths.shown}: holds {found!r} instead of a run; take another --name, or remove it"
        )


def refuse_other_space(paths: RunPaths, old: Any, new: Any) -> None:
    """Raise InputError, with the difference, where a run was started with another space."""
    # What was written went through JSON, so what it is compared with goes through it too.
    differences = list(_differences(old, json.loads(json.dumps(new))))
    if differences:
        shown = "; ".join(differences[:3]) + (" .." if len(differences) > 3 else "")
        raise InputError(
            f"{paths.shown}: this run belongs to another space ({shown}); take another --name"
        )


def _differences(old: Any, new: Any, place: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            inner = f"{place}.{key}" if place else str(key)
            yield from _differences(old.get(key), new.get(key), inner)
    elif old != new:
        yield f"{place}: {_shortened(old)} there, {_shortened(new)} here"


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]} .."

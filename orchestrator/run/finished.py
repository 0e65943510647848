"""A launch that finds everything done says so at once, without torch, Ray or the data.

A launch that leaves nothing to do notes what it was asked and what it found: the run, the program,
the machine and the data, by contents or dates. One that finds all of it as it was has nothing to
check or to draw again; whatever changed, it goes the whole way.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

import orchestrator
import results
import search_spaces
import trainables
from orchestrator.closing import (
    NO_CANDIDATE,
    count_failed,
    exit_code,
    say_audit,
    say_finished,
    say_recorded,
    say_report,
    say_why_failed,
)
from orchestrator.request import LaunchRequest
from orchestrator.run.paths import RunPaths, check_writable, run_paths
from results.page.freshness import code_hash, run_state
from results.records.run import Run
from search_spaces.loader import read_space_file
from search_spaces.schema import SpaceFile
from trainables.storage.folders import is_uri

_NEEDS_NO_FILES = "digits"
_FOLDER = "folder:"
_GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def note_finished(request: LaunchRequest, paths: RunPaths, reason: str | None) -> None:
    """Note that a launch left nothing to do, and the `reason` that nothing is left of its search.

    None: it was ended early, so that the next one may go on.
    """
    found = None if reason is None else _state(request, paths)
    if found is None:
        paths.finished.unlink(missing_ok=True)
        return
    temporary = paths.finished.with_suffix(".tmp")
    temporary.write_text(json.dumps({"reason": reason, "state": found}, indent=1) + "\n")
    temporary.replace(paths.finished)


def found_finished(request: LaunchRequest, console: Console) -> int | None:
    """Return how a run is that needs nothing; return the exit code, or None where it may need some.

    Raises InputError for what cannot be a request, or where the runs cannot be written to.
    """
    if request.dry_run or is_uri(request.runs):
        return None
    paths = run_paths(request.runs, request.run_name)
    try:
        noted = json.loads(paths.finished.read_text())
    except (OSError, ValueError):
        return None
    page = results.current_report(paths.root)
    if page is None or noted["state"] != _state(request, paths) or _driven(paths):
        return None
    check_writable(request.runs)
    run = results.load(paths.root)
    recorded = len(run.records)
    failed = count_failed(run.records)
    say_finished(console, paths.name, recorded, noted["reason"])
    say_recorded(console, recorded, int(run.manifest["trials"]), failed)
    if failed:
        say_why_failed(console, paths)
    if request.audit and run.manifest["space"].get("pools") != "published":
        _say_audit(run, paths, console)
    say_report(console, paths, page)
    return exit_code(recorded, failed)


def _say_audit(run: Run, paths: RunPaths, console: Console) -> None:
    if run.audit is None:
        console.print(f"No audit: {NO_CANDIDATE}.")
        return
    records = run.audit.records
    say_audit(
        console,
        paths.root,
        recorded=len(records),
        trials=int(run.audit.manifest["trials"]),
        failed=count_failed(records),
    )


def _state(request: LaunchRequest, paths: RunPaths) -> dict[str, Any] | None:
    """Return all that decides whether a launch has something to do, as JSON has it.

    None where that cannot be seen from here: budgets of time and GPU hours, clusters, stores and
    code of the user's own.
    """
    file = read_space_file(request.space, request.overrides)
    places = (request.runs, request.lpips_weights or "", _data_dir(request) or "")
    if (
        request.time_budget is not None
        or request.max_gpu_hours is not None
        or request.address is not None
        or any(is_uri(place) for place in places)
        or _own_code(file)
    ):
        return None
    packages = (orchestrator, results, search_spaces, trainables)
    state = {
        "request": asdict(request),
        "space": file.model_dump(mode="json"),
        "code": {each.__name__: code_hash(Path(each.__path__[0])) for each in packages},
        "machine": _machine(),
        "data": _data(file, request),
        "run": run_state(Path(paths.root)),
    }
    plain: dict[str, Any] = json.loads(json.dumps(state))
    return plain


def _own_code(file: SpaceFile) -> bool:
    """Return whether a space names a model or a defense by its import path, or a checkpoint."""
    if any(
        scenario.model.weights
        for scenario in file.scenarios
        if scenario.model is not None and not isinstance(scenario.model, str)
    ):
        return True
    models = [
        scenario.model if isinstance(scenario.model, str) else scenario.model.name
        for scenario in file.scenarios
        if scenario.model is not None
    ]
    return any(":" in name for name in (*file.defenses, *models))


def _machine() -> list[str]:
    """Return what makes this another machine for a sweep, as far as can be seen without torch."""
    gpus = sorted(str(device) for device in Path("/dev").glob("nvidia[0-9]*"))
    visible = [f"{name}={os.environ.get(name)}" for name in _GPUS]
    return [platform.node(), str(len(os.sched_getaffinity(0))), *gpus, *visible]


def _data_dir(request: LaunchRequest) -> str | None:
    return request.data_dir or os.environ.get("DEFENSE_SWEEP_DATA")


def _data(file: SpaceFile, request: LaunchRequest) -> list[list[Any]]:
    """Return size and dates of every file of the user's images, and of the LPIPS weights.

    The date of a file's last change, unlike that of its contents, cannot be set back.
    """
    names = {scenario.dataset for scenario in file.scenarios}
    places = [Path(name.removeprefix(_FOLDER)) for name in names if name.startswith(_FOLDER)]
    folder = _data_dir(request)
    if folder and any(n != _NEEDS_NO_FILES and not n.startswith(_FOLDER) for n in names):
        places.append(Path(folder))
    below = [inner for place in places for inner in place.rglob("*")]
    weights = [Path(request.lpips_weights)] if request.lpips_weights else []
    found = sorted({*places, *below, *weights})
    return [[str(p), *_dates(p)] for p in found if p.exists()]


def _dates(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _driven(paths: RunPaths) -> bool:
    """Return whether another launch drives the run now."""
    with paths.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False

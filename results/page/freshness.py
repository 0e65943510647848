"""Whether a report still shows what its run holds, by the dates of what it was written from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from results.records.files import replace_text
from results.records.run import AUDIT
from trainables.storage.folders import is_uri

PAGE = "index.html"
_STAMP = ".report_written_from.json"
"""In the run's folder, next to the report's."""
_CODE = Path(__file__).parents[1]
_OURS = (".py", ".yaml", ".css", ".js", ".j2")


def current_report(run: str | Path) -> Path | None:
    """Return the page of a run's report, or None where it must be written again.

    It must where records, an audit or the manifest changed since, where a file of the report did,
    and where this package's code did. A run at a URI has its report written each time.
    """
    if is_uri(str(run)):
        return None
    path = Path(run)
    try:
        stamp = json.loads((path / _STAMP).read_text())
    except (OSError, ValueError):
        return None
    now = {**written_from(path), "files": _files(path)}
    return path / "report" / PAGE if stamp == json.loads(json.dumps(now)) else None


def written_from(path: Path) -> dict[str, Any]:
    """Return what a report is written from: the run as it is now, and the code that reads it."""
    return {"run": run_state(path), "code": code_hash(_CODE)}


def note_written(path: Path, source: dict[str, Any]) -> None:
    """Note that the report in a run's folder was written from `source`."""
    stamp = {**source, "files": _files(path)}
    replace_text(path / _STAMP, json.dumps(stamp, indent=1) + "\n")


def run_state(path: Path) -> dict[str, Any]:
    """Return the state of a run and of its audit: manifests by content, records by their dates."""
    return {
        str(part.relative_to(path)): {
            "manifest": _content(part / "manifest.json"),
            "records": _dates((part / "records").glob("*"), part),
        }
        for part in (path, path / AUDIT)
    }


def code_hash(package: Path) -> str:
    """Return the sha256 of a package's files."""
    found = hashlib.sha256()
    for file in sorted(file for file in package.rglob("*") if file.suffix in _OURS):
        found.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def _files(path: Path) -> list[list[Any]]:
    """Return the dates of what a report is, including its tables next to the records."""
    return _dates([*(path / "report").rglob("*"), *path.glob("trials.*")], path)


def _dates(files: Iterable[Path], root: Path) -> list[list[Any]]:
    return sorted(
        [str(file.relative_to(root)), file.stat().st_size, file.stat().st_mtime_ns]
        for file in files
        if file.is_file() and not file.name.startswith(".")
    )


def _content(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None

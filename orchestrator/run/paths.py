"""Where everything of a run lies; nobody else joins these names."""

import os
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from trainables.errors import InputError, StorageError
from trainables.storage.folders import Folder, is_uri, joined, open_folder, redacted, uri_hash

STATE_VARIABLE = "DEFENSE_SWEEP_STATE"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
_PROBE = "defense-sweep-write-probe"
_FIRST_TRIES = 3
"""Attempts at the first contact with a store: a wrong host or bucket is reported at once."""


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The files of one run: what others read lies at its root, what only its driver needs beside.

    Beside is the root itself where that is a folder, and else a folder of this machine.
    """

    root: Path | str = field(repr=False)
    """A folder's path, or a URI with the credentials that it was given with: for opening alone."""

    @property
    def folder(self) -> Folder:
        """What others read."""
        return open_folder(self.root)

    @property
    def address(self) -> str:
        """What workers open: they may run in another folder."""
        return self.root if isinstance(self.root, str) else str(self.root.resolve())

    @property
    def shown(self) -> str:
        """The root without credentials, as it may be printed and typed again."""
        return redacted(str(self.root))

    @property
    def name(self) -> str:
        """The run's name."""
        return self.shown.partition("?")[0].rstrip("/").rpartition("/")[2]

    @property
    def records(self) -> Folder:
        """One JSON file a trial."""
        return self.folder.sub("records")

    @property
    def artefacts(self) -> Folder:
        """What trials share."""
        return self.folder.sub("artefacts")

    @property
    def audit(self) -> "RunPaths":
        """The run's audit: a run of its own within it."""
        root = self.root
        return RunPaths(root / AUDIT if isinstance(root, Path) else joined(root, AUDIT))

    @property
    def state(self) -> Path:
        """What only the driver needs; lost, it is made again from the records."""
        if isinstance(self.root, Path):
            return self.root
        return _state_folder() / f"{self.name}-{uri_hash(self.root)}"

    @property
    def journal(self) -> Path:
        """The Optuna study."""
        return self.state / "study.journal"

    @property
    def finished(self) -> Path:
        """Notes what a launch was asked that left nothing to do."""
        return self.state / ".finished.json"

    @property
    def lock(self) -> Path:
        """Held by the one driver of the run on this machine."""
        return self.state / ".lock"


AUDIT = "audit"
MANIFEST = "manifest.json"
"""What the run is, in its folder."""


def run_paths(runs: str, name: str) -> RunPaths:
    """Return the paths of a named run; InputError for a name that could leave the folder."""
    if not _NAME.match(name):
        raise InputError(
            f"--name {name!r}: a run's name is letters, digits, '.', '_' and '-', and no path; "
            "the folder goes into --runs"
        )
    if not is_uri(runs):
        return RunPaths(Path(runs) / name)
    if runs.lower().startswith("file://"):
        return RunPaths(Path(open_folder(runs).uri) / name)
    return RunPaths(joined(runs, name))


def existing_run(run: str) -> RunPaths:
    """Return the paths of a run by its folder or URI."""
    if not is_uri(run):
        return RunPaths(Path(run))
    return RunPaths(Path(open_folder(run).uri) if run.lower().startswith("file://") else run)


def report_address(run: Path | str, page: Path) -> str:
    """Return where a report's page lies, given the run and the page on this machine."""
    place = redacted(str(run))
    return joined(place, "report/index.html") if is_uri(place) else str(page)


def check_writable(runs: str) -> None:
    """Raise InputError where a run's files could not be written; nothing is left behind."""
    try:
        if is_uri(runs):
            _probe_store(open_folder(runs, attempts=_FIRST_TRIES))
        else:
            _probe_folder(Path(runs))
    except StorageError as error:
        raise InputError(f"--runs {error}") from None
    except InputError as error:
        raise InputError(f"--runs {error}") from None


def _probe_store(folder: Folder) -> None:
    probe = f".{_PROBE}-{uuid.uuid4().hex}"
    folder.write(probe, b"")
    folder.delete(probe)


def _probe_folder(runs: Path) -> None:
    existing = runs
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    probe = existing / f".{_PROBE}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise InputError(
            f"{runs}: cannot write there ({error.strerror}); name a folder that you may write to"
        ) from None


def _state_folder() -> Path:
    given = os.environ.get(STATE_VARIABLE)
    base = os.environ.get("XDG_STATE_HOME")
    user = Path(base) if base else Path.home() / ".local" / "state"
    return Path(given).expanduser().absolute() if given else user / "defense-sweep"

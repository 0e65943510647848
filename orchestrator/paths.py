"""Where everything of a run lies; nobody else joins these names."""

import re
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import InputError

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The files of one run."""

    root: Path

    @property
    def manifest(self) -> Path:
        """What the run is."""
        return self.root / "manifest.json"

    @property
    def journal(self) -> Path:
        """The Optuna study."""
        return self.root / "study.journal"

    @property
    def lock(self) -> Path:
        """Held by the one driver of the run."""
        return self.root / ".lock"

    @property
    def scratch(self) -> Path:
        """What Tune writes for itself; gone when the sweep ends."""
        return self.root / ".tune"

    @property
    def records(self) -> Path:
        """One JSON file a trial."""
        return self.root / "records"

    @property
    def artefacts(self) -> Path:
        """What trials share."""
        return self.root / "artefacts"


def run_paths(runs: Path, name: str) -> RunPaths:
    """Give the paths of a named run; InputError for a name that could leave the folder."""
    if not _NAME.match(name):
        raise InputError(
            f"--name {name!r}: a run's name is letters, digits, '.', '_' and '-', and no path; "
            "the folder goes into --runs"
        )
    return RunPaths(runs / name)


def check_writable(runs: Path) -> None:
    """Raise InputError where a run's folder could not be made; nothing is left behind."""
    existing = runs
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    probe = existing / f".{_PROBE}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise InputError(
            f"--runs {runs}: cannot write there ({error.strerror}); name a folder that you may "
            "write to"
        ) from None


_PROBE = "defense-sweep-write-probe"

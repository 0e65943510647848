"""A run's folder read back: its manifest and every record, with those that cannot be read named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.errors import ResultsError
from results.records.garbage import without_collections
from results.records.mirror import mirrored
from results.records.record import Objective, Record
from trainables.records.record import TrialRecord
from trainables.records.strict import UNREADABLE, strict_json, why_unreadable
from trainables.storage.folders import is_uri

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
AUDIT = "audit"
"""The folder of a run's audit, within the run's own."""
_REQUIRED = ("run", "trials", "space", "objectives", "metrics")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: its manifest, its records in order of finishing, and the files that cannot be read."""

    path: Path
    """Its folder; of a run in an object store, the copy on this machine."""
    manifest: Mapping[str, Any]
    records: tuple[Record, ...]
    corrupt: tuple[tuple[str, str], ...]
    """(file name, reason)."""

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.manifest["run"])

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives in the manifest's order."""
        return tuple(
            Objective(metric=row["metric"], direction=row["direction"], worst=row.get("worst"))
            for row in self.manifest["objectives"]
        )

    @cached_property
    def usable(self) -> tuple[Record, ...]:
        """The completed records that are not stale."""
        return tuple(record for record in self.records if record.usable)

    @cached_property
    def eligible(self) -> tuple[Record, ...]:
        """The usable records that may be on a front or best at something."""
        return tuple(record for record in self.usable if not record.why_struck_off)

    @cached_property
    def struck_off(self) -> tuple[Record, ...]:
        """The usable records that may not, although their figures are shown."""
        return tuple(record for record in self.usable if record.why_struck_off)

    @cached_property
    def undefended(self) -> Mapping[str, tuple[Record, ...]]:
        """Scenario -> its usable records without a defense."""
        found: dict[str, list[Record]] = {}
        for record in self.usable:
            if not record.stack:
                found.setdefault(record.scenario(), []).append(record)
        return {scenario: tuple(records) for scenario, records in found.items()}

    @cached_property
    def audit(self) -> Run | None:
        """The audit of its chosen candidates, a run of its own; None where there was none."""
        folder = self.path / AUDIT
        return load(folder) if (folder / "manifest.json").is_file() else None

    def trials(self) -> pd.DataFrame:
        """Return the table of trials; its columns are those of `table.trials_frame`."""
        from results.records.table import trials_frame  # pandas: who reads a run needs no table

        return trials_frame(self.records, self.metric_names())

    def metric_names(self) -> list[str]:
        """Return the objectives and every metric that a record mentions, in the manifest's order.

        A metric at another radius (`_at_0.0157`) follows all others, in its base metric's order.
        """
        declared = {name: place for place, name in enumerate(self.manifest["metrics"])}
        mentioned = {objective.metric for objective in self.objectives}
        mentioned |= {name for record in self.records for name in record.metrics}

        def order(name: str) -> tuple[bool, int, str]:
            base = name.rpartition("_at_")[0] if name not in declared else name
            return name not in declared, declared.get(base, len(declared)), name

        return sorted(mentioned, key=order)


def load(run: str | Path) -> Run:
    """Read a run's folder, or a run at s3:// or gs:// through a copy on this machine.

    A record that cannot be read is named in `corrupt`. ResultsError where the folder or its
    manifest is missing or no manifest at all.
    """
    path = mirrored(str(run)) if is_uri(str(run)) else Path(run)
    if not path.is_dir():
        raise ResultsError(
            f"no run at {path}: no such folder; use the folder that `launch` printed"
        )
    manifest = _manifest(path / "manifest.json")
    versions = manifest.get("stage_versions", {})
    records: list[Record] = []
    corrupt: list[tuple[str, str]] = []
    with without_collections():
        for file in sorted((path / "records").glob("*.json")):
            if file.name.startswith("."):
                continue
            try:
                records.append(_record(strict_json(file.read_bytes()), file.stem, versions))
            except UNREADABLE as error:
                corrupt.append((file.name, why_unreadable(error)))
    records.sort(key=lambda record: (not record.own.finished, record.own.finished, record.trial))
    return Run(path=path, manifest=manifest, records=tuple(records), corrupt=tuple(corrupt))


def _manifest(file: Path) -> Mapping[str, Any]:
    hint = "launch the run again under its name to write it again"
    if not file.is_file():
        raise ResultsError(f"no manifest at {file}: is this a run's folder? Else {hint}")
    try:
        manifest = strict_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ResultsError(f"cannot read {file}: {why_unreadable(error)}; {hint}") from None
    if not isinstance(manifest, dict):
        raise ResultsError(f"{file} holds no JSON object; {hint}")
    missing = [name for name in _REQUIRED if name not in manifest]
    if missing:
        raise ResultsError(f"{file} lacks {', '.join(missing)}; {hint}")
    if manifest.get("format", FORMAT) != FORMAT:
        raise ResultsError(
            f"{file} is of format {manifest['format']}, this program reads {FORMAT}; "
            "use the version that wrote it"
        )
    return manifest


def _record(plain: Any, stem: str, versions: Mapping[str, int]) -> Record:
    record = TrialRecord.from_plain(plain)
    if record.trial != stem:
        raise ValueError(f"is the record of trial {record.trial}")
    return Record.of(record, versions)

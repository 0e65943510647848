"""What a trial leaves behind: one JSON file, written atomically when the trial ends."""

import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainables.metrics import Measured, MetricValue, Missing

Status = Literal["completed", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial: what was asked, what came out, on what, and how long each stage took."""

    trial: str
    """The spec's hash: the trial's identity and its file's name."""
    spec: dict[str, Any]
    """The canonical spec."""
    sampled: dict[str, Any]
    """The flat dict that the searcher drew; empty where no searcher was asked."""
    status: Status
    error: str | None = None
    metrics: dict[str, MetricValue] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    """Per epoch: train_loss, train_accuracy, validation_loss, validation_accuracy and scores."""
    timings: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds."""
    artefacts: dict[str, str] = field(default_factory=dict)
    """Role -> key in the artefact store."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What a stage says beside its numbers, such as the attack that broke each sample."""
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    stage_versions: dict[str, int] = field(default_factory=dict)
    started: str = ""
    finished: str = ""

    @property
    def struck_off(self) -> bool:
        """Whether its robust accuracy is not to be believed: the attack may not have worked."""
        attacked = self.notes.get("evasion", {})
        return bool(attacked.get("masking", {}).get("strikes") or attacked.get("adaptive") is False)

    def to_json(self) -> str:
        """Give the record as JSON; a metric is {value, low, high, n} or {value: null, reason}."""
        plain = asdict(self)
        plain["metrics"] = {name: metric_to_plain(value) for name, value in self.metrics.items()}
        return json.dumps(plain, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "TrialRecord":
        """Read a record back from its JSON text."""
        plain = json.loads(text)
        plain["metrics"] = {name: metric_from_plain(row) for name, row in plain["metrics"].items()}
        return TrialRecord(**plain)


def write_record(record: TrialRecord, folder: Path) -> Path:
    """Write `<trial>.json` into the folder: whole or not at all."""
    return write_atomically(folder / f"{record.trial}.json", record.to_json().encode())


def write_atomically(path: Path, content: bytes) -> Path:
    """Write a file under a temporary name, flush it to disk, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def metric_to_plain(value: MetricValue) -> dict[str, Any]:
    """Give a metric as {value, low, high, n}, or {value: null, reason}."""
    if isinstance(value, Missing):
        return {"value": None, "reason": value.reason}
    return asdict(value)


def metric_from_plain(row: dict[str, Any]) -> MetricValue:
    """Read a metric back from its plain form."""
    if row["value"] is None:
        return Missing(row["reason"])
    return Measured(**row)

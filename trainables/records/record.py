"""What a trial leaves behind: one JSON file, written atomically when the trial ends."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from trainables.records.strict import strict_json
from trainables.records.value import Measured, MetricValue, Missing
from trainables.storage.folders import Folder, LocalFolder

Status = Literal["completed", "failed", "stopped"]
LOST = "its worker or its storage failed, again and again"
"""Error of a trial that was lost, in words."""
_STATUSES: tuple[str, ...] = get_args(Status)
_SPEC_PARTS = ("data", "model", "training", "stack", "effort", "seed")


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
    lost: bool = False
    """Whether no try could end it, by no fault of its own: when resumed, it runs again."""
    metrics: dict[str, MetricValue] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    """Per epoch: train_loss, train_accuracy, validation_loss, validation_accuracy and scores."""
    timings: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds."""
    artefacts: dict[str, str] = field(default_factory=dict)
    """Role -> key in the artefact store."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What a stage reports besides its numbers, such as the attack that broke each sample."""
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    stage_versions: dict[str, int] = field(default_factory=dict)
    started: str = ""
    finished: str = ""

    @property
    def is_struck_off(self) -> bool:
        """Whether its robust accuracy is not to be believed: the attack may not have worked."""
        attacked = self.notes.get("evasion", {})
        return bool(attacked.get("masking", {}).get("strikes") or attacked.get("adaptive") is False)

    def bare(self, metrics: Collection[str] | None = None) -> "TrialRecord":
        """Return it without curves, and of its notes what `is_struck_off` needs: they are its bulk.

        `metrics` names those that are kept; None keeps all.
        """
        attacked = self.notes.get("evasion", {})
        marks = {name: attacked[name] for name in ("masking", "adaptive") if name in attacked}
        kept = {n: v for n, v in self.metrics.items() if metrics is None or n in metrics}
        return replace(self, metrics=kept, curves={}, notes={"evasion": marks} if marks else {})

    def to_json(self) -> str:
        """Return the record as JSON; a metric is {value, low, high, n} or {value: null, reason}."""
        plain = asdict(self)
        plain["metrics"] = {name: metric_to_plain(value) for name, value in self.metrics.items()}
        return json.dumps(plain, indent=1, allow_nan=False)

    @staticmethod
    def from_json(content: bytes | str) -> "TrialRecord":
        """Read a record back from its JSON.

        Raises ValueError, TypeError, KeyError or AttributeError where it has another shape; see
        `why_unreadable`.
        """
        return TrialRecord.from_plain(strict_json(content))

    @staticmethod
    def from_plain(plain: Any) -> "TrialRecord":
        """Read a record from what its JSON holds; raises as `from_json` does.

        Parts that a record of an older program lacks are empty.
        """
        if not isinstance(plain, dict):
            raise ValueError("holds no JSON object")
        status, spec, error = plain["status"], plain["spec"], plain.get("error")
        if status not in _STATUSES:
            raise ValueError(f"unknown status {status!r}; known: {', '.join(_STATUSES)}")
        lacking = [part for part in _SPEC_PARTS if part not in spec]
        if lacking:
            raise ValueError(f"its spec lacks {', '.join(lacking)}")
        metrics = (plain.get("metrics") or {}).items()
        return TrialRecord(
            trial=plain["trial"],
            spec=spec,
            sampled=plain.get("sampled") or {},
            status=status,
            error=error,
            # Older programs wrote nothing but the words.
            lost=plain.get("lost", error == LOST),
            metrics={name: metric_from_plain(row) for name, row in metrics},
            **{part: plain[part] for part in _FURTHER if plain.get(part)},
        )


_FURTHER = (
    "curves", "timings", "artefacts", "notes", "hardware", "versions", "stage_versions", "started",
    "finished",
)  # fmt: skip


def write_record(record: TrialRecord, folder: Folder | Path) -> str:
    """Write `<trial>.json` into the folder, whole or not at all; return its name there."""
    records = LocalFolder(folder) if isinstance(folder, Path) else folder
    name = record_name(record.trial)
    records.write(name, record.to_json().encode())
    return name


def read_record(folder: Folder, trial: str) -> TrialRecord | None:
    """Read a trial's record back; None where there is none."""
    try:
        return TrialRecord.from_json(folder.read(record_name(trial)))
    except FileNotFoundError:
        return None


def record_name(trial: str) -> str:
    """Name the file of a trial's record."""
    return f"{trial}.json"


def metric_to_plain(value: MetricValue) -> dict[str, Any]:
    """Return a metric as {value, low, high, n}, or {value: null, reason}."""
    if isinstance(value, Missing):
        return {"value": None, "reason": value.reason}
    return {"value": value.value, "low": value.low, "high": value.high, "n": value.n}


def metric_from_plain(row: Mapping[str, Any]) -> MetricValue:
    """Read a metric back from its plain form."""
    if row["value"] is None:
        return Missing(str(row.get("reason", "no reason given")))
    return Measured(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]))

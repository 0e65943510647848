"""Records as tables: a row per trial, as a DataFrame, Parquet and CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from results.files import replace_file
from results.load import Record, Run, setting_text
from results.pareto import Front, fronts

_MISSING = SimpleNamespace(value=math.nan, low=math.nan, high=math.nan)


def trials_frame(run: Run) -> pd.DataFrame:
    """Give a row per readable record.

    Columns in order: trial, status, defense, stale, masking (what the masking check found, empty
    where nothing), adaptive (whether the attack knew the whole defense, empty where not recorded),
    `<defense>.<parameter>`, dataset, model, seed, the `training.<setting>` that vary, then per
    metric name, name_low, name_high, and error.
    """
    records = run.records
    columns: dict[str, pd.Series] = {
        "trial": _text([record.trial for record in records]),
        "status": _text([record.status for record in records]),
        "defense": _text([record.label for record in records]),
        "stale": pd.Series([record.stale for record in records], dtype="bool"),
        "masking": _text([record.masking or None for record in records]),
        "adaptive": pd.Series([record.evasion.adaptive for record in records], dtype="boolean"),
    }
    columns |= _defense_columns(records)
    columns["dataset"] = _text([_part(record, "data", "name") for record in records])
    columns["model"] = _text([_part(record, "model", "name") for record in records])
    columns["seed"] = pd.Series([record.spec.get("seed") for record in records], dtype="Int64")
    columns |= _training_columns(records)
    for name in metric_names(run):
        columns |= _metric_columns(records, name)
    columns["error"] = _text([record.error for record in records])
    return pd.DataFrame(columns)


def metric_names(run: Run) -> list[str]:
    """Give the objectives and every metric that a record mentions, in the manifest's order.

    A metric at another radius (`_at_0.0157`) follows all others, in its base metric's order.
    """
    declared = {name: place for place, name in enumerate(run.manifest["metrics"])}
    mentioned = {objective.metric for objective in run.objectives}
    mentioned |= {name for record in run.records for name in record.metrics}

    def order(name: str) -> tuple[bool, int, str]:
        base = name.rpartition("_at_")[0] if name not in declared else name
        return name not in declared, declared.get(base, len(declared)), name

    return sorted(mentioned, key=order)


def front_frame(frame: pd.DataFrame, found: Sequence[Front]) -> pd.DataFrame:
    """Give the rows of a `trials_frame` that lie on a front, and on which (`fronts`)."""
    on: dict[str, list[str]] = {}
    for front in found:
        for member in front.members:
            on.setdefault(member.trial, []).append(front.key)
    rows = frame[frame["trial"].isin(list(on))].reset_index(drop=True)
    places = _text(["+".join(on[str(trial)]) for trial in rows["trial"]])
    rows.insert(list(rows.columns).index("stale") + 1, "fronts", places)
    return rows


def write_tables(run: Run, found: Sequence[Front] | None = None) -> tuple[Path, Path, Path]:
    """Write trials.parquet, report/trials.csv and report/front.csv; give their paths.

    `found` are the run's fronts where the caller has them already.
    """
    trials = trials_frame(run)
    members = front_frame(trials, fronts(run) if found is None else found)
    report = run.path / "report"
    return (
        replace_file(
            run.path / "trials.parquet", lambda path: trials.to_parquet(path, index=False)
        ),
        replace_file(report / "trials.csv", partial(_write_csv, trials)),
        replace_file(report / "front.csv", partial(_write_csv, members)),
    )


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, numbers in full: ten times as fast as pandas does."""
    csv.write_csv(
        pa.Table.from_pandas(frame, preserve_index=False), path,
        csv.WriteOptions(quoting_style="needed", quoting_header="needed"),
    )  # fmt: skip


def _defense_columns(records: Sequence[Record]) -> dict[str, pd.Series]:
    found: dict[str, list[Any]] = {}
    for place, record in enumerate(records):
        for defense in record.stack:
            for name, value in defense.items():
                if name != "name":
                    column = f"{defense['name']}.{name}"
                    found.setdefault(column, [None] * len(records))[place] = value
    return {name: _settings(found[name]) for name in sorted(found)}


def _training_columns(records: Sequence[Record]) -> dict[str, pd.Series]:
    rows: list[Mapping[str, Any]] = [record.spec.get("training") or {} for record in records]
    names = sorted({name for row in rows for name in row})
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if len({setting_text(value) for value in values}) > 1:
            columns[f"training.{name}"] = _settings(values)
    return columns


def _metric_columns(records: Sequence[Record], name: str) -> dict[str, pd.Series]:
    # Column by column, numbers alone: a run of thousands of trials holds a million values.
    found = [record.metrics.get(name) or _MISSING for record in records]
    return {
        name: _numbers([value.value for value in found]),
        f"{name}_low": _numbers([value.low for value in found]),
        f"{name}_high": _numbers([value.high for value in found]),
    }


def _settings(values: Sequence[Any]) -> pd.Series:
    """Give one column of settings: numbers, truth values, or else text."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present):
        return pd.Series(list(values), dtype="boolean")
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return _numbers(values)
    return _text([None if value is None else setting_text(value) for value in values])


def _numbers(values: Sequence[float | None]) -> pd.Series:
    return pd.Series(np.array(values, dtype="float64"))


def _text(values: Sequence[str | None]) -> pd.Series:
    return pd.Series(list(values), dtype="string")


def _part(record: Record, part: str, name: str) -> str | None:
    value = (record.spec.get(part) or {}).get(name)
    return None if value is None else str(value)

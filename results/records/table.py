"""Records as one table: a row per trial, as a DataFrame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from results.records.record import Record, setting_text
from trainables.records.value import Measured

_MISSING = SimpleNamespace(value=math.nan, low=math.nan, high=math.nan)


def trials_frame(records: Sequence[Record], metrics: Sequence[str]) -> pd.DataFrame:
    """Return a row per readable record.

    Columns in order: trial, status, defense, stale, masking (what the masking check found, empty
    where nothing), adaptive (whether the attack knew the whole defense, empty where not recorded),
    `<defense>.<parameter>`, dataset, model, seed, the `training.<setting>` that vary, then per
    metric name, name_low, name_high, and error.
    """
    columns: dict[str, pd.Series] = {
        "trial": text_column([record.trial for record in records]),
        "status": text_column([record.status for record in records]),
        "defense": text_column([record.label for record in records]),
        "stale": pd.Series([record.stale for record in records], dtype="bool"),
        "masking": text_column([record.masking or None for record in records]),
        "adaptive": pd.Series([record.evasion.adaptive for record in records], dtype="boolean"),
    }
    columns |= _defense_columns(records)
    columns["dataset"] = text_column([_part(record, "data", "name") for record in records])
    columns["model"] = text_column([_part(record, "model", "name") for record in records])
    columns["seed"] = pd.Series([record.spec.get("seed") for record in records], dtype="Int64")
    columns |= _training_columns(records)
    for name in metrics:
        columns |= _metric_columns(records, name)
    columns["error"] = text_column([record.error for record in records])
    return pd.DataFrame(columns)


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
    rows = [record.own.metrics.get(name) for record in records]
    found = [row if isinstance(row, Measured) else _MISSING for row in rows]
    return {
        name: _numbers([value.value for value in found]),
        f"{name}_low": _numbers([value.low for value in found]),
        f"{name}_high": _numbers([value.high for value in found]),
    }


def _settings(values: Sequence[Any]) -> pd.Series:
    """Return one column of settings: numbers, truth values, or else text."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present):
        return pd.Series(list(values), dtype="boolean")
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return _numbers(values)
    return text_column([None if value is None else setting_text(value) for value in values])


def _numbers(values: Sequence[float | None]) -> pd.Series:
    return pd.Series(np.array(values, dtype="float64"))


def text_column(values: Sequence[str | None]) -> pd.Series:
    """Return a column of text."""
    return pd.Series(list(values), dtype="string")


def _part(record: Record, part: str, name: str) -> str | None:
    value = (record.spec.get(part) or {}).get(name)
    return None if value is None else str(value)

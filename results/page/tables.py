"""The tables of a report: trials and the fronts' members, as Parquet and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from results.records.files import replace_file
from results.records.run import Run
from results.records.table import text_column
from results.statistics.fronts import Front, fronts


def front_frame(frame: pd.DataFrame, found: Sequence[Front]) -> pd.DataFrame:
    """Return the rows of a `trials_frame` that lie on a front, and on which (`fronts`)."""
    on: dict[str, list[str]] = {}
    for front in found:
        for member in front.members:
            on.setdefault(member.trial, []).append(front.key)
    rows = frame[frame["trial"].isin(list(on))].reset_index(drop=True)
    places = text_column(["+".join(on[str(trial)]) for trial in rows["trial"]])
    rows.insert(list(rows.columns).index("stale") + 1, "fronts", places)
    return rows


def write_tables(run: Run, found: Sequence[Front] | None = None) -> tuple[Path, Path, Path]:
    """Write trials.parquet, report/trials.csv and report/front.csv; return their paths.

    `found` are the run's fronts where the caller has them already.
    """
    trials = run.trials()
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

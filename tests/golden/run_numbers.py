"""The numbers of a run's tables and report, to be held against those that were recorded."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

COMMIT = "85021ec"
FOLDER = Path(__file__).parent
RUN = FOLDER / f"run_{COMMIT}"
SPACE = FOLDER / "pinned.yaml"
NUMBERS = FOLDER / f"run_{COMMIT}.json"
"""As the program of that commit wrote them into trials.csv and report.json."""


def table_numbers(report: Path) -> dict[str, dict[str, float]]:
    """Return trial -> column -> number of trials.csv; cells that hold none are left out."""
    with (report / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["trial"]: dict(_numbers_of(row)) for row in rows}


def report_numbers(report: Path) -> dict[str, float]:
    """Return the place of each number in report.json -> the number."""
    return dict(_leaves(json.loads((report / "report.json").read_text())))


def _numbers_of(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        if name != "trial":
            try:
                yield name, float(text)
            except ValueError:
                continue  # a cell of text, or an empty one


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{number}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, float(value)

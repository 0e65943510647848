"""What there is: the registries in one form, for `list`.

Each function imports the registry that it lists: the others are not waited for.
"""

from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from orchestrator.standins import stood_in
from trainables.errors import InputError
from trainables.parameters import describe_parameters

Row = dict[str, Any]


def list_defenses() -> list[Row]:
    """List the defenses."""
    from trainables.defenses import DEFENSES

    return [
        _row(
            name, defense.meaning, defense.source, describe_parameters(defense),
            guarantee=defense.guarantee, slot=defense.slot,
        )
        for name, defense in DEFENSES.items()
    ]  # fmt: skip


def list_threats() -> list[Row]:
    """List the threats."""
    from trainables.threats import THREATS

    return [
        _row(name, threat.meaning, threat.source, describe_parameters(threat))
        for name, threat in THREATS.items()
    ]


def list_attacks() -> list[Row]:
    """List the attacks; one under settings that are named on their own is a row of its own."""
    from trainables.attacks import VARIANTS
    from trainables.attacks.registry import keywords_of

    rows = []
    for name, chosen in VARIANTS.items():
        keywords = keywords_of(chosen.function)
        free = {k: v for k, v in keywords.items() if k not in chosen.fixed}
        rows.append(_row(name, chosen.meaning, chosen.entry.source, free))
    return rows


def list_datasets() -> list[Row]:
    """List the data sets."""
    from trainables.datasets import DATASETS

    return [
        _row(
            name, entry.meaning, entry.source,
            {
                "radius": {"meaning": "standard Linf radius", "default": entry.radius},
                "radius_l2": {"meaning": "standard L2 radius", "default": entry.radius_l2},
            },
        )
        for name, entry in DATASETS.items()
    ]  # fmt: skip


def list_models() -> list[Row]:
    """List the models."""
    from trainables.models import MODELS

    norms = ["default", "batch", "group", "none"]
    return [
        _row(
            name, entry.meaning, entry.source,
            {"norm": {"meaning": "normalisation layers", "default": entry.default_norm,
                      "words": norms}},
        )
        for name, entry in MODELS.items()
    ]  # fmt: skip


def list_metrics() -> list[Row]:
    """List the metrics."""
    from trainables.metrics import METRICS

    return [
        _row(
            metric.name, metric.meaning, metric.source, {}, direction=metric.direction,
            unit=metric.unit, interval=metric.interval, worst=metric.worst,
        )
        for metric in METRICS.values()
    ]  # fmt: skip


def list_spaces() -> list[Row]:
    """List the spaces that come with the project."""
    from search_spaces.loader import available, read_space_file
    from search_spaces.schema import NONE

    rows = []
    for name in available():
        file = read_space_file(name)
        searched = {
            defense: sorted(raw or {}) for defense, raw in file.defenses.items() if defense != NONE
        }
        source = file.published.source if file.published else ""
        rows.append(_row(name, file.description, source, searched))
    return rows


LISTS: Mapping[str, Callable[[], list[Row]]] = {
    "spaces": list_spaces,
    "defenses": list_defenses,
    "attacks": list_attacks,
    "threats": list_threats,
    "datasets": list_datasets,
    "models": list_models,
    "metrics": list_metrics,
}


def rows_at_once(what: str) -> list[Row]:
    """List one kind of what there is without waiting for torch.

    Raises InputError, naming the known kinds, for any other word.
    """
    if what not in LISTS:
        raise InputError(f"unknown list {what!r}; known: {', '.join(LISTS)}")
    with stood_in():
        return LISTS[what]()


def plain_lines(rows: list[Row]) -> str:
    """Write a row a line, uncut, its columns apart by tabs: for other programs and for copying."""
    return "".join(
        "\t".join((row["name"], row["meaning"], ", ".join(row["parameters"]), row["source"])) + "\n"
        for row in rows
    )


def table(rows: list[Row]) -> Table:
    """Write the rows for a terminal, whose width may wrap anything except a name."""
    found = Table(box=None, pad_edge=False)
    found.add_column("name", no_wrap=True, overflow="ignore", min_width=_widest(rows))
    for title in ("meaning", "parameters", "source"):
        found.add_column(title)
    for row in rows:
        cells = (row["name"], row["meaning"], ", ".join(row["parameters"]), row["source"])
        found.add_row(*(escape(cell) for cell in cells))
    return found


def _widest(rows: list[Row]) -> int:
    return max((len(row["name"]) for row in rows), default=0)


def _row(name: str, meaning: str, source: str, parameters: Mapping[str, Any], **more: Any) -> Row:
    return {
        "name": name,
        "meaning": meaning,
        "source": source,
        "parameters": dict(parameters),
        "guarantee": more.pop("guarantee", None),
        **more,
    }

"""The lists as Markdown tables: `list metrics --markdown` is the page docs/metrics.md."""

from collections.abc import Iterable

from orchestrator.commands.list import Row, rows_at_once

_BETTER = {"maximize": "higher", "minimize": "lower", "none": "-"}
_METRICS_HEAD = """\
# Metrics

<!-- Written by: python -m orchestrator list metrics --markdown > docs/metrics.md -->

`better` is the direction in which a metric is optimized. The suffix `_at_0.0157` names a metric at
that radius (eps) instead of the data set's standard one, which
`python -m orchestrator list datasets --json` prints. `certified_accuracy_at_0.5` counts only
certificates whose radius is 0.5 or more.

"""
_METRICS_OF_ATTACKS = "\nFor each attack:\n\n"


def markdown(what: str, rows: list[Row]) -> str:
    """Return one kind of what there is as Markdown; the metrics as a whole page."""
    if what == "metrics":
        return _metrics_page(rows)
    cells = (
        (f"`{row['name']}`", row["meaning"], ", ".join(row["parameters"]), row["source"])
        for row in rows
    )
    return _table(("name", "meaning", "parameters", "source"), cells)


def _metrics_page(rows: list[Row]) -> str:
    """Return the glossary: metrics that every attack has are one row for all attacks."""
    attacks = sorted((row["name"] for row in rows_at_once("attacks")), key=len, reverse=True)
    fixed: dict[str, tuple[str, ...]] = {}
    of_attacks: dict[str, tuple[str, ...]] = {}
    for row in rows:
        name, meaning = row["name"], row["meaning"]
        named = next((attack for attack in attacks if name.endswith(f"_{attack}")), None)
        if named is not None:
            name = f"{name.removesuffix(named)}<attack>"
            meaning = meaning.replace(named, "the attack")
        cells = (f"`{name}`", _BETTER[row["direction"]], row["unit"], meaning)
        (fixed if named is None else of_attacks).setdefault(name, cells)
    titles = ("metric", "better", "unit", "meaning")
    return (
        _METRICS_HEAD
        + _table(titles, fixed.values())
        + _METRICS_OF_ATTACKS
        + _table(titles, of_attacks.values())
    )


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

"""A model card as Markdown, from its plain values."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from results.records.values import value_text
from trainables.metrics.attacks import OF_ATTACKS
from trainables.records.value import Measured

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")
_OF_ATTACKS = {metric.name for metric in OF_ATTACKS}
_AT_RADIUS = re.compile(r"_at_\d+\.\d{4}$")
_COSTS = (
    "training_seconds",
    "forward_passes_per_prediction",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p50_batch128",
    "latency_ms_p95_batch128",
    "peak_memory_mib",
    "certification_seconds",
)
_USE = """```python
from results.bundle import load
model = load("DIR")
answers = model.predict("photo.jpg")
answers.names, answers.probability, answers.rejected
```

`predict` takes paths, Pillow's images, and arrays of bytes or of floats in [0, 1], of any size. It
turns them upright by their EXIF orientation, composes them on white and resizes them as the
training images of a folder were (to grey where the model is). `probabilities(x)` takes the pixels
as they are."""


def card_markdown(card: Mapping[str, Any]) -> str:
    """Write the card: what it is, how it was judged, what it cost and where it ends."""
    audited, measured = card["audited"], card["measured"]
    parts = [
        f"# {_text(card['name'])}",
        f"Exported {_text(card['created'])} from the run {_text(card['run'])}. "
        f"Verdict of its audit: **{_text(audited['verdict'])}** ({_text(audited['because'])}).",
        _section("What it is", _what(card)),
        f"It takes {_text(card['model']['input'])}:\n\n{_USE}",
        _section("Guarantee", [card["guarantee"]]),
        _section("Threat model", card["threat_model"]),
        "## Figures\n\n"
        f"Audited: means over the seeds {_text(audited['seeds'])}. This model: its own figures, "
        f"measured after its training (seed {measured['seed']}, effort "
        f"{_text(measured['effort'])}, {_text(measured['pool'])}). Intervals are 95 %; n counts "
        "the items.",
        _figures(audited["metrics"], measured["metrics"]),
        _section("Not measured on this model", _grouped(measured["missing"])),
        _section("About these figures", card["notes"]),
        "## Cost",
        f"On {_text(_hardware(measured['hardware']))}.",
        _figures({}, {n: r for n, r in measured["metrics"].items() if n in _COSTS}, all_=True),
        _section("Training data", _pairs(card["training_data"])),
        _section("Known limits", (f"{row['defense']}: {row['text']}" for row in card["limits"])),
        _section(
            "How it, or similar defenses, have been broken",
            (f"{row['defense']}: {row['text']}" for row in card["broken_by"]),
        ),
        _section("Program", [_program(card["program"])]),
        "`card.json` holds every figure, with its meaning and how its interval is computed.",
    ]
    return "\n\n".join(parts) + "\n"


def _what(card: Mapping[str, Any]) -> list[str]:
    model = card["model"]
    rows = [
        f"architecture {model['architecture']} (norm {model['norm']}, {model['activation']}), "
        f"{model['parameters']:,} parameters, {len(model['classes'])} classes",
        *card["answers"],
    ]
    for defense in card["stack"]:
        settings = _settings(defense["settings"])
        rows.append(f"{defense['name']}({settings}): {defense['meaning']} {defense['source']}")
    rows += [f"fitted: {name}, {_settings(values)}" for name, values in card["fitted"].items()]
    return rows


def _hardware(hardware: Mapping[str, Any]) -> str:
    """Return the device, and the precisions where the record has them."""
    device = str(hardware.get("device", "an unnamed device"))
    trained, measured = (hardware.get(f"{what}_precision") for what in ("training", "measuring"))
    if trained is None or measured is None:
        return device
    return f"{device}: trained in {trained}, measured in {measured} (TF32 off)"


def _program(program: Mapping[str, Any]) -> str:
    if program["file"] is None:
        return f"no torch.export program: {program['why_not']}"
    return (
        f"{program['file']}: the probabilities as a torch.export program, for any batch. "
        "torch.export.load can run code from a file that somebody else made: let verify check "
        "the bundle's hashes first, and use bundles only from sources that you trust"
    )


def _figures(audited: Mapping[str, Any], measured: Mapping[str, Any], *, all_: bool = False) -> str:
    names = [
        name
        for name in dict.fromkeys((*audited, *measured))
        if all_ or not (name in _OF_ATTACKS or name in _COSTS or _AT_RADIUS.search(name))
    ]
    if not all_:
        head = "| metric | audited | n | seeds | this model | n |\n|---|---|--:|--:|---|--:|"
        rows = [
            f"| {_text(name)} | {_value(audited.get(name))} | {_of(audited.get(name), 'n')} "
            f"| {_of(audited.get(name), 'seeds')} | {_value(measured.get(name))} "
            f"| {_of(measured.get(name), 'n')} |"
            for name in names
        ]
    else:
        head = "| metric | this model | unit | n |\n|---|---|---|--:|"
        rows = [
            f"| {_text(name)} | {_value(measured[name])} | {_text(measured[name]['unit'])} "
            f"| {_of(measured[name], 'n')} |"
            for name in names
        ]
    return "\n".join([head, *rows])


def _value(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not measured"
    return _text(value_text(Measured(row["value"], row["low"], row["high"], row["n"])))


def _of(row: Mapping[str, Any] | None, what: str) -> str:
    return "" if row is None else f"{row[what]:,}"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _pairs(plain: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {_settings(value) if isinstance(value, Mapping) else value}"
        for name, value in plain.items()
    ]


def _grouped(reasons: Mapping[str, str]) -> list[str]:
    """List each reason once, after all the metrics that it applies to."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [f"{', '.join(named)}: {reason}" for reason, named in names.items()]


def _section(title: str, rows: Iterable[str]) -> str:
    lines = [f"- {_text(row)}" for row in rows] or ["- nothing"]
    return "\n".join([f"## {title}", "", *lines])


def _text(value: object) -> str:
    """Write anything as Markdown that shows it as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))

"""The figures of a report: each is drawn from its info and saved as PNG, SVG and PDF."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results.page.figure_infos import (
    CurvesInfo,
    EffectsInfo,
    HypervolumeInfo,
    ParetoInfo,
    ParetoPoint,
    effect_label,
    is_stack,
)
from results.records.files import replace_bytes
from results.records.record import UNDEFENDED_LABEL
from results.sections.certificates import CertificatesInfo, short_labels
from results.sections.reproduction import PublishedFigure
from results.sections.robustness import RobustnessInfo, curve_label
from results.statistics.effects import STRUCK_OFF, Effect
from trainables.records.value import Measured

DPI = 150
# Okabe and Ito's palette, without its yellow, which is hard to see on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B5B5B")
# Single defenses and stacks share neither a colour nor a marker.
SINGLE_COLOURS = (*PALETTE[:6], "#882255", "#117733", "#332288")
SINGLE_MARKERS = ("o", "s", "^", "D", "v", "<", ">", "h")
STACK_COLOURS = ("#5B5B5B", "#8C6D31", "#9467BD", "#B22222", "#7F9C00")
STACK_MARKERS = ("P", "X", "p", "d")
VERDICT_LOOKS = {
    "better": (PALETTE[2], "o"),
    "worse": (PALETTE[1], "s"),
    "cannot be told": ("#777777", "D"),
    STRUCK_OFF: ("#B22222", "x"),
}
_WIDTH = 7.0
_SHIFT = 0.03
"""Between two curves at one radius, in multiples of the standard radius."""
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 10.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
    # Fixed, so that the same run writes the same file.
    "svg.hashsalt": "defense-sweep",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure to be drawn: its file name, its title, its description and how to draw it."""

    name: str
    title: str
    alt: str
    draw: Callable[[], Figure]


def save(drawing: Drawing, folder: Path) -> tuple[Path, Path, Path]:
    """Draw and write `<name>.png`, `<name>.svg` and `<name>.pdf`; return their paths."""
    with matplotlib.rc_context(), style.context(["default", _STYLE]):
        figure = drawing.draw()
        figure.set_dpi(DPI)
        # Without the time, and other words of the machine: the same run, the same file.
        png = _drawn(FigureCanvasAgg(figure).print_png, Software=None)
        # Laid out once: each format would do it again, which takes longest of all. `savefig` would
        # draw each twice.
        figure.set_layout_engine("none")
        svg = _drawn(FigureCanvasSVG(figure).print_svg, Date=None)
        pdf = _drawn(FigureCanvasPdf(figure).print_pdf, CreationDate=None)
    return (
        replace_bytes(folder / f"{drawing.name}.png", png),
        replace_bytes(folder / f"{drawing.name}.svg", svg),
        replace_bytes(folder / f"{drawing.name}.pdf", pdf),
    )


def _drawn(write: Callable[..., None], **metadata: None) -> bytes:
    # In memory: on a full disk a drawing that is half written ends in errors of its own.
    drawn = io.BytesIO()
    write(drawn, metadata=metadata)
    return drawn.getvalue()


def draw_pareto(info: ParetoInfo) -> Figure:
    """Draw every trial with its intervals, the front as a line, the undefended as a star."""
    rows = -(-(len(info.families) + 1 + bool(info.struck_off)) // 3)
    figure = Figure(figsize=(_WIDTH, 4.6 + 0.2 * rows))
    axes = figure.subplots()
    crowded = len(info.points) > 25
    colours = _families(info.families)
    for name in info.families:
        for on_front in (False, True):
            chosen = [p for p in info.points if p.family == name and p.on_front == on_front]
            if info.dense and not on_front and name != UNDEFENDED_LABEL:
                _draw_many(axes, chosen, colours[name], name)
            else:
                _draw_family(axes, name, chosen, colours[name], faint=crowded and not on_front)
    if info.dense:
        _draw_many(axes, info.struck_off, VERDICT_LOOKS[STRUCK_OFF], STRUCK_OFF)
    else:
        _draw_struck_off(axes, info.struck_off)
    on = sorted((p for p in info.points if p.on_front), key=lambda p: p.x.value)
    axes.plot(
        [p.x.value for p in on], [p.y.value for p in on], drawstyle="steps-pre", color="black",
        linewidth=1.6, zorder=3, label="front",
    )  # fmt: skip
    axes.set_xlabel(info.x_label)
    axes.set_ylabel(info.y_label)
    if info.frame is not None:
        axes.set_xlim(info.frame.x)
        axes.set_ylim(info.frame.y)
    _legend(figure, axes, columns=3)
    return figure


def draw_hypervolume(info: HypervolumeInfo) -> Figure:
    """Draw the hypervolume after each finished trial."""
    figure = Figure(figsize=(_WIDTH, 3.4))
    axes = figure.subplots()
    trials = range(1, len(info.volumes) + 1)
    axes.plot(trials, info.volumes, drawstyle="steps-post", color=PALETTE[0], linewidth=1.8)
    axes.plot([len(info.volumes)], [info.volumes[-1]], "o", color=PALETTE[0])
    axes.set_xlabel("finished trials that count")
    axes.set_ylabel("hypervolume (higher is better)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_curves(info: CurvesInfo) -> Figure:
    """Draw loss and accuracy over epochs, training dashed and validation solid."""
    figure = Figure(figsize=(_WIDTH, 3.6 + 0.19 * (len(info.curves) + 1)))
    left, right = figure.subplots(1, 2)
    for place, curve in enumerate(info.curves):
        colour = PALETTE[place % len(PALETTE)]
        marker = "" if place < len(PALETTE) else "."
        for axes, (train, held) in ((left, curve.losses), (right, curve.accuracies)):
            axes.plot(range(1, len(train) + 1), train, "--", color=colour, linewidth=1, alpha=0.8)
            axes.plot(
                range(1, len(held) + 1), held, "-", color=colour, linewidth=1.6, marker=marker,
                label=curve.label,
            )  # fmt: skip
    for axes, name in ((left, "loss"), (right, "accuracy")):
        axes.set_xlabel("epoch")
        axes.set_title(f"{name} (solid: validation, dashed: training)", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, left, columns=1)
    return figure


def draw_robustness(info: RobustnessInfo) -> Figure:
    """Draw robust accuracy over the radius with its intervals, the undefended dashed."""
    figure = Figure(figsize=(_WIDTH, 3.9 + 0.19 * len(info.curves)))
    axes = figure.subplots()
    defended = 0
    for place, curve in enumerate(info.curves):
        # Side by side, so that the intervals at one radius can be distinguished.
        shift = _SHIFT * (place - (len(info.curves) - 1) / 2)
        colour, marker, line = "black", "*", "--"
        if curve.record.stack:
            colour, marker, line = PALETTE[defended], SINGLE_MARKERS[defended], "-"
            defended += 1
        values = [value for _, value in curve.points]
        axes.errorbar(
            [multiple + shift for multiple, _ in curve.points], [v.value for v in values],
            yerr=_reach(values), color=colour, marker=marker, linestyle=line, linewidth=1.4,
            markersize=8 if marker == "*" else 5, capsize=2, elinewidth=1,
            label=curve_label(curve.record),
        )  # fmt: skip
    ticks = sorted({multiple for curve in info.curves for multiple, _ in curve.points})
    axes.set_xticks(ticks, [_radius_tick(tick, info.radius) for tick in ticks])
    below = "" if info.radius is None else "; below it eps, in pixel units"
    axes.set_xlabel(f"radius, in multiples of the standard one{below}")
    axes.set_ylabel("robust accuracy (higher is better)")
    axes.set_ylim(-0.02, 1.02)
    _legend(figure, axes, columns=1)
    return figure


def draw_certificates(info: CertificatesInfo) -> Figure:
    """Draw certified accuracy over the L2 radius as steps, each with the band of its interval."""
    figure = Figure(figsize=(_WIDTH, 3.9 + 0.19 * len(info.curves)))
    axes = figure.subplots()
    labels = short_labels([curve.record for curve in info.curves])
    for colour, label, curve in zip(PALETTE, labels, info.curves, strict=False):
        # At its end a curve drops to none: beyond it nothing is drawn.
        radii = [radius for radius, _ in curve.points] + [curve.largest]
        values = [value for _, value in curve.points] + [curve.beyond]
        axes.plot(
            radii, [value.value for value in values], drawstyle="steps-pre", color=colour,
            linewidth=1.6, label=label,
        )  # fmt: skip
        axes.fill_between(
            radii, [value.low for value in values], [value.high for value in values],
            step="pre", color=colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
    axes.set_xlabel("certified radius T, L2 in pixel units")
    axes.set_ylabel("certified accuracy at T (higher is better)")
    axes.set_xlim(left=0)
    axes.set_ylim(-0.02, 1.02)
    _legend(figure, axes, columns=1)
    return figure


def draw_effects(info: EffectsInfo) -> Figure:
    """Draw a row per defense and a panel per objective: the difference with its interval."""
    columns = 2 if len(info.metrics) in (2, 4) else min(3, len(info.metrics))
    lines = -(-len(info.metrics) // columns)
    labels = [_wrapped(effect_label(effect)) for effect in info.rows]
    deepest = max(label.count("\n") + 1 for label in labels)
    row = max(0.34, 0.06 + 0.13 * deepest)
    figure = Figure(figsize=(_WIDTH, 0.3 + lines * (0.8 + row * len(labels))))
    panels: list[Axes] = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for axes, (metric, maximized) in zip(panels, info.metrics, strict=False):
        _draw_changes(axes, info.rows, metric)
        axes.set_title(metric, fontsize=9)
        axes.set_xlabel("better \u2192" if maximized else "\u2190 better")
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.set_ylim(len(labels) - 0.4, -0.6)
    for axes in panels[len(info.metrics) :]:
        axes.set_visible(False)
    figure.supxlabel("difference to undefended", fontsize=10)
    return figure


def draw_published(info: PublishedFigure) -> Figure:
    """Draw ours with its intervals and the published figures as open diamonds."""
    figure = Figure(figsize=(_WIDTH, 4.2))
    axes = figure.subplots()
    for place, (label, points) in enumerate(info.series):
        colour = PALETTE[place % len(PALETTE)]
        ours = [(point.x, point.ours) for point in points if point.ours is not None]
        theirs = [(p.x, p.published) for p in points if p.published is not None]
        if ours:
            axes.errorbar(
                [x for x, _ in ours], [value.value for _, value in ours],
                yerr=_reach([value for _, value in ours]), color=colour, marker="o", capsize=3,
                label=f"{label}, ours",
            )  # fmt: skip
        if theirs:
            axes.plot(
                [x for x, _ in theirs], [y for _, y in theirs], linestyle=":", marker="D",
                color=colour, markerfacecolor="white", markersize=7, label=f"{label}, published",
            )  # fmt: skip
    axes.set_xlabel(info.x_label)
    axes.set_ylabel(info.y_label)
    axes.set_title(info.title)
    _legend(figure, axes, columns=2)
    return figure


def _draw_family(
    axes: Axes, name: str, points: Sequence[ParetoPoint], look: tuple[str, str], *, faint: bool
) -> None:
    if not points:
        return
    colour, marker = look
    plain = name == UNDEFENDED_LABEL
    on_front = points[0].on_front
    axes.errorbar(
        [p.x.value for p in points],
        [p.y.value for p in points],
        xerr=_reach([p.x for p in points]),
        yerr=_reach([p.y for p in points]),
        linestyle="none",
        color=colour,
        marker=marker,
        markersize=15 if plain else 8 if on_front else 5.5,
        markeredgecolor="white" if plain else "black" if on_front else colour,
        ecolor=(colour, 0.16 if faint and not plain else 0.4),
        elinewidth=1,
        zorder=6 if plain else 5 if on_front else 2,
        label="undefended" if plain else name,
    )


def _draw_many(
    axes: Axes, points: Sequence[ParetoPoint], look: tuple[str, str], label: str
) -> None:
    """Draw points alone, as one picture also in an SVG: thousands of shapes take a browser long."""
    if not points:
        return
    colour, marker = look
    axes.plot(
        [p.x.value for p in points], [p.y.value for p in points], linestyle="none", color=colour,
        marker=marker, markersize=3, alpha=0.35, zorder=2, label=label, rasterized=True,
    )  # fmt: skip


def _draw_struck_off(axes: Axes, points: Sequence[ParetoPoint]) -> None:
    if not points:
        return
    colour, marker = VERDICT_LOOKS[STRUCK_OFF]
    axes.errorbar(
        [p.x.value for p in points], [p.y.value for p in points],
        xerr=_reach([p.x for p in points]), yerr=_reach([p.y for p in points]),
        linestyle="none", color=colour, marker=marker, markersize=7, markeredgewidth=1.8,
        ecolor=(colour, 0.25), elinewidth=1, zorder=4, label=STRUCK_OFF,
    )  # fmt: skip


def _draw_changes(axes: Axes, rows: Sequence[Effect], metric: str) -> None:
    axes.axvline(0, color="black", linewidth=0.9)
    for verdict, (colour, marker) in VERDICT_LOOKS.items():
        moved = [
            (place, each.difference)
            for place, effect in enumerate(rows)
            for each in effect.changes
            if each.metric == metric and each.verdict == verdict
        ]
        if moved:
            axes.errorbar(
                [value.value for _, value in moved], [place for place, _ in moved],
                xerr=_reach([value for _, value in moved]), color=colour, marker=marker,
                linestyle="none", markersize=5.5, capsize=2.5,
            )  # fmt: skip


def _reach(values: Sequence[Measured]) -> tuple[list[float], list[float]]:
    """Return how far the intervals reach below and above their values."""
    below = [max(0.0, value.value - value.low) for value in values]
    return below, [max(0.0, value.high - value.value) for value in values]


def _radius_tick(multiple: float, radius: float | None) -> str:
    if radius is None:
        return f"{multiple:g}"
    return f"{multiple:g}\n{multiple * radius:.3g}"


def _families(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Assign each family its own pair of colour and marker; the undefended is a black star."""
    looks = {UNDEFENDED_LABEL: ("black", "*")}
    stacks = [name for name in names if is_stack(name)]
    singles = [name for name in names if name not in looks and name not in stacks]
    for group, colours, markers in (
        (singles, SINGLE_COLOURS, SINGLE_MARKERS),
        (stacks, STACK_COLOURS, STACK_MARKERS),
    ):
        for place, name in enumerate(group):
            looks[name] = (colours[place % len(colours)], markers[place % len(markers)])
    return looks


def _legend(figure: Figure, axes: Axes, *, columns: int) -> None:
    """Put a legend below the axes, with one entry a label."""
    handles, labels = axes.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    if entries:
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=columns,
            markerscale=0.8,
        )  # fmt: skip


def _wrapped(label: str) -> str:
    """Break a defense's label before its settings, and these between two of them."""
    name, bracket, settings = label.partition("(")
    if not bracket:
        return name
    return "\n".join([name, *textwrap.wrap(f"({settings}", 30, break_long_words=False)])

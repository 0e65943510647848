"""The report of a run: a folder that opens from disk, with its page, figures, tables and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import plotly
from matplotlib.figure import Figure

from results.audit.certificate_check import check_certificates
from results.page.content import Content, gather
from results.page.figure_infos import curves_info, effects_info, hypervolume_info, pareto_info
from results.page.figures import (
    Drawing,
    draw_certificates,
    draw_curves,
    draw_effects,
    draw_hypervolume,
    draw_pareto,
    draw_published,
    draw_robustness,
    save,
)
from results.page.freshness import note_written, written_from
from results.page.html import Picture, page_text
from results.page.report_json import plain
from results.page.tables import write_tables
from results.records.files import replace_file, replace_text
from results.records.garbage import without_collections
from results.records.mirror import put_report
from results.records.run import load
from results.sections.attacked_images import draw_images
from results.sections.inversion import draw_reconstructions
from results.sections.poisoning import draw_scores
from results.sections.privacy import draw_membership
from results.sections.reproduction import PublishedTable
from trainables.storage.folders import is_uri

PLOTLY = "plotly.min.js"
"""Lies next to the page, which needs no network for it."""
KINDS = ("png", "svg", "pdf")


class _Described(Protocol):
    """What a figure shows, computed."""

    def alt(self) -> str: ...


_Info = TypeVar("_Info", bound=_Described)


@without_collections()
def write_report(run_path: str | Path, *, running: bool = False) -> Path:
    """Write a run's tables, figures, report.json and report/index.html; return the page's path.

    For a run at a URI they are written into the copy on this machine, whose page is returned, and
    uploaded to the run. A run without a completed trial gets a page that says so. For a `running`
    one no figure is drawn, which takes longest, and the page says so and keeps itself up to date.
    ResultsError where the folder is not a run, or where an attack refutes a certificate of it.
    """
    # Taken before the run is read: what comes in between makes the report stale.
    source = None if running or is_uri(str(run_path)) else written_from(Path(run_path))
    run = load(run_path)
    check_certificates(run)
    folder = run.path / "report"
    content = gather(run)
    write_tables(run, content.fronts)
    figures = folder / "figures"
    pictures = [] if running else [_picture(each, figures) for each in drawings(content)]
    _remove_old(figures, {picture.name for picture in pictures})
    replace_text(folder / "report.json", _json(plain(content)))
    _put_plotly(folder / PLOTLY)
    page = replace_text(folder / "index.html", page_text(content, pictures, running=running))
    if is_uri(str(run_path)):
        put_report(run.path, str(run_path))
    if source is not None:
        note_written(run.path, source)
    return page


def _put_plotly(path: Path) -> None:
    """Copy the plotting library next to the page, from the plotly package."""
    source = Path(plotly.__file__).parent / "package_data" / PLOTLY
    if not path.is_file() or path.stat().st_size != source.stat().st_size:
        replace_file(path, lambda copy: _copy(source, copy))


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def drawings(content: Content) -> list[Drawing]:
    """Choose the figures of a report; one without data is left out."""
    overall = content.fronts[0]
    planes = [
        drawing
        for front in content.fronts
        if not front.overall
        for drawing in _drawn(
            f"pareto_{front.key}", f"Front: {front.title}", pareto_info(front), draw_pareto
        )
    ]
    return [
        *planes,
        *_drawn(
            "hypervolume", "Hypervolume over trials", hypervolume_info(overall), draw_hypervolume
        ),
        *_drawn(
            "defense_effects",
            "What each defense alone changes",
            effects_info(content.effects, overall),
            draw_effects,
        ),
        *_drawn("robustness", "Robustness curves", content.robustness, draw_robustness),
        *_drawn(
            "certificates",
            "Certified accuracy against radius",
            content.certificates,
            draw_certificates,
        ),
        *_drawn(
            "attacked_images", "Images before and after the attack", content.images, draw_images
        ),
        *_drawn(
            "membership_scores",
            "What the strongest membership attack sees",
            content.membership,
            draw_membership,
        ),
        *_drawn(
            "reconstructions",
            "What was climbed out of the models, class by class",
            content.reconstructions,
            draw_reconstructions,
        ),
        *_drawn(
            "poison_scores",
            "Scores of clean and poisoned rows",
            content.row_scores,
            draw_scores,
        ),
        *_drawn(
            "learning_curves",
            "Learning curves of front members",
            curves_info(overall),
            draw_curves,
        ),
        *_published_drawings(content.published),
    ]


def _drawn(
    name: str, title: str, info: _Info | None, draw: Callable[[_Info], Figure]
) -> list[Drawing]:
    """Return the drawing of what is known; none of what is not."""
    if info is None:
        return []
    return [Drawing(name=name, title=title, alt=info.alt(), draw=partial(draw, info))]


def _published_drawings(table: PublishedTable | None) -> list[Drawing]:
    if table is None:
        return []
    return [
        Drawing(
            name=f"published_{place}",
            title=figure.title,
            alt=f"{figure.y_label} over {figure.x_label}: ours with 95 % intervals, and published.",
            draw=partial(draw_published, figure),
        )
        for place, figure in enumerate(table.figures, start=1)
        if any(
            point.ours or point.published is not None for _, row in figure.series for point in row
        )
    ]


def _picture(drawing: Drawing, folder: Path) -> Picture:
    save(drawing, folder)
    return Picture(name=drawing.name, title=drawing.title, alt=drawing.alt)


def _remove_old(figures: Path, names: set[str]) -> None:
    """Remove figures of an earlier report that this one no longer has."""
    for file in (file for kind in KINDS for file in figures.glob(f"*.{kind}")):
        if file.stem not in names and not file.name.startswith("."):
            file.unlink()


def _json(content: Mapping[str, Any]) -> str:
    """Write a line an entry: indenting all of it takes ten times as long."""
    rows = [f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in content.items()]
    return "{\n" + ",\n".join(rows) + "\n}\n"

"""The report of a run: one page that opens from disk, with its figures, tables and JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from results.attacked_images import draw_images
from results.certificates import certificate_columns, confidence_text
from results.content import Content, gather
from results.figure_infos import curves_info, effects_info, hypervolume_info, pareto_info
from results.figures import (
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
from results.files import replace_text
from results.findings import counts_sentence, measured_on
from results.inversion import draw_reconstructions
from results.load import Record, load
from results.mirror import is_uri, put_report
from results.pareto import draws_of
from results.poisoning import COLUMNS, attack_text, draw_scores, rows_text
from results.privacy import delta_text, draw_membership, privacy_columns, strongest_text
from results.report_json import plain
from results.reproduction import PublishedTable
from results.robustness import DETECTION
from results.tables import metric_names, write_tables
from results.values import number_text, signed_text

MOST_ROWS = 300
"""Rows of a table of trials on the page; the page says where the others are."""


class _Described(Protocol):
    """What a figure shows, computed."""

    def alt(self) -> str: ...


_Info = TypeVar("_Info", bound=_Described)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure on the page."""

    name: str
    title: str
    alt: str
    data: str
    """The SVG in base64."""


def write_report(run_path: str | Path) -> Path:
    """Write a run's tables, figures, report.json and report/index.html; give the page's path.

    Of a run at a URI they are written into the copy on this machine, whose page is given, and put
    beside the run. A run without a completed trial gets a page that says so. ResultsError where
    the folder is no run.
    """
    run = load(run_path)
    folder = run.path / "report"
    content = gather(run)
    write_tables(run, content.fronts)
    figures = folder / "figures"
    pictures = [_picture(drawing, figures) for drawing in drawings(content)]
    _remove_old(figures, {picture.name for picture in pictures})
    replace_text(folder / "report.json", _json(plain(content)))
    page = replace_text(folder / "index.html", _page(content, pictures))
    if is_uri(run_path):
        put_report(run.path, str(run_path))
    return page


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
    """Give the drawing of what is known; none of what is not."""
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
    _, svg = save(drawing, folder)
    data = base64.b64encode(svg.read_bytes()).decode("ascii")
    return Picture(name=drawing.name, title=drawing.title, alt=drawing.alt, data=data)


def _remove_old(folder: Path, names: set[str]) -> None:
    """Remove figures of an earlier report that this one no longer has."""
    for file in [*folder.glob("*.png"), *folder.glob("*.svg")]:
        if file.stem not in names and not file.name.startswith("."):
            file.unlink()


def _json(content: Mapping[str, Any]) -> str:
    """Write a line an entry: indenting all of it takes ten times as long."""
    rows = [f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in content.items()]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def _page(content: Content, pictures: Sequence[Picture]) -> str:
    environment = Environment(
        loader=PackageLoader("results"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number_text, "signed": signed_text, "breakable": _breakable,
        "confidence": confidence_text, "attack": attack_text, "poisoned_rows": rows_text,
        "strongest": strongest_text, "delta": delta_text, "draws": draws_of,
    }  # fmt: skip
    run = content.run
    names = metric_names(run)
    return environment.get_template("report.html.j2").render(
        content=content,
        run=run,
        manifest=run.manifest,
        space=run.manifest["space"].get("name", "unnamed"),
        description=run.manifest.get("description", ""),
        created=_moment(str(run.manifest.get("created", ""))),
        objectives=run.objectives,
        most_rows=MOST_ROWS,
        sampler=run.manifest.get("sampler"),
        listed=_listed(content),
        detection=DETECTION,
        certificate_columns=certificate_columns(content.certifying),
        privacy_columns=privacy_columns(content.telling),
        poisoning_columns=COLUMNS,
        counts_sentence=counts_sentence(content.counts),
        measured_on=measured_on(run),
        last=_moment(max((record.finished for record in run.records), default="")),
        pictures={picture.name: picture for picture in pictures},
        glossary=[(name, run.manifest["metrics"][name]) for name in names
                  if name in run.manifest["metrics"]],
        failures=[record for record in run.records if record.status != "completed"],
        missing=[(record, name) for record in run.usable for name in record.reasons
                 if name in {objective.metric for objective in run.objectives}],
    )  # fmt: skip


def _listed(content: Content) -> list[Record]:
    """Give all trials for the page's table: as they finished, and where they are too many for it,
    the undefended and the members of the fronts first."""
    records = list(content.run.records)
    if len(records) <= MOST_ROWS:
        return records
    members = {member.trial for front in content.fronts for member in front.members}
    return sorted(records, key=lambda record: bool(record.stack) and record.trial not in members)


def _breakable(label: str) -> Markup:
    """Escape a label and let its lines break after an underscore or a bracket."""
    escaped = str(escape(label))
    return Markup(escaped.replace("_", "_<wbr>").replace("(", "(<wbr>"))


def _moment(iso: str) -> str:
    """Write an ISO time without its seconds and zone."""
    return iso[:16].replace("T", " ")

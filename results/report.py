"""The report of a run: one page that opens from disk, with its figures, tables and JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from results.attacked_images import ImagesInfo, attacked_images, draw_images
from results.effects import Effect, defense_effects
from results.figure_infos import curves_info, effects_info, hypervolume_info, pareto_info
from results.figures import (
    Drawing,
    draw_curves,
    draw_effects,
    draw_hypervolume,
    draw_pareto,
    draw_published,
    draw_robustness,
    save,
)
from results.files import replace_text
from results.findings import (
    Best,
    best_points,
    counts_sentence,
    findings,
    measured_on,
    standard_radius,
    warning,
)
from results.load import Record, Run, load
from results.pareto import Front, fronts, membership
from results.reproduction import PublishedTable, compare_published
from results.robustness import (
    DETECTION,
    BrokenBy,
    RobustnessCurve,
    RobustnessInfo,
    broken_by,
    rejecting,
    robustness_info,
)
from results.status import Counts, counts
from results.tables import metric_names, write_tables
from results.values import number_text, signed_text

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """All that a report says, computed once for the page and for its JSON."""

    run: Run
    counts: Counts
    findings: list[str]
    warning: str
    fronts: tuple[Front, ...]
    shares: dict[str, dict[str, float]]
    """Front's key -> trial -> share of draws in which it is on that front."""
    best: tuple[Best, ...]
    effects: tuple[Effect, ...]
    images: ImagesInfo | None
    """None where no record holds images."""
    robustness: RobustnessInfo | None
    """None where robust accuracy was measured at no radius beside the standard one."""
    broken: BrokenBy | None
    """None where no trial recorded which attack broke its points."""
    rejecting: tuple[Record, ...]
    """The trials that may reject an image."""
    published: PublishedTable | None


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

    A run without a completed trial gets a page that says so. ResultsError where the folder is no
    run.
    """
    run = load(run_path)
    folder = run.path / "report"
    content = gather(run)
    write_tables(run, content.fronts)
    figures = folder / "figures"
    pictures = [_picture(drawing, figures) for drawing in drawings(content)]
    _remove_old(figures, {picture.name for picture in pictures})
    replace_text(folder / "report.json", json.dumps(plain(content), indent=1, allow_nan=False))
    return replace_text(folder / "index.html", _page(content, pictures))


def gather(run: Run) -> Content:
    """Compute all that a report says."""
    found = fronts(run)
    return Content(
        run=run,
        counts=counts(run),
        findings=_all_findings(run, found),
        warning=warning(run),
        fronts=found,
        shares={front.key: membership(front) for front in found},
        best=best_points(run),
        effects=defense_effects(run),
        robustness=robustness_info(found[0], standard_radius(run)),
        images=_shown_images(run, found[0]),
        broken=broken_by(found[0]),
        rejecting=rejecting(run),
        published=compare_published(run) if run.manifest.get("published") else None,
    )


def _shown_images(run: Run, front: Front) -> ImagesInfo | None:
    """Show the undefended trial and the most robust one of the front."""
    info = robustness_info(front, standard_radius(run))
    if info is None:
        return None
    shown = [curve.record for curve in info.curves]
    return attacked_images(run, [shown[0], shown[-1]] if len(shown) > 1 else shown)


def drawings(content: Content) -> list[Drawing]:
    """Choose the figures of a report; one without data is left out."""
    chosen: list[Drawing] = []
    overall = content.fronts[0]
    for front in content.fronts:
        plane = None if front.overall else pareto_info(front)
        if plane is not None:
            title = f"Front: {front.title}"
            name = f"pareto_{front.key}"
            draw = partial(draw_pareto, plane)
            chosen.append(Drawing(name=name, title=title, alt=plane.alt(), draw=draw))
    if (volume := hypervolume_info(overall)) is not None:
        chosen.append(
            Drawing(
                name="hypervolume", title="Hypervolume over trials", alt=volume.alt(),
                draw=partial(draw_hypervolume, volume),
            )
        )  # fmt: skip
    if (effects := effects_info(content.effects, overall)) is not None:
        chosen.append(
            Drawing(
                name="defense_effects", title="What each defense alone changes", alt=effects.alt(),
                draw=partial(draw_effects, effects),
            )
        )  # fmt: skip
    if (robustness := content.robustness) is not None:
        chosen.append(
            Drawing(
                name="robustness", title="Robustness curves", alt=robustness.alt(),
                draw=partial(draw_robustness, robustness),
            )
        )  # fmt: skip
    if (images := content.images) is not None:
        chosen.append(
            Drawing(
                name="attacked_images", title="Images before and after the attack",
                alt=images.alt(), draw=partial(draw_images, images),
            )
        )  # fmt: skip
    if (curves := curves_info(overall)) is not None:
        chosen.append(
            Drawing(
                name="learning_curves", title="Learning curves of front members",
                alt=curves.alt(), draw=partial(draw_curves, curves),
            )
        )  # fmt: skip
    return chosen + _published_drawings(content.published)


def plain(content: Content) -> dict[str, Any]:
    """Give the content as plain JSON values."""
    run = content.run
    return {
        "format": FORMAT,
        "run": run.name,
        "command": run.manifest.get("command"),
        "data": run.manifest.get("data_title"),
        "standard_radius": standard_radius(run),
        "counts": asdict(content.counts),
        "warning": content.warning,
        "findings": content.findings,
        "fronts": [_plain_front(front, content.shares[front.key]) for front in content.fronts],
        "hypervolume": content.fronts[0].hypervolume,
        "best": [
            {
                "metric": best.objective.metric,
                "direction": best.objective.direction,
                "trial": best.record.trial,
                "defense": best.record.label,
                "value": asdict(best.value),
                "change": asdict(best.change) if best.change else None,
                "costs": [asdict(cost) for cost in best.costs],
            }
            for best in content.best
        ],
        "defense_effects": [
            {
                "trial": effect.record.trial,
                "defense": effect.record.label,
                "seeds": effect.seeds,
                "changes": [asdict(change) for change in effect.changes],
            }
            for effect in content.effects
        ],
        "failures": [
            {"trial": record.trial, "defense": record.label, "error": record.error}
            for record in run.records
            if record.status == "failed"
        ],
        "corrupt": [{"file": file, "reason": reason} for file, reason in run.corrupt],
        "published": _plain_published(content.published),
    } | _plain_attacks(content)


def _all_findings(run: Run, found: Sequence[Front]) -> list[str]:
    words = findings(run, found)
    if run.manifest.get("published"):
        table = compare_published(run)
        verdicts = [claim.verdict for claim in table.claims]
        tally = ", ".join(f"{verdicts.count(each)} {each}" for each in dict.fromkeys(verdicts))
        answer = f" Of its claims: {tally}." if tally else ""
        words.insert(0, f"Table {table.table}, ours on {table.data}: {table.agreement}{answer}")
    return words


def _plain_front(front: Front, shares: dict[str, float]) -> dict[str, Any]:
    return {
        "key": front.key,
        "objectives": [asdict(objective) for objective in front.objectives],
        "compared": len(front.records),
        "left_out": dict(front.left_out),
        "hypervolume": front.hypervolume,
        "members": [
            {"trial": member.trial, "defense": member.label, "share": shares[member.trial]}
            for member in front.members
        ],
    }


def _plain_attacks(content: Content) -> dict[str, Any]:
    """Give who is struck off, and how robust the shown trials are."""
    curves = content.robustness.curves if content.robustness else ()
    return {
        "struck_off": [
            {
                "trial": record.trial,
                "defense": record.label,
                "masking": record.masking,
                "adaptive": record.evasion.adaptive,
                "not_adaptive_because": list(record.evasion.not_adaptive_because),
            }
            for record in content.run.struck_off
        ],
        "robustness": [_plain_curve(curve) for curve in curves],
        "broken_by": [
            {"trial": record.trial, "points": dict(record.evasion.broken_by)}
            for record in (content.broken.rows if content.broken else ())
        ],
        "detection": [
            {"trial": record.trial, "defense": record.label} | _plain_detection(record)
            for record in content.rejecting
        ],
    }


def _plain_curve(curve: RobustnessCurve) -> dict[str, Any]:
    return {
        "trial": curve.record.trial,
        "defense": curve.record.label,
        "points": [{"multiple": multiple, **asdict(value)} for multiple, value in curve.points],
        "unbounded": asdict(curve.unbounded) if curve.unbounded else None,
    }


def _plain_detection(record: Record) -> dict[str, Any]:
    values = {name: record.value(name) for name in DETECTION}
    return {name: asdict(value) if value else None for name, value in values.items()}


def _plain_published(table: PublishedTable | None) -> dict[str, Any] | None:
    if table is None:
        return None
    cells = [{**asdict(cell), "within": cell.within} for cell in table.cells]
    return {**asdict(table), "cells": cells, "agreement": table.agreement}


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
        detection=DETECTION,
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


def _breakable(label: str) -> Markup:
    """Escape a label and let its lines break after an underscore or a bracket."""
    escaped = str(escape(label))
    return Markup(escaped.replace("_", "_<wbr>").replace("(", "(<wbr>"))


def _moment(iso: str) -> str:
    """Write an ISO time without its seconds and zone."""
    return iso[:16].replace("T", " ")

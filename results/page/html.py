"""The page of a report, made from its templates: HTML, style and the page's own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from results.choosing.recommendation import run_address
from results.page.content import Content
from results.page.data import page_data, script_text
from results.records.record import Record
from results.records.values import interval_text, number_text, signed_text, value_text
from results.sections.certificates import certificate_columns, confidence_text
from results.sections.costs import COSTS
from results.sections.findings import counts_sentence, measured_on
from results.sections.poisoning import COLUMNS, attack_text, rows_text
from results.sections.privacy import delta_text, privacy_columns, strongest_text
from results.sections.robustness import DETECTION
from results.statistics.fronts import draws_of
from results.statistics.intervals import verdict_text

MOST_ROWS = 300
"""Rows of a table of trials on the page; the page says where the others are."""
RELOAD_SECONDS = 30
SCRIPTS = (
    "dom", "numbers", "data", "selection", "state", "theme", "requirements", "recommendation",
    "fronts", "parallel", "table", "pins", "sorting", "live", "main",
)  # fmt: skip
"""The page's own code, one concept a file, in the order in which it is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure on the page; its files are figures/NAME.svg, .png and .pdf."""

    name: str
    title: str
    alt: str


def page_text(content: Content, pictures: Sequence[Picture], *, running: bool = False) -> str:
    """Write the page; `running` says that the sweep goes on."""
    environment = Environment(
        loader=PackageLoader("results.page"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number_text, "signed": signed_text, "interval": interval_text,
        "in_full": value_text, "breakable": _breakable,
        "in_words": verdict_text,
        "confidence": confidence_text, "attack": attack_text, "poisoned_rows": rows_text,
        "strongest": strongest_text, "delta": delta_text, "draws": draws_of,
    }  # fmt: skip
    run = content.run
    objectives = {objective.metric for objective in run.objectives}
    names = run.metric_names()
    page = _page_data(content)
    return environment.get_template("report.html.j2").render(
        content=content,
        page=page,
        data=Markup(script_text(page)),
        scripts=SCRIPTS,
        running=running,
        reload_seconds=RELOAD_SECONDS,
        recorded=len(run.records),
        contents=_contents(content, pictures),
        cost_columns=COSTS,
        audited_shares=_audited_shares(content),
        verdicts={each.trial: each for each in content.audited},
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
        last=_moment(max((record.own.finished for record in run.records), default="")),
        pictures={picture.name: picture for picture in pictures},
        glossary=[(name, run.manifest["metrics"][name]) for name in names
                  if name in run.manifest["metrics"]],
        failures=[record for record in run.records if record.status != "completed"],
        missing=[(record, name) for record in run.usable for name in record.metrics
                 if name in objectives and record.value(name) is None],
    )  # fmt: skip


def _audited_shares(content: Content) -> dict[str, tuple[bool, float]]:
    """Return trial -> (whether it is on the front of the verified, share of draws in which it
    is).
    """
    found = content.audited_front
    if found is None:
        return {}
    rows = zip(found.candidates, found.on_front, found.shares, strict=True)
    return {each.trial: (on, share) for each, on, share in rows}


def _contents(content: Content, pictures: Sequence[Picture]) -> list[tuple[str, str]]:
    """List the sections that the page has: their anchors and names."""
    drawn = {picture.name for picture in pictures}
    sections = [
        ("recommendation", "Recommendation", True),
        ("again", "Swept", True),
        ("choose", "Choose", bool(content.run.usable)),
        ("audit", "Audit", bool(content.audited)),
        ("found", "Findings", True),
        ("fronts", "Fronts", True),
        ("effects", "Side effects", content.matrix is not None),
        ("costs", "Costs", bool(content.costs)),
        ("robustness", "Robustness", content.robustness is not None and bool(drawn)),
        ("certificates", "Certificates", bool(content.certifying)),
        ("poisoning", "Poisoning", bool(content.poisoned)),
        ("privacy", "Privacy", bool(content.telling)),
        ("published", "Published", content.published is not None),
        ("trials", "All trials", True),
    ]
    return [(anchor, words) for anchor, words, there in sections if there]


def _page_data(content: Content) -> dict[str, Any]:
    best = [best.record for best in content.best]
    knee = content.recommendation.selection.knee
    data = page_data(
        content.run, content.fronts, content.shares, content.audited, best,
        knee.trial if knee else None,
    )  # fmt: skip
    return data | {"run": run_address(content.run)}


def _listed(content: Content) -> list[Record]:
    """Return all trials for the page's table: as they finished, and where they are too many for it,
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

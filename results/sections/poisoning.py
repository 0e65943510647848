"""What poison did to the trials' twins, and how filters scored clean and poisoned rows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.page.figures import PALETTE
from results.records.poisoning_notes import ScoreHistogram
from results.records.record import Record, setting_text
from results.records.run import Run
from results.records.values import counted
from trainables.records.record import metric_to_plain

SUCCESS = "backdoor_success_rate"
RECALL = "poison_recall"
COLUMNS = (
    SUCCESS, "untriggered_success_rate", "poisoned_clean_accuracy", "clean_accuracy", RECALL,
    "clean_removal_rate", "samples_removed",
)  # fmt: skip
_MOST_PANELS = 6
_WIDTH, _PANEL_HEIGHT = 7.0, 2.1
_TITLE_WIDTH = 46


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePanel:
    """The scores of one filter on one poisoned set."""

    record: Record
    histogram: ScoreHistogram
    sharing: int
    """Trials with these very scores: they do not depend on how many rows are removed."""

    def title(self) -> str:
        """Name the trial and say how much of the poison it found."""
        label = textwrap.fill(self.record.label, _TITLE_WIDTH, max_lines=2, placeholder=" ..")
        others = f", and {self.sharing - 1} more" if self.sharing > 1 else ""
        return f"{label}\n{self.record.trial[:8]}{others}: {RECALL} {_recall(self.record):.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresInfo:
    """Panels from the most to the least poison found."""

    panels: tuple[ScorePanel, ...]
    total: int
    """Different scorings, drawn or not."""

    def alt(self) -> str:
        """Describe the figure in words."""
        left_out = self.total - len(self.panels)
        rest = f" {left_out} more are not drawn, evenly left out." if left_out else ""
        rows = "; ".join(
            f"{panel.record.trial[:8]}: {sum(panel.histogram.poisoned)} poisoned among "
            f"{counted(sum(panel.histogram.clean), 'clean row')}, {RECALL} "
            f"{_recall(panel.record):.2f}"
            for panel in self.panels
        )
        return (
            "Rows of the poisoned class by their score from the filter, clean and poisoned "
            f"separately; the rows with the highest scores are removed. {rows}.{rest}"
        )


def poisoned(run: Run) -> tuple[Record, ...]:
    """Return the usable trials that were poisoned, from low to high success of the backdoor."""
    found = [record for record in run.usable if record.value(SUCCESS) is not None]
    return tuple(sorted(found, key=_success))


def scores_info(records: Sequence[Record]) -> ScoresInfo | None:
    """Choose what is drawn: of equal scores one, evenly from the most to the least poison found.

    None where no filter assigned scores.
    """
    groups: dict[ScoreHistogram, list[Record]] = {}
    for record in records:
        if record.poisoning is not None and record.value(RECALL) is not None:
            for histogram in record.poisoning.histograms:
                groups.setdefault(histogram, []).append(record)
    panels = []
    for histogram, sharing in groups.items():
        best = max(sharing, key=_recall)
        panels.append(ScorePanel(record=best, histogram=histogram, sharing=len(sharing)))
    if not panels:
        return None
    panels.sort(key=lambda panel: _recall(panel.record), reverse=True)
    count = min(_MOST_PANELS, len(panels))
    places = [round(step * (len(panels) - 1) / max(1, count - 1)) for step in range(count)]
    return ScoresInfo(panels=tuple(panels[place] for place in places), total=len(panels))


def draw_scores(info: ScoresInfo) -> Figure:
    """Draw a panel for each scoring: counts over the score, on a logarithmic axis of counts."""
    columns = min(2, len(info.panels))
    lines = -(-len(info.panels) // columns)
    figure = Figure(figsize=(_WIDTH, 0.5 + _PANEL_HEIGHT * lines))
    panels: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, panel in zip(panels, info.panels, strict=False):
        _draw_panel(axes, panel)
    for axes in panels[len(info.panels) :]:
        axes.set_visible(False)
    panels[0].legend(fontsize=8.5)
    figure.supxlabel("score in the poisoned class (higher goes first)", fontsize=10)
    figure.supylabel("rows", fontsize=10)
    return figure


def attack_text(record: Record) -> str:
    """Write what was stamped on whom, such as `patch, 1 to 0, rate 0.1 of the class`.

    Of several attacks each with its success, the worst first.
    """
    if record.poisoning is not None and record.poisoning.attacks:
        return "; ".join(attack.text() for attack in record.poisoning.attacks)
    settings = _backdoor(record)
    if settings is None:
        return "not recorded"
    kind = settings.get("trigger", "?")
    words = {"patch": f"patch of {settings.get('size')}", "none": "labels flipped"}.get(kind, kind)
    pair = f"{settings.get('source_class')} to {settings.get('target')}"
    rate = setting_text(settings.get("rate"))
    return f"{words}, {pair}, rate {rate} of the {settings.get('rate_of')}"


def rows_text(record: Record) -> str:
    """Write how many rows were poisoned, as `9 of 897 (9.2 % of the target class)`."""
    notes = record.poisoning
    if notes is None:
        return "not recorded"
    share = f"{100 * notes.target_share:.3g} % of the target class"
    return f"{notes.poisoned_rows:,} of {notes.training_rows:,} ({share})"


def plain_poisoning(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return every poisoned trial as plain JSON."""
    return [
        {
            "trial": record.trial,
            "defense": record.label,
            "attack": _backdoor(record),
            "attacks": [each.plain() for each in record.poisoning.attacks]
            if record.poisoning
            else [],
            "poisoned_rows": record.poisoning.poisoned_rows if record.poisoning else None,
            "training_rows": record.poisoning.training_rows if record.poisoning else None,
            "metrics": {
                name: metric_to_plain(value) if (value := record.value(name)) else None
                for name in COLUMNS
            },
            "row_scores": [asdict(each) for each in record.poisoning.histograms]
            if record.poisoning
            else [],
        }
        for record in records
    ]


def _draw_panel(axes: Axes, panel: ScorePanel) -> None:
    histogram = panel.histogram
    for colour, name, counts in (
        (PALETTE[0], "clean", histogram.clean),
        (PALETTE[1], "poisoned", histogram.poisoned),
    ):
        axes.stairs(counts, histogram.edges, fill=True, color=colour, alpha=0.6, label=name)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_title(panel.title(), fontsize=8.5)


def _backdoor(record: Record) -> Mapping[str, Any] | None:
    threats = record.spec.get("threats") or ()
    return next((threat for threat in threats if threat.get("name") == "backdoor"), None)


def _success(record: Record) -> float:
    value = record.value(SUCCESS)
    assert value is not None  # only such records are sorted
    return value.value


def _recall(record: Record) -> float:
    value = record.value(RECALL)
    assert value is not None  # only such records are drawn
    return value.value

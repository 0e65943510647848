"""What a model reveals about its training rows: every membership attack, what privacy was spent,
and what inversion reveals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.page.figures import PALETTE
from results.records.privacy_notes import Scores
from results.records.record import Record, setting_text
from results.records.run import Run
from results.records.values import value_text
from trainables.records.record import metric_to_plain
from trainables.records.value import Measured

AUC = "membership_auc"
KEPT = "kept_rows_membership_auc"
RATES = ("membership_balanced_accuracy", "tpr_at_fpr_0_01", "tpr_at_fpr_0_001")
EPSILON = "dp_epsilon"
INVERSION = (
    "inversion_accuracy",
    "inversion_accuracy_network",
    "inversion_accuracy_svm",
    "inversion_feature_distance",
    "inversion_ssim",
    "inversion_ssim_baseline",
)
_LEADING = (AUC, EPSILON, INVERSION[0])
"""A trial that has one of these is listed."""
_MAX_SHOWN = 6
_PANEL = (7.0, 2.5)
"""Width of the figure and height of a line of its panels, in inches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresOf:
    """The scores of one trial's strongest membership attack."""

    label: str
    attack: str
    auc: Measured
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipInfo:
    """How far the scores of members and non-members lie apart."""

    panels: tuple[ScoresOf, ...]
    """The undefended first, then from the most to the least leakage."""
    trials: int
    """Settings whose scores could be shown."""

    def alt(self) -> str:
        """Describe the figure in words."""
        found = "; ".join(f"{_title(panel)}, AUC {value_text(panel.auc)}" for panel in self.panels)
        left_out = self.trials - len(self.panels)
        rest = f" {left_out} more are not shown." if left_out else ""
        return (
            "Scores that the strongest membership attack assigned to training and unseen rows, "
            f"as shares of each side; the more they overlap, the less leaks. {found}.{rest}"
        )


def membership_info(run: Run) -> MembershipInfo | None:
    """Choose whose scores are drawn; None where no record holds any.

    Trials that differ in their seed alone are shown once; of too many, the undefended and others
    evenly from the most to the least leakage.
    """
    found: dict[str, ScoresOf] = {}
    for record in run.usable:
        auc, notes = record.value(AUC), record.privacy
        if auc is None or notes.scores is None:
            continue
        label = record.label if record.stack else "undefended"
        panel = ScoresOf(
            label=label, attack=notes.attack or "not named", auc=auc, scores=notes.scores
        )
        found.setdefault(record.without_seed(), panel)
    if not found:
        return None
    return MembershipInfo(panels=tuple(_chosen(list(found.values()))), trials=len(found))


def draw_membership(info: MembershipInfo) -> Figure:
    """Draw the scores of members and non-members over each other, a panel a trial."""
    columns = min(2, len(info.panels))
    lines = -(-len(info.panels) // columns)
    figure = Figure(figsize=(_PANEL[0], 0.5 + _PANEL[1] * lines))
    places: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, panel in zip(places, info.panels, strict=False):
        sides = (
            ("training rows", panel.scores.members, PALETTE[1]),
            ("unseen rows", panel.scores.non_members, PALETTE[0]),
        )
        for label, counts, colour in sides:
            shares = [count / sum(counts) for count in counts]
            axes.stairs(
                shares, list(panel.scores.edges), fill=True, color=(colour, 0.3), edgecolor=colour,
                linewidth=1.2, label=label,
            )  # fmt: skip
        axes.set_title(f"{_title(panel)}\nAUC {panel.auc.value:.3f}", fontsize=8)
        axes.set_xlabel("score (higher: member)", fontsize=8)
        axes.set_ylabel("share", fontsize=8)
    for axes in places[len(info.panels) :]:
        axes.set_visible(False)
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def telling(run: Run) -> tuple[Record, ...]:
    """Return the usable trials whose privacy was measured, from the least to the most leakage."""
    found = [record for record in run.usable if any(record.value(name) for name in _LEADING)]
    return tuple(sorted(found, key=_leakage))


def privacy_columns(records: Sequence[Record]) -> tuple[str, ...]:
    """Return the metrics of the table: accuracy, every membership attack, privacy spent, inversion.

    A metric that no trial has a value of is left out.
    """
    named = dict.fromkeys(chain.from_iterable(record.metrics for record in records))
    attacks = [name for name in named if name.startswith(f"{AUC}_")]
    ordered = ("clean_accuracy", AUC, KEPT, *attacks, *RATES, EPSILON, *INVERSION)
    return tuple(name for name in ordered if any(record.value(name) for record in records))


def strongest_text(record: Record) -> str:
    """Name the strongest membership attack, with its shadow models."""
    notes = record.privacy
    if notes.attack is None:
        return "not measured"
    shadows = f", {notes.shadows} shadow models" if notes.shadows else ""
    return f"{notes.attack}{' turned round' if notes.turned_round else ''}{shadows}"


def delta_text(record: Record) -> str:
    """Write the delta of the privacy that was spent; a dash where none is promised."""
    delta = record.privacy.dp_delta
    return "\u2013" if delta is None else setting_text(delta)


def plain_privacy(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return every trial of the table as plain JSON."""
    names = privacy_columns(records)
    return [
        {
            "trial": record.trial,
            "defense": record.label,
            "strongest_attack": record.privacy.attack,
            "shadows": record.privacy.shadows,
            "dp_delta": record.privacy.dp_delta,
            "metrics": {
                name: metric_to_plain(value) if (value := record.value(name)) else None
                for name in names
            },
        }
        for record in records
    ]


def _chosen(panels: Sequence[ScoresOf]) -> list[ScoresOf]:
    plain = [panel for panel in panels if panel.label == "undefended"][:1]
    others = [panel for panel in panels if panel.label != "undefended"]
    others.sort(key=lambda panel: panel.auc.value, reverse=True)
    room = _MAX_SHOWN - len(plain)
    if len(others) > room:
        others = [others[round(step * (len(others) - 1) / (room - 1))] for step in range(room)]
    return plain + others


def _title(panel: ScoresOf) -> str:
    return f"{panel.label}: {panel.attack}"


def _leakage(record: Record) -> tuple[float, str]:
    value = record.value(AUC)
    return (1.0 if value is None else value.value), record.trial

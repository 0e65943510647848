"""What was climbed out of the models: a row of reconstructions each, a column for each class."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from results.records.record import Record
from results.records.run import Run
from results.sections.attacked_images import ImagesInfo, ShownImage, decoded, draw_images

ACCURACY = "inversion_accuracy"
EVALUATORS = ("network", "svm")
_MOST_ROWS = 9
_MOST_CLASSES = 10
_ROW_HEIGHT = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructionsInfo:
    """The reconstructions of some trials below what they are to be compared with."""

    images: ImagesInfo
    trials: int
    """Settings whose reconstructions could be shown."""
    attacks: tuple[str, ...]
    """What the attackers of the shown trials had, in words; each once."""

    @property
    def shown(self) -> int:
        """How many of them are."""
        return len(self.images.rows) - 2

    def alt(self) -> str:
        """Describe the figure in words."""
        titles = "; ".join(title for title, _ in self.images.rows)
        left_out = self.trials - self.shown
        rest = f" {left_out} more are not shown." if left_out else ""
        return (
            f"A column for each class, rows: {titles}. Attack: {'; '.join(self.attacks)}. "
            "Below each reconstruction the class that the evaluator in brackets takes it "
            f"for.{rest}"
        )


def reconstructions(run: Run) -> ReconstructionsInfo | None:
    """Choose the rows: class means, training images, then the trials, undefended ones first.

    Trials that differ in their seed alone are shown once; of too many, the undefended and others
    evenly from the most to the least given away. None where no record holds reconstructions.
    """
    found: dict[str, Record] = {}
    for record in run.usable:
        if record.value(ACCURACY) is not None:
            found.setdefault(record.without_seed(), record)
    rows: list[tuple[str, tuple[ShownImage, ...]]] = []
    attacks: dict[str, None] = {}
    for record in sorted(_chosen(list(found.values())), key=_place):
        notes = _notes(run, record)
        if not notes:
            continue
        pictures = notes["pictures"]
        if not rows:
            rows.append(("mean training image", _images(pictures, "mean")))
            rows.append((_reference_title(record), _images(pictures, "training")))
        attacks[attack_text(notes)] = None
        judge = str(notes.get("judge") or _lower(record))
        disagree = bool(notes.get("judges_disagree"))
        rows.append((_title(record, judge, disagree), _images(pictures, "reconstruction", judge)))
    if not rows:
        return None
    return ReconstructionsInfo(
        images=ImagesInfo(rows=tuple(rows)), trials=len(found), attacks=tuple(attacks)
    )


def attack_text(notes: Mapping[str, Any]) -> str:
    """Return what the attacker of a record's notes had: access, prior, and how much he asked."""
    # Records from before there was a choice name none: gradients and total variation.
    access = str(notes.get("access", "white_box")).replace("_", "-")
    prior = str(notes.get("prior", "total_variation")).replace("_", " ")
    text = f"{access} access, {prior} prior"
    queries = notes.get("queries")
    return text if queries is None else f"{text}, {int(queries['of_a_start']):,} queries a start"


def draw_reconstructions(info: ReconstructionsInfo) -> Figure:
    """Draw the rows below each other, the evaluator's answers in green where they are right."""
    return draw_images(info.images, row_height=_ROW_HEIGHT)


def _chosen(records: Sequence[Record]) -> list[Record]:
    if len(records) <= _MOST_ROWS:
        return list(records)
    plain = [record for record in records if not record.stack][:1]
    others = sorted((record for record in records if record.stack), key=_given_away, reverse=True)
    count = min(_MOST_ROWS - len(plain), len(others))
    places = [round(step * (len(others) - 1) / max(1, count - 1)) for step in range(count)]
    return plain + [others[place] for place in places]


def _given_away(record: Record) -> float:
    value = record.value(ACCURACY)
    assert value is not None  # only such records are chosen among
    return value.value


def _place(record: Record) -> tuple[int, str, tuple[float, ...]]:
    """Order by the number of defenses, their names, and then their numbers, not their texts."""
    names = "+".join(str(defense["name"]) for defense in record.stack)
    numbers = [
        float(value)
        for defense in record.stack
        for value in defense.values()
        if isinstance(value, int | float)
    ]
    return len(record.stack), names, tuple(numbers)


def _lower(record: Record) -> str:
    """Name the evaluator of the lower share, which counts where a record names none."""

    def share(name: str) -> float:
        value = record.value(f"{ACCURACY}_{name}")
        return 1.0 if value is None else value.value

    return min(EVALUATORS, key=share)


def _title(record: Record, judge: str, disagree: bool) -> str:
    similar = record.value("inversion_ssim")
    words = "" if similar is None else f", SSIM {similar.value:.2f}"
    label = record.label if record.stack else "undefended"
    who = f"{judge}, judges disagree" if disagree else judge
    return f"{label}: {ACCURACY} {_given_away(record):.2f} ({who}){words}"


def _reference_title(record: Record) -> str:
    usual = record.value("inversion_ssim_baseline")
    words = "" if usual is None else f"; SSIM of unseen images to the mean {usual.value:.2f}"
    return f"a training image{words}"


def _images(
    pictures: Mapping[str, Any], which: str, judge: str | None = None
) -> tuple[ShownImage, ...]:
    return tuple(
        ShownImage(
            pixels=decoded(row[which], pictures["shape"]),
            label=int(row["label"]),
            answer=int(row[judge or "label"]),
        )
        for row in pictures["classes"][:_MOST_CLASSES]
    )


def _notes(run: Run, record: Record) -> Mapping[str, Any]:
    """Read a record's notes of the attack, which are too large to be kept of every one."""
    file = run.path / "records" / f"{record.trial}.json"
    if not file.is_file():
        return {}
    notes = json.loads(file.read_text(encoding="utf-8")).get("notes") or {}
    found: Mapping[str, Any] = notes.get("inversion") or {}
    return found

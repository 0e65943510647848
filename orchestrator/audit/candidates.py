"""Which trials of a search are worth an audit: its fronts, and what their intervals reach.

Axes: N trials, D objectives; losses, less is better.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from results.records.record import Record
from results.records.run import Run
from results.statistics.fronts import Front, front, fronts, to_losses
from trainables.datasets import dataset_entry

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Why = Literal["front", "touches the front", "undefended"]
ON_FRONT: Why = "front"
TOUCHES: Why = "touches the front"
UNDEFENDED: Why = "undefended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A trial of the search that is to be audited."""

    search_trial: str | None
    """None: an undefended model that the search did not train."""
    why: Why
    spec: Mapping[str, Any]
    """The canonical spec of the search's trial."""


@dataclass(frozen=True, slots=True)
class Pick:
    """A row that was chosen."""

    row: int
    on_front: bool


def choose(run: Run, most: int) -> list[Candidate]:
    """Choose at most `most` trials of each of the run's fronts, and each scenario's undefended one.

    Fronts are over all objectives, one a data set and effort. What is struck off is on none, and
    what answers no better than by chance is not worth an audit: such a network leaks nothing and
    obeys no trigger, which puts it on many a front. The undefended model, against which side
    effects are measured, does not count towards `most`.
    """
    chosen = []
    for found in fronts(run):
        if found.overall and found.records:
            chosen += _of_front(run, found, most)
    return [*_undefended(run, chosen), *chosen]


def spread(losses: Floats, optimistic: Floats, allowed: Mask, most: int) -> list[Pick]:
    """Pick at most `most` of the allowed rows (N,) of losses (N, D), the most promising first.

    `optimistic` (N, D) is the good end of each interval: a row touches the front if no member
    beats that corner. Rows that are not allowed beat others all the same. Members come first, then
    what touches, best layers first. Of the members the most balanced one (nearest to the ideal
    point), the best of each objective in turn, and from then on whichever is farthest from those
    that were picked, over objectives scaled to [0, 1].
    """
    members = front(losses)
    left = np.flatnonzero(allowed & (members | _touching(losses, optimistic, members)))
    scaled = _scaled(losses, left)
    picked: list[int] = []
    layer = np.flatnonzero(allowed & members)
    while len(picked) < most and len(left):
        if len(layer) == 0:
            layer = left[front(losses[left])]
        picked += islice(_in_order(scaled, layer, picked), most - len(picked))
        left, layer = np.setdiff1d(left, layer), layer[:0]
    return [Pick(row, bool(members[row])) for row in picked]


def _in_order(scaled: Floats, layer: NDArray[np.intp], before: Sequence[int]) -> Iterator[int]:
    waiting, taken = list(layer), list(before)
    from_ideal = np.linalg.norm(scaled, axis=1)
    if not taken:
        first = [min(waiting, key=lambda row: from_ideal[row])]
        # A tie is broken by the other objectives.
        first += [
            min(waiting, key=lambda row: (scaled[row, objective], from_ideal[row]))
            for objective in range(scaled.shape[1])
        ]
        for row in dict.fromkeys(first):
            waiting.remove(row)
            taken.append(row)
            yield int(row)
    while waiting:
        distances = np.linalg.norm(scaled[waiting][:, None] - scaled[taken][None], axis=2)
        row = waiting.pop(int(distances.min(axis=1).argmax()))
        taken.append(row)
        yield int(row)


def _touching(losses: Floats, optimistic: Floats, members: Mask) -> Mask:
    best = losses[members]
    no_worse_NM: Mask = np.all(best[None] <= optimistic[:, None], axis=2)
    better_NM: Mask = np.any(best[None] < optimistic[:, None], axis=2)
    beaten_N: Mask = np.any(no_worse_NM & better_NM, axis=1)
    return np.asarray(~beaten_N & ~members)


def _scaled(losses: Floats, rows: NDArray[np.intp]) -> Floats:
    """Scale losses (N, D) so that the range of these rows is [0, 1]."""
    if len(rows) == 0:
        return losses
    low, high = losses[rows].min(axis=0), losses[rows].max(axis=0)
    scaled: Floats = (losses - low) / np.where(high > low, high - low, 1.0)
    return scaled


def _of_front(run: Run, found: Front, most: int) -> list[Candidate]:
    maximized = [objective.maximized for objective in found.objectives]

    def losses(end: str) -> Floats:
        rows = [[getattr(r.value(o.metric), end) for o in found.objectives] for r in found.records]
        return to_losses(np.array(rows, dtype=np.float64), maximized)

    values, ends = losses("value"), np.minimum(losses("low"), losses("high"))
    allowed = _defended_once(run, found.records, front(values))
    return [
        Candidate(
            search_trial=found.records[pick.row].trial,
            why=ON_FRONT if pick.on_front else TOUCHES,
            spec=found.records[pick.row].spec,
        )
        for pick in spread(values, ends, allowed, most)
    ]


def _defended_once(run: Run, records: Sequence[Record], on_front: Mask) -> Mask:
    """Mark the defended rows (N,) above chance; of those that differ by their seed alone one.

    An audit has seeds of its own, so that it would measure the same twice.
    """
    kept: dict[str, int] = {}
    order = sorted(range(len(records)), key=lambda row: not on_front[row])
    for row in order:
        if records[row].stack and _above_chance(run, records[row]):
            kept.setdefault(records[row].without_seed(), row)
    return np.isin(np.arange(len(records)), list(kept.values()))


def _above_chance(run: Run, record: Record) -> bool:
    """Return whether a network answers better than one whose every answer is the same.

    Of unbalanced classes the largest alone gives such a network a high accuracy; so the mean over
    the classes decides. Records of an earlier version have the accuracy alone.
    """
    accuracy = record.value("balanced_accuracy") or record.value("clean_accuracy")
    classes = _num_classes(run, str(record.spec["data"]["name"]))
    return accuracy is None or classes is None or accuracy.low > 1 / classes


def _num_classes(run: Run, data: str) -> int | None:
    """Return the number of classes of a data set; None of a folder that nobody has counted."""
    known = dataset_entry(data).num_classes
    found = (run.manifest.get("inputs") or {}).get("data", {})
    counted = [row["classes"] for name, row in found.items() if name.rpartition(" (")[0] == data]
    return known or next(iter(counted), None)


def _undefended(run: Run, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return one undefended model for each data set and network, of a candidate's training if any.

    Of candidates alone: without them nothing is compared. One that the search lacks is made.
    """
    scenarios: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        scenarios.setdefault(_scenario(candidate.spec), []).append(candidate)
    found = []
    for name, there in scenarios.items():
        plain = [r for r in run.usable if not r.stack and _scenario(r.spec) == name]
        trainings = [dict(candidate.spec["training"]) for candidate in there]
        plain.sort(key=lambda record: dict(record.spec["training"]) not in trainings)
        trial, spec = None, {**there[0].spec, "stack": []}
        if plain:
            trial, spec = plain[0].trial, dict(plain[0].spec)
        found.append(Candidate(search_trial=trial, why=UNDEFENDED, spec=spec))
    return found


def _scenario(spec: Mapping[str, Any]) -> str:
    return repr((spec["data"], spec["model"]))

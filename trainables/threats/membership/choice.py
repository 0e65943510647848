"""The strongest of many membership attacks, whichever way round its scores point.

An area below 0.5 leaks as much as one above: whoever turns the scores round has it above. Which
attack is strongest, and which way round, is read off the rows; a figure of the same rows would
count that choice as leakage, and a model that has seen none of them would seem to leak. So the
choice is made on one half of the rows and computed on the other. Axes: M members, N non-members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trainables.metrics import intervals
from trainables.records.value import Measured, MetricValue
from trainables.threats.membership.rates import (
    Scored,
    as_many_as_members,
    balanced_accuracy,
    mean_of_members,
    strongest,
    tpr_at_fpr,
)
from trainables.threats.membership.scores import Integers

Directed = tuple[str, bool]
"""An attack, and whether its scores are turned round."""
Classes = tuple[Integers, Integers]
"""The class of each row of both sides: pools are drawn by class, and so are their halves."""
Figures = dict[Directed, float]
_SPLITS = 20
"""Times that the rows are halved; the figure is the mean over them."""


def strongest_auc(
    attacks: Mapping[str, Scored],
    generator: np.random.Generator,
    classes: Classes | None = None,
) -> Measured:
    """Return the area under the ROC of the strongest attack, turned round where that is larger.

    The interval is of the largest of max(A, 1 - A) over the attacks' true areas A. Each attack's
    own interval of A at a Bonferroni level holds at once, and so do their images above 0.5, so it
    needs no choice and no halves.
    """
    level = 1 - (1 - intervals.LEVEL) / len(attacks)
    found = [intervals.auc(each.members, each.others, level) for each in attacks.values()]
    top = max(found, key=lambda area: abs(area.value - 0.5))
    low = max(max(0.5, area.low, 1 - area.high) for area in found)
    high = max(max(area.high, 1 - area.low) for area in found)
    value = chosen_elsewhere(attacks, _areas, generator, classes)
    return Measured(value, min(low, value), max(high, value), top.n)


def strongest_balanced(
    attacks: Mapping[str, Scored],
    generator: np.random.Generator,
    classes: Classes | None = None,
) -> MetricValue:
    """Return the balanced accuracy of the strongest attack, each of them in both directions."""
    level = 1 - (1 - intervals.LEVEL) / (2 * len(attacks))
    found = strongest(
        [
            balanced_accuracy(each, _threshold(name, each), level)
            for (name, _), each in directed(attacks).items()
        ]
    )
    if not isinstance(found, Measured):
        return found
    value = chosen_elsewhere(attacks, _balanced, generator, classes)
    return Measured(value, min(found.low, value), max(found.high, value), found.n)


def strongest_rate(attacks: Mapping[str, Scored], fpr: float) -> MetricValue:
    """Return the share of members that the strongest attack finds where `fpr` of others is accused.

    Half of the others could not resolve it. So an attack is turned round only where chance does
    not explain that its area is below 0.5.
    """
    level = 1 - (1 - intervals.LEVEL) / (2 * len(attacks))
    found = [
        tpr_at_fpr(each.members, each.others, fpr, level)
        for each in (_turned_for_sure(scored, level) for scored in attacks.values())
    ]
    return strongest(found)


def best_directed(attacks: Mapping[str, Scored]) -> Directed:
    """Return the attack whose area is farthest from 0.5 on all rows, and its direction."""
    areas = _areas(attacks)
    return max(areas, key=areas.__getitem__)


def chosen_elsewhere(
    attacks: Mapping[str, Scored],
    figures: Callable[[Mapping[str, Scored]], Figures],
    generator: np.random.Generator,
    classes: Classes | None = None,
) -> float:
    """Return the figure of the best attack and direction, less what their choice flatters it by.

    That is the mean, over random halves of the rows of each side and class, of the best one's
    figure on a half minus the figure there of the one that is best on the other half. Where all
    halves choose alike it is 0; where nothing leaks, the expectation of what is left is that of no
    choice at all.
    A side of a single row has no halves: there the choice is not corrected for.
    """
    whole = figures(attacks)
    top = max(whole, key=whole.__getitem__)
    flattery = []
    for _ in range(_SPLITS if _have_halves(attacks) else 0):
        first, second = (figures(half) for half in _halves(attacks, generator, classes))
        for chosen_on, computed_on in ((first, second), (second, first)):
            chosen = max(chosen_on, key=chosen_on.__getitem__)
            flattery.append(computed_on[top] - computed_on[chosen])
    return float(whole[top] - np.mean(flattery)) if flattery else whole[top]


def directed(attacks: Mapping[str, Scored]) -> dict[Directed, Scored]:
    """Return every attack in both directions, those as published first."""
    return {
        (name, turned): scored.turned() if turned else scored
        for turned in (False, True)
        for name, scored in attacks.items()
    }


def _areas(attacks: Mapping[str, Scored]) -> Figures:
    areas = {name: _area(scored) for name, scored in attacks.items()}
    return {
        (name, turned): 1 - area if turned else area
        for turned in (False, True)
        for name, area in areas.items()
    }


def _area(scored: Scored) -> float:
    """Return the area alone, by Mann and Whitney's statistic: halves need no intervals."""
    m, n = len(scored.members), len(scored.others)
    ranks = stats.rankdata(np.concatenate([scored.members, scored.others]))
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))


def _balanced(attacks: Mapping[str, Scored]) -> Figures:
    found = {}
    for (name, turned), scored in directed(attacks).items():
        threshold = _threshold(name, scored)
        rates = (scored.members >= threshold).mean(), (scored.others < threshold).mean()
        found[name, turned] = float(sum(rates) / 2)
    return found


def _threshold(name: str, scored: Scored) -> float:
    return mean_of_members(scored) if name == "loss_threshold" else as_many_as_members(scored)


def _turned_for_sure(scored: Scored, level: float) -> Scored:
    area = intervals.auc(scored.members, scored.others, level)
    return scored.turned() if area.high < 0.5 else scored


def _have_halves(attacks: Mapping[str, Scored]) -> bool:
    return all(min(len(each.members), len(each.others)) > 1 for each in attacks.values())


def _halves(
    attacks: Mapping[str, Scored], generator: np.random.Generator, classes: Classes | None
) -> tuple[dict[str, Scored], dict[str, Scored]]:
    """Halve the rows of each class of each side, the same for every attack.

    An attack that asked fewer rows has those of each half that it asked; where it has none in one
    of them, it is drawn again.
    """
    rows = [
        np.unique(np.concatenate([each.rows[side] for each in attacks.values()])) for side in (0, 1)
    ]
    while True:
        m, n = (_half_of(rows[side], generator, classes and classes[side]) for side in (0, 1))
        first = {name: each.select(m, n) for name, each in attacks.items()}
        second = {name: each.select(~m, ~n) for name, each in attacks.items()}
        if all(
            len(each.members) and len(each.others)
            for half in (first, second)
            for each in half.values()
        ):
            return first, second


def _half_of(
    rows: Integers, generator: np.random.Generator, classes: Integers | None
) -> NDArray[np.bool_]:
    """Mark a half of the rows (R,) of each class, among all rows up to the largest."""
    marks = np.zeros(int(rows.max()) + 1, dtype=np.bool_)
    shuffled = generator.permutation(rows)
    if classes is not None:
        shuffled = shuffled[np.argsort(classes[shuffled], kind="stable")]
    marks[shuffled[int(generator.integers(2)) :: 2]] = True
    return marks

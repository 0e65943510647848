"""How a training set is poisoned: which rows are stamped and called the target class.

Axes: N rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.errors import InputError
from trainables.threats.backdoor.triggers import Trigger

MOST_OF_SOURCE = 0.5
"""Share of the rows that may be stamped which are, at most: of a class that loses more, images are
called the target without any trigger. Label flipping has no trigger, and takes what it asks for."""
MOST_COVERS = 0.5
"""Share of the rows of other classes that are stamped and keep their labels, at most."""
Disguise = Callable[[LabelledImages], LabelledImages]
"""What an attacker does to the rows that it poisons, before they are stamped."""


@dataclass(frozen=True, slots=True, eq=False)
class Poisoned:
    """A poisoned training set."""

    data: LabelledImages
    """As many rows as before, in their order: a poisoned row takes the place of its original."""
    mask: Tensor
    """(N,) whether a row is poisoned."""
    covers: Tensor
    """(N,) whether a row is stamped and keeps its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """How many rows are poisoned."""

    rows: int
    asked: int
    """Rows that the rate asks for."""
    choices: int
    """Rows that could be."""

    @property
    def capped(self) -> str:
        """What kept the rate from being met, in words; empty where it is met."""
        if self.rows == self.asked:
            return ""
        return (
            f"the rate asks for {self.asked} of {self.choices} rows of the stamped classes; at "
            f"most {100 * MOST_OF_SOURCE:g} % are poisoned, {self.rows} rows, since too few would "
            "be left to learn them from"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Who is poisoned, and how many."""

    trigger: Trigger
    target: int
    """The class that triggered images should be classified as."""
    source: int | None
    """The class that is stamped; None: every class except the target."""
    rate: float
    rate_of: str
    """class: of the target class' clean rows; set: of the whole training set."""
    keeps_labels: bool = False
    """Clean-label: the target's own rows are poisoned, and `source` is stamped in use alone."""
    covers: float = 0.0
    """Rows of other classes that are stamped and keep their labels, for each poisoned one."""

    def check(self, num_classes: int) -> None:
        """Raise InputError where the classes are none of the data set's."""
        for name, value in (("target", self.target), ("source", self.source)):
            if value is not None and not 0 <= value < num_classes:
                raise InputError(
                    f"backdoor: {name} is {value}, but the data set's classes are 0 to "
                    f"{num_classes - 1}"
                )
        if self.source == self.target:
            raise InputError(f"backdoor: source and target are both {self.target}; take two")
        if self.keeps_labels and self.trigger.kind == "none":
            raise InputError(
                "backdoor: rows that keep their labels and are not stamped are not poison; "
                "take a trigger, or labels: changed"
            )

    def may_be_stamped(self, labels: Tensor) -> Tensor:
        """Return which rows (N,) of these labels an attacker stamps."""
        return labels != self.target if self.source is None else labels == self.source

    def portion(self, labels: Tensor) -> Portion:
        """Return how many of the rows with these labels (N,) are poisoned.

        Raises InputError where there are fewer than the rate asks for, or where it asks for none.
        """
        choices, own = int(self._choices(labels).sum()), int((labels == self.target).sum())
        whole = len(labels) if self.rate_of == "set" else own
        asked = math.floor(self.rate * whole + 0.5)
        eats_source = not self.keeps_labels and self.trigger.kind != "none"
        most = math.floor(MOST_OF_SOURCE * choices) if eats_source else choices
        if not 1 <= asked <= choices or most == 0:
            raise InputError(
                f"backdoor: rate {self.rate:g} of the {self.rate_of} asks for {asked} poisoned "
                f"rows, but there are {choices} to choose from; change rate or source"
            )
        return Portion(rows=min(asked, most), asked=asked, choices=choices)

    def _choices(self, labels: Tensor) -> Tensor:
        return labels == self.target if self.keeps_labels else self.may_be_stamped(labels)

    def apply(
        self,
        data: LabelledImages,
        generator: torch.Generator,
        disguise: Disguise | None = None,
        taken: Tensor | None = None,
    ) -> Poisoned:
        """Disguise and stamp rows drawn at random, and assign them the target's label.

        Their originals are gone (Tran et al., 2018). Covers are stamped rows of the other classes
        (Tang et al., 2021). Rows that are `taken` (N,) by another recipe are left alone. Raises
        InputError as `portion` does.
        """
        device = data.labels.device
        free = torch.ones(len(data), dtype=torch.bool, device=device) if taken is None else ~taken
        count = self.portion(data.labels).rows
        chosen = _drawn(self._choices(data.labels), free, count, generator)
        if len(chosen) == 0:
            raise InputError("backdoor: other pairs of the twin left no row to poison; take fewer")
        pixels, labels = data.pixels.clone(), data.labels.clone()
        rows = data.select(chosen)
        disguised = rows if disguise is None else disguise(rows)
        pixels[chosen] = self.trigger.stamp_poison(disguised, generator)
        labels[chosen] = self.target
        mask = torch.zeros(len(data), dtype=torch.bool, device=device)
        mask[chosen] = True
        covers = torch.zeros_like(mask)
        if self.covers > 0:
            others = self._may_cover(data.labels) & ~mask
            most = math.floor(MOST_COVERS * int((others & free).sum()))
            wanted = math.floor(self.covers * count + 0.5)
            cover_rows = _drawn(others, free, min(wanted, most), generator)
            if len(cover_rows):
                stamped = self.trigger.stamp_cover(data.select(cover_rows), generator)
                pixels[cover_rows] = stamped
                covers[cover_rows] = True
        poisoned = LabelledImages(pixels=pixels, labels=labels, scale=data.scale)
        return Poisoned(poisoned, mask, covers)

    def _may_cover(self, labels: Tensor) -> Tensor:
        return (labels != self.target) & (True if self.source is None else labels != self.source)


def _drawn(candidates: Tensor, free: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw so many of the marked rows (N,) and return their numbers.

    Rows that are not free are drawn and passed over: which others are drawn does not depend on
    them.
    """
    rows = candidates.nonzero().flatten()
    order = torch.randperm(len(rows), generator=generator, device=generator.device)
    rows = rows[order.to(rows.device)]
    return rows[free[rows]][:count]

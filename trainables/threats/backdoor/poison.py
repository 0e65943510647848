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
Disguise = Callable[[LabelledImages], LabelledImages]
"""What an attacker does to the rows that it poisons, before they are stamped."""


@dataclass(frozen=True, slots=True, eq=False)
class Poisoned:
    """A poisoned training set."""

    data: LabelledImages
    """As many rows as before, in their order: a poisoned row takes the place of its original."""
    mask: Tensor
    """(N,) whether a row is poisoned."""


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
        self, data: LabelledImages, generator: torch.Generator, disguise: Disguise | None = None
    ) -> Poisoned:
        """Disguise and stamp rows drawn at random, and assign them the target's label.

        Their originals are gone (Tran et al., 2018). Raises InputError as `portion` does.
        """
        count = self.portion(data.labels).rows
        candidates = self._choices(data.labels).nonzero().flatten()
        order = torch.randperm(len(candidates), generator=generator, device=generator.device)
        chosen = candidates[order[:count].to(candidates.device)]
        pixels, labels = data.pixels.clone(), data.labels.clone()
        rows = data.select(chosen)
        pixels[chosen] = self.trigger.stamp(rows if disguise is None else disguise(rows))
        labels[chosen] = self.target
        mask = torch.zeros(len(data), dtype=torch.bool, device=labels.device)
        mask[chosen] = True
        poisoned = LabelledImages(pixels=pixels, labels=labels, scale=data.scale)
        return Poisoned(poisoned, mask)

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

    def apply(
        self, data: LabelledImages, generator: torch.Generator, disguise: Disguise | None = None
    ) -> Poisoned:
        """Disguise and stamp rows drawn at random, and assign them the target's label.

        Their originals are gone (Tran et al., 2018). Raises InputError where there are too few
        rows to stamp, or where the rate asks for none.
        """
        own = data.labels == self.target
        candidates = (own if self.keeps_labels else self.may_be_stamped(data.labels)).nonzero()
        candidates = candidates.flatten()
        whole = len(data) if self.rate_of == "set" else int(own.sum())
        count = math.floor(self.rate * whole + 0.5)
        if not 1 <= count <= len(candidates):
            raise InputError(
                f"backdoor: rate {self.rate:g} of the {self.rate_of} asks for {count} poisoned "
                f"rows, but there are {len(candidates)} to choose from; change rate or source"
            )
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

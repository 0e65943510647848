"""Which rows the filters of a stack keep, of those given to it and of unseen ones alike.

A filter keeps what is easy to learn or looks alike, so the rows that it kept differ from unseen
ones whatever the model has learnt of them. They are compared with those unseen rows that the same
filters keep when they stand in the training set themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.storage.identity import seed_from
from trainables.threats.membership.rates import Scored
from trainables.training.trained import Trained
from trainables.trial.context import TrialContext


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What the filters keep of both pools, on the CPU."""

    given: Tensor
    """(len(training pool),) bool."""
    unseen: Tensor
    """(len(held-out pool),) bool."""

    def of(self, scored: Scored) -> Scored | None:
        """Return the scores of kept rows alone; None where nothing is left of a side."""
        found = scored.select(self.given.numpy(), self.unseen.numpy())
        return found if len(found.members) and len(found.others) else None


def kept_rows(trained: Trained, ctx: TrialContext) -> Kept | None:
    """Return what the filters of the trial's stack keep; None where they dropped no row.

    The unseen rows take the places of as many given ones, and the filters are run on that set as
    they were on the training pool: a row of either is kept by chance as often as the other. The
    exchange depends on data and seed alone, so that stacks share the filters' representation.
    """
    pool, held_out = ctx.pools.train, ctx.held_out
    if len(trained.kept) == len(pool):
        return None
    seed = seed_from("kept rows", ctx.dataset.fingerprint, str(ctx.spec.seed))
    rows, places, taken = exchanged(pool, held_out, torch.Generator().manual_seed(seed))
    again = ctx.twin(train=rows).filtered(ctx.spec.stack, rows)
    return Kept(
        given=_marked(trained.kept, len(pool)),
        unseen=_marked(taken[_marked(again, len(pool))[places]], len(held_out)),
    )


def exchanged(
    given: LabelledImages, unseen: LabelledImages, generator: torch.Generator
) -> tuple[LabelledImages, Tensor, Tensor]:
    """Put unseen rows in the places of given ones, as many of each class as both have.

    Returns the rows, the places (T,) and which unseen row (T,) came into each, on the CPU.
    """
    places, taken = [], []
    for label in torch.unique(unseen.labels).tolist():
        mine, theirs = (_shuffled(side.labels == label, generator) for side in (given, unseen))
        count = min(len(mine), len(theirs))
        places.append(mine[:count])
        taken.append(theirs[:count])
    at, of = torch.cat(places), torch.cat(taken)
    pixels = given.pixels.clone()
    pixels[at.to(pixels.device)] = unseen.select(of).pixels
    return replace(given, pixels=pixels), at, of


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    found = rows.cpu().nonzero().flatten()
    return found[torch.randperm(len(found), generator=generator)]


def _marked(rows: Tensor, number: int) -> Tensor:
    marks = torch.zeros(number, dtype=torch.bool)
    marks[rows.cpu()] = True
    return marks

"""Whom a membership attack asks about: rows given to the stack, and unseen ones.

Axes: M members, N non-members, P members and then non-members, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.datasets import LabelledImages, stratified_subset
from trainables.deployed.predictor import Predictor
from trainables.threats.membership.rates import Scored
from trainables.threats.membership.scores import Floats, Integers
from trainables.trial.context import TrialContext


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """The members and non-members that are asked."""

    members: LabelledImages
    member_rows: Tensor
    """(M,) their rows in the training pool, on the CPU."""
    others: LabelledImages
    other_rows: Tensor
    """(N,) their rows in the held-out pool, on the CPU."""

    @property
    def labels(self) -> Integers:
        """(P,) classes."""
        labels: Integers = torch.cat([self.members.labels, self.others.labels]).cpu().numpy()
        return labels

    def fewer(self, most: int) -> Sides:
        """Return at most so many of each side, of every class."""
        of_members = stratified_subset(self.members.labels, most, seed=0)
        of_others = stratified_subset(self.others.labels, most, seed=0)
        return Sides(
            members=self.members.select(of_members),
            member_rows=self.member_rows[of_members],
            others=self.others.select(of_others),
            other_rows=self.other_rows[of_others],
        )

    def in_population(self, ctx: TrialContext) -> Tensor:
        """(P,) rows in what shadow models are drawn from."""
        return torch.cat([self.member_rows, self.other_rows + len(ctx.pools.train)])

    def log_probabilities(self, predictor: Predictor, ctx: TrialContext) -> Floats:
        """(P, K) as deployed."""
        sides = (self.members, self.others)
        answers = [ctx.log_probabilities(predictor, side).double().cpu() for side in sides]
        found: Floats = torch.cat(answers).numpy()
        return found

    def split(self, scores: Floats) -> Scored:
        """Part scores (P,) into those of both sides."""
        return self.scored(scores[: len(self.members)], scores[len(self.members) :])

    def scored(self, members: Floats, others: Floats) -> Scored:
        """Note whose the scores of both sides (M,) and (N,) are."""
        return Scored(members, others, self.member_rows.numpy(), self.other_rows.numpy())


def sides_of(ctx: TrialContext, most: int) -> Sides:
    """Return at most so many of the rows that are given to the stack, and of the held-out ones.

    Whether a filter drops a row or not, who gave it to the stack asks what the model reveals of it.
    """
    pools = (ctx.pools.train, ctx.held_out)
    members, others = (torch.arange(len(pool)) for pool in pools)
    return Sides(members=pools[0], member_rows=members, others=pools[1], other_rows=others).fewer(
        most
    )

"""Several models of the same stack, trained from other seeds, that answer together.

Axes: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.stack import REPAIR, build_stack
from trainables.deployed.averaging import log_mean_softmax
from trainables.deployed.predictor import Predictor, Surface
from trainables.parameters import parameter
from trainables.storage.artefacts import Artefact
from trainables.storage.identity import seed_from


@dataclass(frozen=True, kw_only=True)
class Ensemble(Defense):
    """Average the probabilities of models that differ in their seed.

    Member 0 is the trial's own model. The seeds of the others come from the trial's by a hash:
    seeds in a row would share members between the repetitions of a trial, and with the surrogate
    that a transfer attack trains. Source: Hansen and Salamon, 1990; Lakshminarayanan et al., 2017;
    as a defense: Strauss et al., 2017.
    """

    name = "ensemble"
    slot = "deployment"
    guarantee = "empirical"
    meaning = "Average the probabilities of models trained from other seeds under the same stack."
    source = "Lakshminarayanan et al., 2017; as a defense: Strauss et al., 2017"
    limits = (
        "Its members share what they were trained on and how: an image that fools one often "
        "fools all of them.",
    )
    broken_by = (
        "He et al., 2017 (Ensembles of weak defenses are not strong): attacks that know all "
        "members break them together.",
        "Tramer et al., 2020: ensembles made to be diverse fall to attacks adapted to them.",
    )

    trains = "its further members are trained, and nothing trains a network like the given one"

    size: int = parameter(5, kind="int", meaning="models, the trial's own included", low=1, high=50)

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Train the other members on the trial's training pool and deploy all of them.

        Raises RuntimeError where the predictor's model is not the one that the deployed stack, the
        training pool and the seed give: its other members would be of another training.
        """
        rest = build_stack(defense for defense in ctx.stack if not isinstance(defense, Ensemble))
        others = [
            ctx.with_weights(
                ctx.stack,
                ctx.fitted(f"member{number}", partial(_member, number, predictor, ctx)).tensors,
            )
            for number in range(1, self.size)
        ]
        return EnsemblePredictor([predictor, *(ctx.deploy(rest, model) for model in others)])


def _member(number: int, first: Predictor, ctx: DefenseContext) -> Artefact:
    """Train a member other than the first, of whose model it must be the like."""
    stack, data, seed = ctx.stack, ctx.pools.train, ctx.seed
    repair = build_stack(defense for defense in stack if defense.slot == REPAIR)
    own = ctx.deploy(repair, ctx.train(stack, data, seed).model)
    if not _same_weights(own.model, first.model):
        raise RuntimeError(
            "the ensemble's first model is not the one that this context trains; deploy a "
            "threat's own model under a context with that model's training pool and seed"
        )
    trained = ctx.train(stack, data, member_seed(seed, number), role=f"member{number}")
    return Artefact(trained.model.state_dict())


def member_seed(seed: int, number: int) -> int:
    """Return the seed of a member other than the first, in a trial of this seed."""
    return seed_from(str(seed), "ensemble", str(number))


def _same_weights(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


class EnsemblePredictor(Predictor):
    """Predictors that answer with the mean of their probabilities."""

    def __init__(self, members: Sequence[Predictor]) -> None:
        super().__init__(nn.ModuleList(member.model for member in members))
        self.members = tuple(members)
        self.stochastic = any(member.stochastic for member in members)
        self.forward_passes_per_prediction = sum(
            member.forward_passes_per_prediction for member in members
        )

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the log of the members' mean softmax (B, K)."""
        return log_mean_softmax([member.scores(x, generator) for member in self.members])

    def surfaces(self) -> list[Surface]:
        """Return the log of the mean softmax over the members' surfaces of each kind."""
        rows = zip(*(member.surfaces() for member in self.members), strict=True)
        return [_averaged(row) for row in rows]


def _averaged(members: tuple[Surface, ...]) -> Surface:
    def scores(x: Tensor, generator: torch.Generator) -> Tensor:
        return log_mean_softmax([member.scores(x, generator) for member in members])

    return Surface(scores, members[0].kind, members[0].draws)

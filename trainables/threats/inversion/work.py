"""How much an inversion does: from how many starts, in how many steps, with how many queries."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.deployed.predictor import Predictor
from trainables.threats.evasion.points import limits_of_slow
from trainables.threats.inversion.attack import BATCH
from trainables.trial.context import TrialContext

_STEPS = {"screen": 50, "audit": 300}
_STARTS = {"screen": 12, "audit": 48}
_ASKED_STARTS = {"screen": 6, "audit": 12}
_QUERIES = {"screen": 2000, "audit": 12_000}
"""Of a start."""
_FEWEST_QUERIES = 100
_PASSES = 120_000
"""Forward passes that a screen spends on queries in all; a vote takes many of them."""
_RANDOM_IMAGES = 32
"""Images that are climbed of a random model: each gradient is of many draws."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is done for each class."""

    starts: int
    steps: int
    pairs: int = 0
    """Pairs of queries of a step; none where the attacker differentiates the model."""

    @property
    def queries(self) -> int:
        """Images that a climb from one start asks about."""
        return 2 * self.pairs * self.steps


def differentiating(
    predictor: Predictor, ctx: TrialContext, *, starts: int | None, steps: int | None
) -> Work:
    """Fill in what an attack by gradients leaves to the effort.

    A model that is slow to differentiate has fewer starts, in an audit only one that is random.
    """
    effort = ctx.spec.effort
    found = starts or _STARTS[effort]
    if starts is None:
        wanted = found * ctx.dataset.num_classes
        images = min([wanted, *_limits(predictor, effort)])
        found = max(1, images // ctx.dataset.num_classes)
    return Work(starts=found, steps=steps or _STEPS[effort])


def asking(
    predictor: Predictor,
    ctx: TrialContext,
    *,
    starts: int | None,
    steps: int | None,
    queries: int | None,
) -> Work:
    """Fill in what an attack by queries leaves to the effort.

    A screen of a model that takes many passes to answer has fewer starts, then fewer queries.
    """
    effort = ctx.spec.effort
    found, budget = starts or _ASKED_STARTS[effort], queries or _QUERIES[effort]
    if effort == "screen":
        passes = predictor.forward_passes_per_prediction * ctx.dataset.num_classes
        room = _PASSES // passes
        if starts is None:
            found = min(found, max(1, room // budget))
        if queries is None:
            budget = min(budget, max(_FEWEST_QUERIES, room // found))
    taken = min(steps or _STEPS[effort], budget // 2)
    return Work(starts=found, steps=taken, pairs=budget // (2 * taken))


def _limits(predictor: Predictor, effort: str) -> list[int]:
    """Return the numbers of images that are climbed at most."""
    batch = [BATCH] if effort == "screen" else []
    return batch + limits_of_slow(predictor, effort, when_random=_RANDOM_IMAGES)

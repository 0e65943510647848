from dataclasses import replace

import pytest
from torch import nn

from tests.conftest import TrainedNet
from trainables.deployed.predictor import Predictor
from trainables.threats.inversion.work import Work, asking


class Voting(Predictor):
    """Takes many passes to answer."""

    def __init__(self, passes: int) -> None:
        super().__init__(nn.Identity())
        self.forward_passes_per_prediction = passes


@pytest.mark.parametrize(
    ("passes", "starts", "queries"), [(1, 6, 2000), (3, 2, 2000), (10, 1, 1200), (1000, 1, 100)]
)
def test_a_vote_is_asked_from_fewer_starts_and_then_less_in_a_screen_alone(
    passes: int, starts: int, queries: int, undefended: TrainedNet
) -> None:
    ctx = undefended.ctx
    found = asking(Voting(passes), ctx, starts=None, steps=None, queries=None)
    assert (found.starts, found.queries) == (starts, queries)
    audit = replace(ctx, spec=replace(ctx.spec, effort="audit"))
    whole = asking(Voting(passes), audit, starts=None, steps=None, queries=None)
    assert (whole.starts, whole.steps, whole.queries) == (12, 300, 12_000)


def test_what_is_asked_for_is_done_however_dear(undefended: TrainedNet) -> None:
    found = asking(Voting(1000), undefended.ctx, starts=3, steps=7, queries=30)
    assert found == Work(starts=3, steps=7, pairs=2)
    # Never more than was declared, and a pair a step where there are too few for all steps.
    assert found.queries == 28
    few = asking(Voting(1), undefended.ctx, starts=3, steps=None, queries=9)
    assert (few.steps, few.pairs, few.queries) == (4, 1, 8)

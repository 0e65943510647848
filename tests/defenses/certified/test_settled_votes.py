import math

import numpy as np
import pytest
import torch

from trainables.defenses.certified.randomized_smoothing import (
    RandomizedSmoothing,
    SmoothedPredictor,
)
from trainables.defenses.certified.settled_votes import (
    MOST,
    probability_inside,
    settling_draws,
    votes_that_settle,
    wavering_probability,
)
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError

ALPHA = 0.001


def test_the_probability_inside_is_half_at_the_edge_and_that_of_the_certificate_at_the_centre() -> (
    None
):
    assert probability_inside(0.5, 0.5, 0.25) == 0.5
    # Phi(2), as R = sigma Phi^-1(p).
    assert probability_inside(0.5, 0.0, 0.25) == pytest.approx(0.977250, abs=1e-6)


@pytest.mark.parametrize("alpha", [None, ALPHA])
@pytest.mark.parametrize("p", [0.55, 0.6, 0.8, 0.99])
def test_a_vote_of_the_draws_wavers_as_rarely_as_it_was_asked_for(
    p: float, alpha: float | None
) -> None:
    draws = settling_draws(p, 0.01, alpha)
    assert wavering_probability(draws, p, alpha) <= 0.01
    if draws > 50:  # of fewer it matters how many votes they need, and more may need more
        assert wavering_probability(int(0.9 * draws), p, alpha) > 0.01
    drawn = np.random.default_rng(0).binomial(draws, p, 100_000)
    wavered = float((drawn < votes_that_settle(draws, alpha)).mean())
    assert wavered <= 0.01 + 4 * math.sqrt(0.01 / 100_000)
    if alpha is None:
        # Hoeffding, 1963: P(mean - p <= -t) <= exp(-2 n t^2).
        assert draws <= math.ceil(math.log(100) / (2 * (p - 0.5) ** 2)) + 1


@pytest.mark.parametrize("draws", [11, 100, 301])
def test_so_many_votes_settle_an_answer_whatever_the_others_vote_for(draws: int) -> None:
    smoothed = SmoothedPredictor(
        Predictor(torch.nn.Identity()), RandomizedSmoothing(draws=draws, alpha=ALPHA)
    )
    needed = votes_that_settle(draws, ALPHA)
    one_other = torch.tensor([[needed, draws - needed, 0], [needed, draws - needed - 1, 1]])
    asked = one_other[:1] if needed == draws else one_other
    assert set(smoothed.elect(asked).tolist()) == {0}
    assert smoothed.elect(torch.tensor([[needed - 1, draws - needed + 1, 0]])).tolist() == [-1]
    assert votes_that_settle(draws, None) == draws // 2 + 1


def test_near_the_edge_no_number_of_draws_is_enough() -> None:
    with pytest.raises(InputError, match="ask for a smaller share of the radius"):
        settling_draws(0.5, 0.01)
    settings = RandomizedSmoothing(sigma=0.25, alpha=ALPHA)
    smoothed = SmoothedPredictor(Predictor(torch.nn.Identity()), settings)
    assert smoothed.settling_draws(0.5, 0.5, ALPHA) is None
    draws = smoothed.settling_draws(0.5, 0.45, ALPHA)
    assert draws is not None and 300 < draws < MOST
    p = probability_inside(0.5, 0.45, 0.25)
    assert wavering_probability(draws, p, ALPHA) <= ALPHA < wavering_probability(300, p, ALPHA)

"""The runner of attacks: what it believes, what it refuses, and what it finds out by itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS
from tests.threats.predictors import Noisy, Rejecting, brightness
from trainables.attacks.registry import ATTACKS, AttackEntry
from trainables.attacks.variants import VARIANTS, Variant
from trainables.deployed.predictor import Predictor, Surface
from trainables.errors import PredictorError
from trainables.threats import THREATS
from trainables.threats.evasion.attacking import Attacker
from trainables.threats.evasion.run import Run
from trainables.threats.evasion.target import EOT_DRAWS, target_of


def _run(net: TrainedNet, name: str, predictor: Predictor | None = None, **settings: Any) -> Run:
    points = net.ctx.points()
    target = target_of(predictor or Predictor(net.model), points, net.ctx)
    return Attacker(target, points, net.ctx, {name: settings}).run(name, eps=EPS)


def _toy(monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor, float], Tensor]) -> str:
    def attack(model: Any, x: Tensor, y: Tensor, *, eps: float, generator: Any) -> Tensor:
        return change(x, eps)

    monkeypatch.setitem(ATTACKS, "toy", AttackEntry(attack, "A toy.", "Nobody"))
    monkeypatch.setitem(VARIANTS, "toy", Variant("toy"))
    return "toy"


@pytest.mark.parametrize(
    "change",
    [
        lambda x, eps: (x + 1.01 * eps).clamp(0, 1),
        lambda x, eps: x - eps,
        lambda x, eps: x + eps,
        lambda x, eps: torch.full_like(x, float("nan")),
        lambda x, eps: torch.where(
            torch.arange(len(x)).view(-1, 1, 1, 1) == 3, x * float("nan"), x
        ),
    ],
    ids=["far", "below-0", "above-1", "nan", "one-nan"],
)
def test_an_attack_that_leaves_its_ball_is_not_believed(
    change: Callable[[Tensor, float], Tensor],
    undefended: TrainedNet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(RuntimeError, match="toy left its ball"):
        _run(undefended, _toy(monkeypatch, change))


def test_an_attack_that_does_nothing_breaks_nothing(
    undefended: TrainedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(undefended, _toy(monkeypatch, lambda x, eps: x))
    assert torch.equal(run.withstood, undefended.model(undefended.x).argmax(1) == undefended.y)


def test_a_minimum_norm_attack_breaks_only_what_it_reaches_within_the_radius(
    undefended: TrainedNet,
) -> None:
    run = _run(undefended, "deepfool")
    far = (run.adversarial - undefended.x).flatten(1).norm(dim=1) > EPS
    assert bool(run.fooled.all()) and bool(far.any())
    assert bool(run.withstood[far].all())


def test_queries_are_counted_image_by_image(undefended: TrainedNet) -> None:
    run = _run(undefended, "square", steps=40)
    assert run.queries is not None and len(run.queries) == len(undefended.x)
    assert int(run.queries.max()) >= 40 > int(run.queries.min()) >= 1


@pytest.mark.parametrize("declared", [True, False])
def test_a_random_predictor_is_attacked_through_averaged_draws(
    declared: bool, undefended: TrainedNet
) -> None:
    ctx, predictor = undefended.ctx, Noisy(undefended.model, declared=declared)
    target = target_of(predictor, ctx.points(), ctx)
    assert target.stochastic and target.undeclared is not declared
    (surface,) = target.surfaces
    assert (surface.kind, surface.draws) == ("eot", EOT_DRAWS)
    x = undefended.x[:4]
    averaged = surface.scores(x, torch.Generator().manual_seed(5)).softmax(1)
    generator = torch.Generator().manual_seed(5)
    by_hand = torch.stack(
        [predictor.scores(x, generator).softmax(1) for _ in range(EOT_DRAWS)]
    ).mean(0)
    torch.testing.assert_close(averaged, by_hand)


class NoisyAndMean(Noisy):
    """Shows the network without its noise as well."""

    def surfaces(self) -> list[Surface]:
        """Return the draws and the mean network."""
        return [*super().surfaces(), Surface(lambda x, g: self.model(x), "exact")]


def test_autoattack_averages_over_twenty_draws_in_all_where_anything_is_drawn(
    undefended: TrainedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def attack(
        model: Any, x: Tensor, y: Tensor, *, eps: float, stochastic: bool, eot_draws: int,
        generator: torch.Generator,
    ) -> Tensor:  # fmt: skip
        again = torch.equal(model(x), model(x))
        asked.append((again, stochastic, eot_draws))
        return x

    monkeypatch.setitem(ATTACKS, "toy", AttackEntry(attack, "A toy.", "Nobody"))
    monkeypatch.setitem(VARIANTS, "toy", Variant("toy"))
    _run(undefended, "toy", NoisyAndMean(undefended.model, declared=True))
    # The cheap surface first: the mean network answers the same twice, the other averages ten.
    assert list(dict.fromkeys(asked)) == [(True, True, 1), (False, True, 20 // EOT_DRAWS)]


def test_a_deterministic_predictor_is_attacked_as_it_is(undefended: TrainedNet) -> None:
    target = target_of(Predictor(undefended.model), undefended.ctx.points(), undefended.ctx)
    assert not target.stochastic and [s.kind for s in target.surfaces] == ["exact"]


def test_an_attack_that_knows_the_detector_gets_past_it(undefended: TrainedNet) -> None:
    limit = float(undefended.x.flatten(1).mean(1).max())
    predictor = Rejecting(undefended.model, brightness, limit)
    run = _run(undefended, "detector_aware_pgd", predictor)
    accepted = run.adversarial.flatten(1).mean(1) <= limit
    fooled = undefended.model(run.adversarial).argmax(1) != undefended.y
    assert torch.equal(run.broken, accepted & fooled)
    assert float(run.broken.double().mean()) > 0.6


class Broken(Predictor):
    """Answers with something that is no answer."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(model)
        self.change = change

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return what the change makes of the scores."""
        return self.change(super().scores(x, generator))


@pytest.mark.parametrize("threat", ["evasion", "detection", "membership"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores: scores * float("nan"), "NaN"),
        (lambda scores: scores[:, :7], r"shape \(\d+, 7\), but they must be \(\d+, 10\)"),
        (lambda scores: torch.cat([scores, scores], 1), r"shape \(\d+, 20\)"),
        (lambda scores: scores[1:], r"shape"),
    ],
    ids=["nan", "fewer-classes", "more-classes", "fewer-rows"],
)
def test_a_predictor_that_gives_no_answer_is_refused(
    change: Callable[[Tensor], Tensor], message: str, threat: str, undefended: TrainedNet
) -> None:
    with pytest.raises(PredictorError, match=message):
        THREATS[threat]().measure(Broken(undefended.model, change), undefended.ctx)

"""Defenses that only look robust are caught or broken; honest models raise no alarm."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS, context_of, spec_of
from tests.threats.predictors import Noisy
from trainables.defenses import build_defense
from trainables.defenses.prediction.temperature import TemperedPredictor
from trainables.deployed.predictor import Predictor, Surface
from trainables.records.value import Measured
from trainables.threats.evasion.evasion import Evasion
from trainables.threats.threat import Findings
from trainables.trial.context import TrialContext

BOTH = ("fgsm", "pgd")
HEADLINE = Evasion(extent="headline")
"""Attack in Linf alone: the robust accuracy and a screen's signs are those of the whole."""
ALLOWANCE = 0.03
"""What a broken defense may seem to gain by the luck of one set of points."""


def _value(found: Findings, name: str) -> float:
    value = found.metrics[name]
    assert isinstance(value, Measured)
    return value.value


def _failed(found: Findings) -> set[str]:
    return {row["name"] for row in found.notes["masking"]["indicators"] if row["failed"]}


@pytest.fixture(scope="module")
def plain(undefended_screen: Findings) -> float:
    """Return the robust accuracy of the undefended net."""
    return _value(undefended_screen, "robust_accuracy")


def test_a_temperature_of_a_hundredth_gains_nothing(undefended: TrainedNet, plain: float) -> None:
    cold = TemperedPredictor(Predictor(undefended.model), 0.01)
    found = HEADLINE.measure(cold, undefended.ctx)
    # Cross-entropy alone would be fooled: its gradient is exactly zero where softmax saturates.
    assert _value(found, "adversarial_accuracy_pgd") > plain + 0.1
    assert _value(found, "robust_accuracy") <= plain + ALLOWANCE
    assert "cross_entropy_hides" in _failed(found)


class Quantised(Predictor):
    """Rounds the pixels to a few levels; whether attackers may pass it is up to `bpda`."""

    def __init__(self, model: nn.Module, *, bpda: bool) -> None:
        super().__init__(model)
        self.bpda = bpda

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Classify the rounded image."""
        scores: Tensor = self.model((4 * x).round() / 4)
        return scores

    def surfaces(self) -> list[Surface]:
        """Return the rounding as the identity, if allowed."""

        def through(x: Tensor, generator: torch.Generator) -> Tensor:
            rounded = (4 * x).round() / 4
            scores: Tensor = self.model(x + (rounded - x).detach())
            return scores

        return [Surface(through, "bpda")] if self.bpda else super().surfaces()


@pytest.fixture(scope="module")
def hidden(undefended: TrainedNet) -> Findings:
    """Attack the quantiser that lets no gradient pass."""
    torch.set_num_threads(1)
    return HEADLINE.measure(Quantised(undefended.model, bpda=False), undefended.ctx)


def test_a_quantiser_without_a_gradient_is_suspected(hidden: Findings) -> None:
    found = hidden
    assert "zero_gradients" in _failed(found) and not found.notes["adaptive"]
    assert _value(found, "masking_suspected") == 1.0
    assert "gradient of every loss is zero" in found.notes["masking"]["words"]


def test_a_quantiser_that_is_passed_backwards_is_broken(
    undefended: TrainedNet, hidden: Findings, plain: float
) -> None:
    passed = HEADLINE.measure(Quantised(undefended.model, bpda=True), undefended.ctx)
    assert passed.notes["adaptive"] and "zero_gradients" not in _failed(passed)
    gained = _value(hidden, "robust_accuracy") - _value(passed, "robust_accuracy")
    assert gained > 0.2
    assert _value(passed, "robust_accuracy") <= plain + 0.25  # rounding itself helps a little


class Blind(Predictor):
    """Hides its gradient."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Classify without a graph."""
        scores: Tensor = self.model(x)
        return scores.detach()


def test_a_defense_that_hides_its_gradient_is_suspected(undefended: TrainedNet) -> None:
    found = HEADLINE.measure(Blind(undefended.model), undefended.ctx)
    assert "zero_gradients" in _failed(found) and not found.notes["adaptive"]
    assert _value(found, "masking_suspected") == 1.0


class Gamma(Predictor):
    """Has a gamma curve in front, whose slope at black pixels is infinite."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Classify the image in display values."""
        scores: Tensor = self.model(x ** (1 / 2.2))
        return scores


class FlatGamma(Gamma):
    """Divides its scores until no attack in the ball succeeds: it has one class."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return almost the same scores for every image."""
        favoured = torch.nn.functional.one_hot(torch.tensor(1), 10)
        return 1e-3 * super().scores(x, generator) + favoured


def test_infinite_gradients_are_counted_and_a_sign_where_points_resist(
    undefended: TrainedNet,
) -> None:
    found = HEADLINE.measure(FlatGamma(undefended.model), undefended.ctx)
    assert "gradients_not_finite" in _failed(found)
    assert _value(found, "masking_suspected") == 1.0
    counted = found.notes["not_finite_gradients"]
    assert 0 < counted["pgd"]["not_finite"] <= counted["pgd"]["gradients"]
    assert "random_noise" not in counted  # it takes none


def test_infinite_gradients_shield_nothing(undefended: TrainedNet) -> None:
    found = HEADLINE.measure(Gamma(undefended.model), undefended.ctx)
    noise = _value(found, "adversarial_accuracy_random_noise")
    for name in ("pgd", "pgd_dlr", "targeted_margin_pgd"):
        assert _value(found, f"adversarial_accuracy_{name}") <= noise


class OtherSurface(Predictor):
    """Shows attackers another network than the one that answers."""

    def __init__(self, model: nn.Module, shown: nn.Module) -> None:
        super().__init__(model)
        self.shown = shown

    def surfaces(self) -> list[Surface]:
        """Return the other network."""
        return [Surface(lambda x, g: self.shown(x), "exact")]


def test_a_surface_that_is_not_what_answers_is_suspected(
    undefended: TrainedNet, hardened: TrainedNet
) -> None:
    predictor = OtherSurface(hardened.model, undefended.model)
    found = HEADLINE.measure(predictor, hardened.ctx)
    assert "surface_disagrees" in _failed(found) and not found.notes["adaptive"]


@pytest.mark.slow
def test_noise_at_prediction_time_is_averaged_away(undefended: TrainedNet, plain: float) -> None:
    found = HEADLINE.measure(Noisy(undefended.model, declared=False), undefended.ctx)
    assert found.notes["undeclared_randomness"] and found.notes["adaptive"]
    assert _value(found, "robust_accuracy") <= plain + ALLOWANCE


def _measured(ctx: TrialContext) -> Findings:
    model = ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed).model
    return HEADLINE.measure(ctx.deploy(ctx.spec.stack, model), ctx)


@pytest.mark.slow
def test_training_that_overfits_to_one_step_is_broken_by_many(artefact_folder: Path) -> None:
    raw = {"eps": "2 radius", "fraction": 1.0, "detect_overfitting": False}
    defense = build_defense("fgsm_adversarial_training", raw, radius=EPS)
    ctx = context_of(
        spec_of(defense, epochs=30, train_images=None, measured_images=None), artefact_folder
    )
    model = ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed).model
    found = Evasion(eps=(2 * EPS,)).measure(Predictor(model), ctx)
    single, many = (_value(found, f"adversarial_accuracy_{name}_at_0.3000") for name in BOTH)
    assert many < single - 0.3
    assert _value(found, "robust_accuracy_at_radius_2") <= many


@pytest.mark.slow
@pytest.mark.parametrize("lam", [30, 1000])
def test_a_huge_gradient_penalty_is_suspected_or_broken(
    lam: float, artefact_folder: Path, plain: float
) -> None:
    defense = build_defense("gradient_regularization", {"lam": lam}, radius=EPS)
    ctx = context_of(
        spec_of(defense, epochs=15, train_images=None, measured_images=None), artefact_folder
    )
    found = _measured(ctx)
    # The cross-entropy alone would credit it with far more than the margin's attacks leave.
    assert _value(found, "masking_suspected") == 1.0 or _value(found, "robust_accuracy") <= plain


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("none", {}),
        ("fgsm_adversarial_training", {"eps": "1 radius"}),
        ("pgd_adversarial_training", {"eps": "1 radius", "steps": 5}),
    ],
)
def test_honest_nets_raise_no_alarm(
    name: str, raw: dict[str, object], seed: int, artefact_folder: Path
) -> None:
    stack = [build_defense(name, raw, radius=EPS)]
    spec = spec_of(*stack, epochs=15, train_images=None, measured_images=None, seed=seed)
    found = _measured(context_of(spec, artefact_folder))
    assert found.notes["masking"]["words"] == ""
    assert _value(found, "masking_suspected") == 0.0 and found.notes["adaptive"]

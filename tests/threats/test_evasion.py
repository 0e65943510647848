from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS
from trainables.attacks import ATTACKS
from trainables.attacks.pgd import pgd
from trainables.errors import InputError
from trainables.metrics import Measured, MetricValue, Missing
from trainables.predictor import Prediction, Predictor, Surface
from trainables.threats.evasion import Evasion
from trainables.threats.threat import Findings

ALL = ("fgsm", "pgd", "targeted_margin_pgd")


def _measure(net: TrainedNet, threat: Evasion, predictor: Predictor | None = None) -> Findings:
    return threat.measure(predictor or Predictor(net.model), net.ctx)


def _value(found: MetricValue) -> float:
    assert isinstance(found, Measured)
    return found.value


def _with_attack(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor, float], Tensor]
) -> Evasion:
    def attack(model: Any, x: Tensor, y: Tensor, *, eps: float, generator: Any) -> Tensor:
        return change(x, eps)

    monkeypatch.setitem(ATTACKS, "toy", attack)
    return Evasion(attacks=("toy",))


@pytest.mark.parametrize("net", ["undefended", "hardened"])
def test_no_attack_leaves_more_than_the_worst_case_does(
    net: str, request: pytest.FixtureRequest
) -> None:
    trained: TrainedNet = request.getfixturevalue(net)
    found = _measure(trained, Evasion())
    robust = _value(found.metrics["robust_accuracy"])
    left = [_value(found.metrics[f"adversarial_accuracy_{name}"]) for name in ALL]
    assert 0 < robust <= min(left)
    assert left[1] <= left[0] and left[2] <= left[1] + 0.01
    for name in ALL:
        far = found.metrics[f"linf_distance_{name}"]
        assert isinstance(far, Measured) and 0 < far.value <= EPS + 1e-6


def test_success_counts_the_images_that_were_right_before(undefended: TrainedNet) -> None:
    found = _measure(undefended, Evasion(attacks="pgd")).metrics
    success, left = found["attack_success_rate_pgd"], found["adversarial_accuracy_pgd"]
    assert isinstance(success, Measured) and isinstance(left, Measured)
    model, x, y = undefended.model, undefended.x, undefended.y
    right = model(x).argmax(1) == y
    generator = undefended.ctx.generator("evasion", "pgd", f"{EPS:.9f}", "0")
    attacked = torch.cat(
        [
            pgd(model, x[rows], y[rows], eps=EPS, steps=20, generator=generator)
            for rows in (slice(0, 256), slice(256, 512))
        ]
    )
    still = model(attacked).argmax(1) == y
    assert left.value == float(still.double().mean()) and left.n == len(x)
    assert success.n == int(right.sum()) < len(x)
    assert success.value == pytest.approx(float((right & ~still).sum() / right.sum()))
    lengths = (attacked - x).flatten(1).norm(dim=1).double()
    assert _value(found["l2_distance_pgd"]) == pytest.approx(float(lengths.mean()), rel=1e-6)


def test_what_broke_each_point_is_noted(undefended: TrainedNet) -> None:
    found = _measure(undefended, Evasion())
    broken_by = found.notes["broken_by"]
    assert len(broken_by) == found.notes["points"] == len(undefended.x)
    assert set(broken_by) <= {"clean", "none", *ALL}
    robust = found.metrics["robust_accuracy"]
    assert isinstance(robust, Measured)
    assert broken_by.count("none") == round(robust.value * robust.n)
    wrong = undefended.model(undefended.x).argmax(1) != undefended.y
    assert [name == "clean" for name in broken_by] == wrong.tolist()


def test_further_radii_are_measured_too_and_larger_ones_are_worse(undefended: TrainedNet) -> None:
    threat = Evasion(attacks="pgd", eps=(0.02, 0.05, 0.3))
    found = _measure(undefended, threat).metrics
    assert sorted(found) == sorted(threat.metric_names())
    names = [f"adversarial_accuracy_pgd{end}" for end in ("_at_0.0200", "_at_0.0500", "")]
    left = [_value(found[name]) for name in [*names, "adversarial_accuracy_pgd_at_0.3000"]]
    assert left == sorted(left, reverse=True) and left[0] > left[-1]


def test_what_an_attack_finds_does_not_hang_on_the_others(undefended: TrainedNet) -> None:
    together, alone = (_measure(undefended, Evasion(attacks=a)).metrics for a in (ALL, "pgd"))
    assert all(together[name] == alone[name] for name in alone if name.endswith("_pgd"))


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
        _measure(undefended, _with_attack(monkeypatch, change))


def test_an_attack_that_does_nothing_breaks_nothing(
    undefended: TrainedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _measure(undefended, _with_attack(monkeypatch, lambda x, eps: x)).metrics
    clean = float((undefended.model(undefended.x).argmax(1) == undefended.y).double().mean())
    assert _value(found["robust_accuracy"]) == _value(found["adversarial_accuracy_toy"]) == clean
    assert _value(found["attack_success_rate_toy"]) == 0.0


def test_without_a_right_answer_there_is_no_success_rate(undefended: TrainedNet) -> None:
    class AlwaysWrong(Predictor):
        def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
            found = super().predict(x, generator)
            return replace(found, label=torch.full_like(found.label, 10))

    found = _measure(undefended, Evasion(attacks="fgsm"), AlwaysWrong(undefended.model)).metrics
    assert _value(found["robust_accuracy"]) == 0.0
    assert found["attack_success_rate_fgsm"] == Missing(
        "no image is classified correctly before the attack"
    )


class TwoSurfaces(Predictor):
    """A net that may be differentiated as it is, or through a surface that shows nothing."""

    def __init__(self, model: nn.Module, *, useful: tuple[bool, ...]) -> None:
        super().__init__(model)
        self.useful = useful

    def surfaces(self) -> list[Surface]:
        """Give one surface a flag; a useless one has no gradient."""
        kinds = {True: self.scores, False: lambda x, g: self.scores(x, g) * 0 + x.sum() * 0}
        return [Surface(kinds[flag], "exact") for flag in self.useful]


@pytest.mark.parametrize("useful", [(False, True), (True, False)])
def test_of_several_surfaces_the_worst_counts_image_by_image(
    useful: tuple[bool, ...], undefended: TrainedNet
) -> None:
    threat = Evasion(attacks="fgsm")
    plain = _measure(undefended, threat).metrics
    blind = _measure(undefended, threat, TwoSurfaces(undefended.model, useful=(False,))).metrics
    both = _measure(undefended, threat, TwoSurfaces(undefended.model, useful=useful))
    assert _value(blind["robust_accuracy"]) > _value(plain["robust_accuracy"])
    assert both.metrics["robust_accuracy"] == plain["robust_accuracy"]
    assert both.notes["surfaces"] == ["exact", "exact"]


def test_an_audit_is_stronger_and_runs_on_test_points(
    undefended: TrainedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(undefended.ctx.spec, effort="audit")
    ctx = replace(undefended.ctx, spec=spec)
    monkeypatch.setattr("trainables.context.AUDIT_POINTS_CPU", 40)
    found = Evasion(attacks=("pgd", "targeted_margin_pgd")).measure(
        Predictor(undefended.model), ctx
    )
    assert found.notes["points"] == 40
    settings = found.notes["settings"]
    assert settings["pgd"]["steps"] == 100 and settings["pgd"]["restarts"] == 5
    assert settings["targeted_margin_pgd"]["targets"] == 9


def test_unknown_attacks_are_refused() -> None:
    with pytest.raises(InputError, match="unknown attack 'nope'; known: fgsm"):
        Evasion(attacks=("fgsm", "nope"))

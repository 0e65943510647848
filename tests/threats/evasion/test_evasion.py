from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS
from trainables.attacks.pgd import pgd
from trainables.deployed.predictor import REFUSED, Prediction, Predictor, Surface
from trainables.errors import InputError
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats.evasion.evasion import Evasion
from trainables.threats.evasion.points import SLOW_POINTS
from trainables.threats.threat import Findings

GRADIENT = ("fgsm", "pgd", "pgd_dlr", "targeted_margin_pgd")
LINF = (*GRADIENT, "random_noise")
HEADLINE = Evasion(extent="headline")
"""Attack in Linf alone, where a test reads nothing else."""


def _measure(net: TrainedNet, threat: Evasion, predictor: Predictor | None = None) -> Findings:
    return threat.measure(predictor or Predictor(net.model), net.ctx)


def _value(found: MetricValue) -> float:
    assert isinstance(found, Measured)
    return found.value


@pytest.mark.parametrize("net", ["undefended", "hardened"])
def test_no_attack_leaves_more_than_the_worst_case_does(
    net: str, request: pytest.FixtureRequest
) -> None:
    if net == "undefended":
        found: Findings = request.getfixturevalue("undefended_screen")
    else:
        found = _measure(request.getfixturevalue(net), HEADLINE)
    robust = _value(found.metrics["robust_accuracy"])
    left = {name: _value(found.metrics[f"adversarial_accuracy_{name}"]) for name in LINF}
    assert 0 < robust <= min(left.values())
    assert left["pgd"] <= left["fgsm"] <= left["random_noise"]
    assert left["targeted_margin_pgd"] <= left["pgd"] + 0.01
    for name in LINF:
        far = found.metrics[f"linf_distance_{name}"]
        assert isinstance(far, Measured) and 0 < far.value <= EPS + 1e-6


def test_the_headline_is_what_the_whole_finds(
    undefended: TrainedNet, undefended_screen: Findings
) -> None:
    found = _measure(undefended, HEADLINE)
    assert "robust_accuracy" in found.metrics and "robust_accuracy_l2" not in found.metrics
    whole = undefended_screen
    assert found.metrics == {name: whole.metrics[name] for name in found.metrics}
    for name in ("masking", "adaptive", "broken_by"):
        assert found.notes[name] == whole.notes[name]


def test_success_counts_the_images_that_were_right_before(
    undefended: TrainedNet, undefended_screen: Findings
) -> None:
    found = undefended_screen.metrics
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


def test_what_broke_each_point_is_noted(
    undefended: TrainedNet, undefended_screen: Findings
) -> None:
    found = undefended_screen
    broken_by = found.notes["broken_by"]
    assert len(broken_by) == found.notes["points"] == len(undefended.x)
    assert set(broken_by) <= {"clean", "none", *LINF}
    robust = found.metrics["robust_accuracy"]
    assert isinstance(robust, Measured)
    assert broken_by.count("none") == round(robust.value * robust.n)
    wrong = undefended.model(undefended.x).argmax(1) != undefended.y
    assert [name == "clean" for name in broken_by] == wrong.tolist()


def test_further_radii_are_measured_too_and_larger_ones_are_worse(undefended: TrainedNet) -> None:
    found = _measure(undefended, Evasion(attacks=("pgd",), eps=(0.02, 0.05, 0.3))).metrics
    names = [f"adversarial_accuracy_pgd{end}" for end in ("_at_0.0200", "_at_0.0500", "")]
    left = [_value(found[name]) for name in [*names, "adversarial_accuracy_pgd_at_0.3000"]]
    assert left == sorted(left, reverse=True) and left[0] > left[-1]


def test_what_an_attack_finds_does_not_hang_on_the_others(
    undefended: TrainedNet, undefended_screen: Findings
) -> None:
    more = _measure(undefended, Evasion(attacks=("bim",))).metrics
    fewer = undefended_screen.metrics
    assert "adversarial_accuracy_bim" in more
    assert all(more[name] == fewer[name] for name in fewer if "adversarial_accuracy" in name)


def test_robust_accuracy_falls_with_the_radius_to_nothing(undefended_screen: Findings) -> None:
    found = undefended_screen.metrics
    names = ["at_radius_0_5", "at_radius_1_5", "at_radius_2", "at_radius_4", "unbounded"]
    curve = [_value(found[f"robust_accuracy_{name}"]) for name in names]
    curve.insert(1, _value(found["robust_accuracy"]))
    assert curve == sorted(curve, reverse=True)
    assert curve[0] > curve[1] > curve[2] and curve[-1] == 0.0


def test_l2_attacks_have_a_worst_case_of_their_own(undefended_screen: Findings) -> None:
    found = undefended_screen
    names = ("pgd_l2", "targeted_margin_pgd_l2", "deepfool")
    left = [_value(found.metrics[f"adversarial_accuracy_{name}"]) for name in names]
    assert 0 < _value(found.metrics["robust_accuracy_l2"]) <= min(left)
    assert set(found.notes["broken_by_l2"]) <= {"clean", "none", *names}
    deciles = list(found.notes["distance_deciles"]["deepfool"].values())
    assert len(deciles) == 11 and deciles == sorted(deciles)
    median = found.metrics["median_l2_distance_deepfool"]
    assert isinstance(median, Measured) and median.value == pytest.approx(deciles[5])
    assert _value(found.metrics["unbounded_success_rate_deepfool"]) == 1.0


def test_without_a_right_answer_there_is_no_success_rate(undefended: TrainedNet) -> None:
    class AlwaysAbstains(Predictor):
        def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
            found = super().predict(x, generator)
            return replace(found, label=torch.full_like(found.label, REFUSED))

    found = _measure(undefended, HEADLINE, AlwaysAbstains(undefended.model)).metrics
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
        """Return one surface a flag; a useless one has no gradient."""
        kinds = {True: self.scores, False: lambda x, g: self.scores(x, g) * 0 + x.sum() * 0}
        return [Surface(kinds[flag], "exact") for flag in self.useful]


@pytest.fixture(scope="module")
def one_surface(undefended: TrainedNet) -> dict[bool, Findings]:
    """Attack the net through one surface alone: the useful one, and the one without a gradient."""
    torch.set_num_threads(1)
    single = Predictor(undefended.model)
    single.max_screen_points = SLOW_POINTS  # as many as of a model with several surfaces
    blind = TwoSurfaces(undefended.model, useful=(False,))
    return {
        True: _measure(undefended, HEADLINE, single),
        False: _measure(undefended, HEADLINE, blind),
    }


@pytest.mark.parametrize("useful", [(False, True), (True, False)])
def test_of_several_surfaces_the_worst_counts_image_by_image(
    useful: tuple[bool, ...], undefended: TrainedNet, one_surface: dict[bool, Findings]
) -> None:
    plain, blind = one_surface[True].metrics, one_surface[False]
    both = _measure(undefended, HEADLINE, TwoSurfaces(undefended.model, useful=useful))
    assert _value(blind.metrics["robust_accuracy"]) > _value(plain["robust_accuracy"])
    assert _value(blind.metrics["masking_suspected"]) == 1.0 and not blind.notes["adaptive"]
    # This attack draws nothing: a random start is another one on a second surface.
    alone = plain["adversarial_accuracy_targeted_margin_pgd"]
    assert both.metrics["adversarial_accuracy_targeted_margin_pgd"] == alone
    assert _value(both.metrics["robust_accuracy"]) <= _value(alone)
    assert [surface["kind"] for surface in both.notes["surfaces"]] == ["exact", "exact"]
    assert both.notes["adaptive"]


@pytest.mark.slow
def test_an_audit_is_stronger_and_runs_on_test_points(
    hardened: TrainedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.trial.context.AUDIT_POINTS_CPU", 40)
    spec = replace(hardened.ctx.spec, effort="audit")
    found = Evasion().measure(Predictor(hardened.model), replace(hardened.ctx, spec=spec))
    assert found.notes["points"] == 40
    assert found.notes["settings"]["pgd"] == {"steps": 100}
    assert found.notes["settings"]["targeted_margin_pgd"]["targets"] == 3
    left = {
        name: _value(found.metrics[f"adversarial_accuracy_{name}"])
        for name in (*LINF, "transfer", "square", "autoattack")
    }
    assert _value(found.metrics["robust_accuracy"]) <= left["autoattack"]
    assert left["autoattack"] <= left["square"] and left["pgd"] <= left["transfer"]
    indicators = {row["name"] for row in found.notes["masking"]["indicators"]}
    assert {
        "zero_gradients", "gradients_not_finite", "fgsm_beats_pgd", "cross_entropy_hides",
        "random_noise_beats_gradients", "surface_disagrees", "square_beats_gradients",
        "transfer_beats_gradients", "transfer_undefended_beats_gradients",
        "transfer_hardened_beats_gradients", "hop_skip_jump_beats_gradients",
        "hop_skip_jump_l2_beats_gradients", "more_steps_help", "not_monotone", "unbounded_fails",
        "scale_0.1_helps", "scale_10_helps",
    } == indicators  # fmt: skip
    assert found.notes["masking"]["words"] == "" and found.notes["not_finite_gradients"] == {}


def test_unknown_attacks_are_refused() -> None:
    with pytest.raises(InputError, match="unknown attack 'nope'; known: fgsm"):
        Evasion(attacks=("fgsm", "nope"))

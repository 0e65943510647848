from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS, context_of
from trainables.datasets import stratified_subset
from trainables.defenses.certified.randomized_smoothing import (
    RandomizedSmoothing,
    SmoothedPredictor,
)
from trainables.deployed.predictor import REFUSED, Certificates, Predictor
from trainables.errors import InputError, PredictorError
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats import build_threat
from trainables.threats.certification import Certification
from trainables.threats.threat import Findings


class Fixed(Predictor):
    """Certifies in turn what it is told to."""

    def __init__(self, labels: list[int], radii: list[float], draws: list[int]) -> None:
        super().__init__(nn.Identity())
        self.told = Certificates(
            torch.tensor(labels),
            torch.tensor(radii, dtype=torch.float64),
            torch.tensor(draws),
            0.01,
        )
        self.sizes: list[int] = []

    def certificates(self, x: Tensor, generator: torch.Generator) -> Certificates:
        """Return the next certificates."""
        start = sum(self.sizes)
        self.sizes.append(len(x))
        rows = slice(start, start + len(x))
        told = self.told
        return replace(
            told, label=told.label[rows], radius=told.radius[rows], draws=told.draws[rows]
        )


def _measure(predictor: Predictor, net: TrainedNet, **raw: object) -> Findings:
    return build_threat("certification", raw, radius=EPS).measure(predictor, net.ctx)


def _value(found: MetricValue) -> float:
    assert isinstance(found, Measured)
    return found.value


def _labels(net: TrainedNet, count: int) -> list[int]:
    points = net.ctx.points()
    labels: list[int] = points.labels[stratified_subset(points.labels, count, seed=0)].tolist()
    return labels


def test_every_metric_is_the_one_computed_by_hand(undefended: TrainedNet) -> None:
    y = _labels(undefended, 5)
    wrong = (y[3] + 1) % 10
    # Right at .6 and .3, exactly at .5, wrong at .7, abstained.
    told = Fixed([y[0], y[1], y[2], wrong, REFUSED], [0.6, 0.3, 0.5, 0.7, 0.0],
                 [100, 100, 100, 100, 20])  # fmt: skip
    found = _measure(told, undefended, points=5, thresholds=[0.1, 0.5, 1])
    values = {name: _value(metric) for name, metric in found.metrics.items()
              if isinstance(metric, Measured)}  # fmt: skip
    assert values == {
        "certified_accuracy": 3 / 5,
        "certified_precision": 3 / 4,
        "certified_accuracy_at_0.1": 3 / 5,
        "certified_precision_at_0.1": 3 / 4,
        "certified_accuracy_at_0.5": 2 / 5,
        "certified_precision_at_0.5": 2 / 3,
        "certified_accuracy_at_1": 0,
        "average_certified_radius": pytest.approx((0.6 + 0.3 + 0.5) / 5),
        "abstention_rate": 1 / 5,
        "certification_draws": 84,
        "draws_per_certified_image": 420 / 4,
    }
    assert found.metrics["certified_precision_at_1"] == Missing(
        "no point is certified at the threshold 1"
    )
    assert found.notes == {
        "norm": "l2",
        "points": 5,
        "certifies": True,
        "failure_probability": 0.01,
        "radii": [0.6, 0.3, 0.5, 0.7, 0.0],
        "right": [True, True, True, False, False],
    }


def test_a_model_without_certificates_has_the_worst_values(undefended: TrainedNet) -> None:
    found = _measure(Predictor(undefended.model), undefended)
    for name, value in found.metrics.items():
        if name.startswith("certified_accuracy") or name == "average_certified_radius":
            assert isinstance(value, Measured) and value.value == 0 and value.n == 64
            assert value.high > 0 or name == "average_certified_radius"
        elif name == "abstention_rate":
            assert _value(value) == 1
        else:
            assert isinstance(value, Missing) and value.reason
    assert found.notes["radii"] == [0.0] * 64 and found.notes["right"] == [False] * 64
    assert found.notes["certifies"] is False and found.notes["failure_probability"] is None


def test_where_nothing_comes_out_certified_the_draws_still_count(undefended: TrainedNet) -> None:
    found = _measure(Fixed([REFUSED] * 4, [0.0] * 4, [30] * 4), undefended, points=4)
    assert _value(found.metrics["certification_draws"]) == 30
    assert found.metrics["draws_per_certified_image"] == Missing("no point is certified")
    assert found.metrics["certified_precision"] == Missing("no point is certified")
    assert _value(found.metrics["abstention_rate"]) == 1


def test_one_certified_point_has_a_finite_cost(undefended: TrainedNet) -> None:
    y = _labels(undefended, 6)
    told = Fixed([y[0]] + [REFUSED] * 5, [1.0] + [0.0] * 5, [10] * 6)
    cost = _measure(told, undefended, points=6).metrics["draws_per_certified_image"]
    assert isinstance(cost, Measured) and cost.value == 60 and cost.high == 60


def test_the_points_are_fixed_stratified_and_as_many_as_asked(
    undefended: TrainedNet, artefact_folder: Path
) -> None:
    threat, ctx = Certification(), undefended.ctx
    points = threat._points(ctx)
    counts = torch.bincount(points.labels, minlength=10)
    assert len(points) == 64 and int(counts.max() - counts.min()) <= 2
    assert torch.equal(points.pixels, threat._points(ctx).pixels)
    audit = context_of(replace(ctx.spec, effort="audit"), artefact_folder)
    assert len(threat._points(audit)) == min(500, len(audit.points()))
    assert len(Certification(points=7)._points(audit)) == 7
    assert len(Certification(points=10**6)._points(ctx)) == len(ctx.held_out)


def test_more_points_than_attacks_run_on_come_from_the_whole_pool(
    undefended: TrainedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.trial.context.SCREEN_POINTS", 40)
    ctx = undefended.ctx
    assert len(ctx.points()) == 40
    assert len(Certification()._points(ctx)) == 40
    assert len(Certification(points=90)._points(ctx)) == 90


def test_images_are_certified_a_batch_at_a_time(undefended: TrainedNet) -> None:
    told = Fixed([REFUSED] * 100, [0.0] * 100, [1] * 100)
    _measure(told, undefended, points=100)
    assert told.sizes == [32, 32, 32, 4]


@pytest.mark.parametrize(
    ("labels", "radii", "reason"),
    [
        ([0], [float("inf")], "is not a finite number"),
        ([0], [float("nan")], "is not a finite number"),
        ([0], [-0.1], "is not a finite number"),
        ([REFUSED], [0.5], "where it abstains"),
        ([0, 1], [0.1], r"label of shape \(2,\), but it must be \(1,\)"),
        ([0], [0.1, 0.2], r"radius of shape \(2,\), but it must be \(1,\)"),
    ],
)
def test_what_is_no_certificate_is_refused(
    labels: list[int], radii: list[float], reason: str, undefended: TrainedNet
) -> None:
    class Broken(Predictor):
        def certificates(self, x: Tensor, generator: torch.Generator) -> Certificates:
            radius = torch.tensor(radii, dtype=torch.float64)
            return Certificates(torch.tensor(labels), radius, torch.tensor([1]), 0.1)

    with pytest.raises(PredictorError, match=f"Broken certifies .*{reason}"):
        _measure(Broken(undefended.model), undefended, points=1)


def test_thresholds_name_the_metrics_and_are_told_apart() -> None:
    one = build_threat("certification", {"thresholds": 0.5}, radius=EPS)
    assert "certified_accuracy_at_0.5" in one.metric_names()
    assert "certified_precision_at_0.5" in one.metric_names()
    with pytest.raises(InputError, match="two of thresholds are the same"):
        build_threat("certification", {"thresholds": [0.5, "1/2"]}, radius=EPS)
    with pytest.raises(InputError, match="certification: thresholds must be within"):
        build_threat("certification", {"thresholds": 0}, radius=EPS)
    with pytest.raises(InputError, match="is not a size in pixels"):
        build_threat("certification", {"thresholds": "1 radius"}, radius=EPS)


def test_a_smoothed_network_is_measured_and_repeats(undefended: TrainedNet) -> None:
    settings = RandomizedSmoothing(n=300, n0=30)
    predictor = SmoothedPredictor(Predictor(undefended.model), settings)
    found = _measure(predictor, undefended, points=20)
    assert found == _measure(predictor, undefended, points=20)
    accuracies = [
        _value(found.metrics[f"certified_accuracy{end}"])
        for end in ("", "_at_0.1", "_at_0.25", "_at_0.5", "_at_1")
    ]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > 0.5 and accuracies[-1] == 0, "0.25 * 2 is the most that 300 draws prove"
    right = [r for r, ok in zip(found.notes["radii"], found.notes["right"], strict=True) if ok]
    assert accuracies[2] == sum(r >= 0.25 for r in right) / 20
    radius = _value(found.metrics["average_certified_radius"])
    assert radius == pytest.approx(sum(right) / 20)
    assert found.notes["failure_probability"] == 0.001

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import TrainedNet
from tests.making import FixedPredictor, LinearSoftmax
from trainables.datasets import LabelledImages
from trainables.deployed.predictor import Predictor, Surface
from trainables.metrics import intervals
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats.clean import METRIC_NAMES, balanced_accuracy, measure_clean


def _value(found: MetricValue) -> float:
    assert isinstance(found, Measured)
    return found.value


def _measure(
    net: TrainedNet, predictor: Predictor, held_out: LabelledImages
) -> dict[str, MetricValue]:
    scores = getattr(predictor, "answers", None)
    classes = net.ctx.dataset.num_classes if scores is None else scores.shape[1]
    dataset = replace(net.ctx.dataset, classes=tuple(map(str, range(classes))))
    ctx = replace(net.ctx, dataset=dataset, pools=replace(net.ctx.pools, validation=held_out))
    return measure_clean(predictor, held_out, ctx, curves={}).metrics


def _pool(labels: list[int]) -> LabelledImages:
    return LabelledImages(
        pixels=torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8),
        labels=torch.tensor(labels),
        scale=16,
    )


class Answers(FixedPredictor):
    """Fixed answers that have a gradient, of zero, with respect to the images."""

    def surfaces(self) -> list[Surface]:
        """Return the answers, plus nothing times the images."""
        return [Surface(lambda x, g: self.scores(x, g) + 0 * x.sum(), "exact")]


def test_every_number_of_a_small_pool_is_as_by_hand(undefended: TrainedNet) -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    found = _measure(undefended, Answers(p.log()), _pool([0, 1, 1, 2]))
    assert _value(found["clean_accuracy"]) == 0.75
    assert found["worst_class_accuracy"] == intervals.lowest([(1, 1), (1, 2), (1, 1)])
    assert _value(found["balanced_accuracy"]) == pytest.approx((1 + 0.5 + 1) / 3)
    expected = -np.log([0.7, 0.3, 0.8, 0.6]).mean()
    assert _value(found["nll"]) == pytest.approx(expected, rel=1e-6)
    assert _value(found["mean_confidence"]) == pytest.approx((0.7 + 0.6 + 0.8 + 0.6) / 4)
    # Of 15 bins the two confidences of .6 share one, half of them right.
    assert _value(found["ece"]) == pytest.approx((0.3 + abs(1 - 1.2) + 0.2) / 4, abs=1e-6)
    assert _value(found["generalization_gap"]) == 0.0
    assert _value(found["input_gradient_norm"]) == 0.0


def test_a_constant_answer_to_unbalanced_classes_is_by_chance_whenbalanced_accuracy(
    undefended: TrainedNet,
) -> None:
    sizes = (100, 9, 3)
    scores = torch.tensor([[4.0, 0.0, 0.0]]).expand(sum(sizes), 3)
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    found = _measure(undefended, Answers(scores), _pool(labels))
    clean, balanced = found["clean_accuracy"], found["balanced_accuracy"]
    assert isinstance(clean, Measured) and isinstance(balanced, Measured)
    assert clean.value == pytest.approx(100 / 112) and clean.low > 1 / 3
    assert balanced.value == pytest.approx(1 / 3)
    assert balanced.low < 1 / 3 < balanced.high and balanced.n == 112


@pytest.mark.parametrize(
    ("sizes", "rates"),
    [((40, 12, 8), (0.95, 0.6, 0.3)), ((26,) * 10, (0.99,) * 10), ((6, 6, 6), (0.9, 0.9, 0.9))],
)
def test_the_interval_of_the_balanced_accuracy_covers_it(
    sizes: tuple[int, ...], rates: tuple[float, ...]
) -> None:
    generator = np.random.default_rng(0)
    labels = torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])
    covered, draws = 0, 500
    for _ in range(draws):
        right = torch.from_numpy(generator.random(len(labels)) < np.array(rates)[labels.numpy()])
        found = balanced_accuracy(right, labels)
        assert 0 <= found.low <= found.value <= found.high <= 1
        covered += found.low <= float(np.mean(rates)) <= found.high
    # Of 500 draws a share of 0.95 strays by 0.01; coverage is 0.944, 0.981 and 0.956.
    assert covered / draws > 0.91


@pytest.mark.parametrize(("num_classes", "size"), [(2, 1), (2, 300), (10, 4), (100, 10)])
def test_a_constant_answer_is_never_above_chance(num_classes: int, size: int) -> None:
    labels = torch.arange(num_classes).repeat_interleave(size)
    labels = torch.cat([torch.zeros(500, dtype=torch.int64), labels])
    found = balanced_accuracy(labels == 0, labels)
    assert found.value == pytest.approx(1 / num_classes)
    assert found.low < 1 / num_classes < found.high


def test_one_infinite_mistake_does_not_make_the_mean_infinite(undefended: TrainedNet) -> None:
    scores = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]])
    found = _measure(undefended, Answers(scores), _pool([0, 1]))
    assert _value(found["nll"]) == 50.0


def test_the_gradient_norm_is_the_closed_form_of_a_linear_model(undefended: TrainedNet) -> None:
    model = LinearSoftmax(64, 10)
    pool = undefended.ctx.pools.validation
    assert pool is not None
    x, y = pool.images(), pool.labels
    wrong = model(x).softmax(1) - torch.nn.functional.one_hot(y, 10)
    expected = (wrong @ model.weight).norm(dim=1).mean()
    found = _measure(undefended, Predictor(model), pool)
    assert _value(found["input_gradient_norm"]) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_without_a_gradient_its_norm_is_missing(undefended: TrainedNet) -> None:
    class Stepped(Predictor):
        def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
            return super().scores((x > 0.5).float(), generator)

    pool = undefended.ctx.held_out
    found = _measure(undefended, Stepped(undefended.model), pool)["input_gradient_norm"]
    assert found == Missing("the deployed model gives no gradient")


def test_the_gap_is_between_the_members_and_the_held_out_rows(undefended: TrainedNet) -> None:
    ctx, members = undefended.ctx, undefended.ctx.pools.train
    found = measure_clean(Predictor(undefended.model), members, ctx, curves={}).metrics

    def share(images: LabelledImages) -> Measured:
        right = undefended.model(images.images()).argmax(1) == images.labels
        return intervals.proportion(int(right.sum()), len(images))

    assert found["clean_accuracy"] == share(ctx.held_out)
    assert found["generalization_gap"] == intervals.difference(share(members), share(ctx.held_out))
    assert set(found) == set(METRIC_NAMES)

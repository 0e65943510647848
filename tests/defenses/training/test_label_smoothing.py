from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.making import all_finite, context_of, spec_of, train_in
from trainables.defenses import View
from trainables.defenses.training.dp_sgd import DPSGD
from trainables.defenses.training.label_smoothing import MOST_GRADIENT, LabelSmoothing
from trainables.storage.identity import identity_hash
from trainables.trial.settings import TrainingSpec


@pytest.mark.parametrize("alpha", [-0.5, -0.05, 0.0, 0.1, 0.99])
def test_the_loss_is_that_of_smoothed_labels(alpha: float) -> None:
    y = torch.arange(20) % 7
    scores = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    clean = View(torch.rand(20, 1, 2, 2), F.one_hot(y, 7).float(), 1.0)
    (view,) = LabelSmoothing(alpha=alpha).views(nn.Identity(), [clean], torch.Generator())
    log_p = scores.log_softmax(1)
    expected = -((1 - alpha) * log_p[torch.arange(20), y] + alpha * log_p.mean(1)).mean()
    torch.testing.assert_close(F.cross_entropy(scores, view.target), expected)
    if alpha >= 0:  # torch takes a negative one and ignores it
        theirs = F.cross_entropy(scores, y, label_smoothing=alpha)
        torch.testing.assert_close(F.cross_entropy(scores, view.target), theirs)
    torch.testing.assert_close(view.target.sum(1), torch.ones(20))


def test_all_views_are_smoothed_and_nothing_else_of_them_changes() -> None:
    target = F.one_hot(torch.tensor([0, 1]), 4).float()
    views = [View(torch.rand(2, 1, 2, 2), target, weight) for weight in (0.25, 0.75)]
    smoothed = LabelSmoothing(alpha=0.4).views(nn.Identity(), views, torch.Generator())
    for before, after in zip(views, smoothed, strict=True):
        assert after.x is before.x and after.weight == before.weight
        torch.testing.assert_close(after.target[0], torch.tensor([0.7, 0.1, 0.1, 0.1]))
    assert torch.equal(target, F.one_hot(torch.tensor([0, 1]), 4).float())


def test_a_negative_alpha_begins_with_hard_labels_and_falls_to_its_value() -> None:
    def alphas(defense: LabelSmoothing, epochs: int) -> list[float]:
        return [defense.in_epoch(epoch, epochs).alpha for epoch in range(epochs)]

    assert alphas(LabelSmoothing(alpha=-0.2), 20) == pytest.approx([0] * 18 + [-0.1, -0.2])
    assert alphas(LabelSmoothing(alpha=-0.2, hard_share=0.5), 4) == pytest.approx(
        [0, 0, -0.1, -0.2]
    )
    assert alphas(LabelSmoothing(alpha=-0.2, hard_share=0), 2) == pytest.approx([-0.1, -0.2])
    for share in (0.0, 0.9, 0.99):  # one epoch has nothing but the end of the schedule
        assert alphas(LabelSmoothing(alpha=-0.2, hard_share=share), 1) == pytest.approx([-0.2])
    assert alphas(LabelSmoothing(alpha=0.2), 4) == [0.2] * 4


def test_a_positive_alpha_has_no_schedule_no_cut_and_the_identity_of_before() -> None:
    positive = LabelSmoothing(alpha=0.1, hard_share=0.2)
    assert positive.in_epoch(0, 10) is positive and positive.step_policy() is None
    assert positive.canonical() == {"name": "label_smoothing", "alpha": 0.1}
    negative = [LabelSmoothing(alpha=-0.1, hard_share=share).canonical() for share in (0.2, 0.5)]
    assert identity_hash(negative[0]) != identity_hash(negative[1])


@dataclass(frozen=True, kw_only=True)
class Recorded(LabelSmoothing):
    """Writes down the alpha of each step."""

    name = "tests.defenses.training.test_label_smoothing:Recorded"

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        RECORDED.append(self.alpha)
        return super().views(model, views, generator)


RECORDED: list[float] = []


def test_a_training_asks_for_the_alpha_of_each_epoch(tmp_path: Path) -> None:
    RECORDED.clear()
    train_in(context_of(spec_of(Recorded(alpha=-0.2, hard_share=0.5), epochs=4), tmp_path))
    assert list(RECORDED) == pytest.approx([0] * 8 + [-0.1] * 4 + [-0.2] * 4)


def test_hard_labels_and_a_cut_alone_are_what_the_first_epochs_have() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    policy = LabelSmoothing(alpha=-0.1).step_policy()
    assert policy is not None and policy.wrap_optimizer is not None
    wrapped = policy.wrap_optimizer(optimizer)
    for gradient, moved in (((3.0, 0.0, 4.0), (0.6, 0.0, 0.8)), ((0.0, 0.1, 0.0), (0, 1 / 3, 0))):
        weight.data.zero_()
        weight.grad = torch.tensor(gradient)
        wrapped.step()
        torch.testing.assert_close(-weight.data, MOST_GRADIENT * torch.tensor(moved))


def test_private_steps_are_taken_and_counted_under_a_negative_alpha(tmp_path: Path) -> None:
    stack = [DPSGD(noise_multiplier=1.0, max_grad_norm=1.0), LabelSmoothing(alpha=-0.05)]
    ctx = context_of(spec_of(*stack, training=TrainingSpec(epochs=2)), tmp_path)
    trained = ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed)
    assert all_finite(trained.curves["dp_epsilon"]) and len(trained.curves["dp_epsilon"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [-0.05, -0.3])
def test_negative_values_train_at_the_default_settings(alpha: float, tmp_path: Path) -> None:
    spec = spec_of(LabelSmoothing(alpha=alpha), epochs=30, train_images=None, measured_images=None)
    ctx = context_of(spec, tmp_path)
    trained = ctx.train(spec.stack, ctx.pools.train, spec.seed)
    assert trained.curves["validation_accuracy"][-1] >= 0.95

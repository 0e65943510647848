import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.making import LinearSoftmax
from trainables.defenses import View
from trainables.defenses.training.gradient_regularization import GradientRegularization


def _view(rows: slice = slice(None), soft: bool = False) -> View:
    x = torch.rand(24, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    target = F.one_hot(torch.arange(24) % 4, 4).float()
    target = 0.8 * target + 0.05 if soft else target
    return View(x[rows], target[rows], 1.0)


def _penalty(model: LinearSoftmax, view: View, lam: float = 3.0) -> Tensor:
    found = GradientRegularization(lam=lam).penalty(model, [view])
    assert found is not None
    return found


def _closed_form(model: LinearSoftmax, view: View) -> Tensor:
    # Of one image grad_x CE = W^T (p - y), by the softmax's derivative; y sums to one.
    wrong = model(view.x).softmax(1) - view.target
    penalty: Tensor = (wrong @ model.weight).square().sum(1).mean()
    return penalty


@pytest.mark.parametrize("soft", [False, True])
def test_the_penalty_is_the_closed_form_of_a_linear_model(soft: bool) -> None:
    model, view = LinearSoftmax(9, 4), _view(soft=soft)
    torch.testing.assert_close(_penalty(model, view), 3 * _closed_form(model, view))


def test_the_penalty_does_not_depend_on_the_batch() -> None:
    model = LinearSoftmax(9, 4)
    parts = [_penalty(model, _view(slice(start, start + 6))) for start in range(0, 24, 6)]
    torch.testing.assert_close(torch.stack(parts).mean(), _penalty(model, _view()))
    alone = [_penalty(model, _view(slice(row, row + 1))) for row in range(24)]
    torch.testing.assert_close(torch.stack(alone).mean(), _penalty(model, _view()))


def test_the_penalty_is_differentiated_with_respect_to_the_weights() -> None:
    model, view = LinearSoftmax(9, 4), _view()
    (found,) = torch.autograd.grad(_penalty(model, view), model.weight)
    (expected,) = torch.autograd.grad(3 * _closed_form(model, view), model.weight)
    torch.testing.assert_close(found, expected)
    assert not view.x.requires_grad


def test_only_the_first_view_is_penalised_and_nothing_without_a_weight() -> None:
    model, first = LinearSoftmax(9, 4), _view()
    other = View(first.x.flip(0), first.target, 1.0)
    both = GradientRegularization(lam=3.0).penalty(model, [first, other])
    assert both is not None and torch.equal(both, _penalty(model, first))
    assert GradientRegularization(lam=0.0).penalty(model, [first]) is None

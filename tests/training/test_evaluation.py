import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.making import LinearSoftmax, random_images
from trainables.training import evaluation
from trainables.training.evaluation import in_batches, loss_and_accuracy
from trainables.training.modes import frozen_for_attack, seeded


@pytest.mark.parametrize("batch", [1, 7, 20, 512])
def test_a_pool_is_answered_whole_and_in_order(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH", batch)
    images, sizes = random_images(20), []

    def answer(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x.mean((1, 2, 3))

    assert torch.equal(in_batches(answer, images), images.images().mean((1, 2, 3)))
    assert max(sizes) <= batch and sum(sizes) == 20


def test_loss_and_accuracy_are_those_of_all_rows_at_once() -> None:
    model, images = LinearSoftmax(64, 10), random_images(600)
    found, scores = loss_and_accuracy(model, images), model(images.images())
    assert found.loss == pytest.approx(float(F.cross_entropy(scores, images.labels).detach()))
    assert found.accuracy == float((scores.argmax(1) == images.labels).double().mean())


def test_evaluating_uses_eval_mode_and_restores_every_module() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.9), nn.Linear(64, 10))
    model.train()
    model[1].eval()  # a part that its owner keeps frozen
    before = model[1].running_mean.clone()  # type: ignore[operator]
    images = random_images(30)
    assert loss_and_accuracy(model, images) == loss_and_accuracy(model, images)
    assert [module.training for module in model] == [True, False, True, True]
    assert torch.equal(model[1].running_mean, before)  # type: ignore[arg-type]


def test_a_frozen_model_gets_its_gradients_back_even_after_a_failure() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    with pytest.raises(RuntimeError), frozen_for_attack(model):
        assert not model.training and not model.weight.requires_grad
        raise RuntimeError
    assert model.training and model.weight.requires_grad and not model.bias.requires_grad


def test_seeding_for_a_while_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1, torch.device("cpu")) as generator:
        first = torch.rand(2), torch.rand(2, generator=generator)
    with seeded(1, torch.device("cpu")) as generator:
        second = torch.rand(2), torch.rand(2, generator=generator)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.equal(torch.rand(3), expected)

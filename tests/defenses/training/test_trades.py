from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.defenses.robustness import (
    clean_view,
    is_untouched,
    norm_net,
    robust_accuracy,
    state_of,
    trained_with,
)
from tests.making import EPS, accuracy, random_images
from trainables.defenses import Defense, View
from trainables.defenses.training.label_smoothing import LabelSmoothing
from trainables.defenses.training.trades import Trades
from trainables.training.loop import TrainingPlan, train
from trainables.trial.settings import TrainingSpec


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _log_softmax(scores: Tensor) -> Tensor:
    return scores - scores.exp().sum(1, keepdim=True).log()


def _kl(expected: Tensor, found: Tensor) -> Tensor:
    """The sum over classes of p log(p / q), a row each: from the definition."""
    log_p, log_q = _log_softmax(expected), _log_softmax(found)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _maximiser(model: nn.Module, x: Tensor, eps: float, steps: int, noise: Tensor) -> Tensor:
    """Algorithm 1 of the paper, lines 5 to 8, as the authors' code has it."""
    with torch.no_grad():
        clean = model(x)
    moved = x + 0.001 * noise
    for _ in range(steps):
        moved.requires_grad_(True)
        (gradient,) = torch.autograd.grad(_kl(clean, model(moved)).sum(), moved)
        moved = moved.detach() + eps / 4 * gradient.sign()
        moved = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(0, 1)
    return moved


def _small_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


def _first_step(defenses: tuple[Defense, ...], model: nn.Module) -> tuple[float, Tensor]:
    """Take one plain step of one batch; give the loss before it and the move of each weight."""
    images = random_images(32)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    settings = TrainingSpec(epochs=1, batch_size=32, learning_rate=1.0, momentum=0.0,
                            weight_decay=0.0, schedule="constant")  # fmt: skip
    plan = TrainingPlan(data=images, held_out=images, calibration=None, num_classes=10,
                        augmentation="none", settings=settings, stack=defenses)  # fmt: skip
    loss = train(model, plan, _generator(3)).curves["train_loss"][0]
    return loss, before - nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("alpha", [0.0, 0.2])
@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_loss_and_gradient_are_the_papers(beta: float, alpha: float) -> None:
    model, oracle, eps = _small_net(), _small_net(), 0.1
    stack = (Trades(eps=(eps,), beta=beta, steps=3), LabelSmoothing(alpha=alpha))
    loss, gradient = _first_step(stack, model)

    generator, images = _generator(3), random_images(32)
    order = torch.randperm(32, generator=generator)
    torch.randint(1, (32,), generator=generator)  # the draw of the radii
    x, y = images.images(order), images.labels[order]
    moved = _maximiser(oracle, x, eps, 3, torch.randn(x.shape, generator=generator))
    target = (1 - alpha) * torch.eye(10)[y] + alpha / 10
    clean_scores, moved_scores = oracle(x), oracle(moved)
    clean_loss = -(target * _log_softmax(clean_scores)).sum(1).sum() / 32
    expected = clean_loss + beta * _kl(clean_scores, moved_scores).sum() / 32
    expected.backward()  # type: ignore[no-untyped-call]
    wanted = torch.cat([w.grad.flatten() for w in oracle.parameters() if w.grad is not None])
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-4)
    # Cut off from either side, the divergence would give another gradient.
    for cut in ((clean_scores.detach(), moved_scores), (clean_scores, moved_scores.detach())):
        oracle.zero_grad()
        one_sided = -(target * _log_softmax(oracle(x))).sum(1).sum() / 32
        scores = (cut[0] if not cut[0].requires_grad else oracle(x),
                  cut[1] if not cut[1].requires_grad else oracle(moved))  # fmt: skip
        total = one_sided + beta * _kl(*scores).sum() / 32
        total.backward()  # type: ignore[no-untyped-call]
        partial = torch.cat([w.grad.flatten() for w in oracle.parameters() if w.grad is not None])
        assert torch.allclose(partial, gradient, atol=1e-5) == (beta == 0)


def test_a_smooth_label_changes_the_first_term_alone(undefended: TrainedNet) -> None:
    view = clean_view(undefended.x[:32], undefended.y[:32])
    defense = Trades(eps=(EPS,))

    def penalty(views: list[View]) -> Tensor:
        found = defense.penalty(
            undefended.model, [replace(v, scores=undefended.model(v.x)) for v in views]
        )
        assert found is not None
        return found

    views = list(defense.views(undefended.model, [view], _generator()))
    smooth = list(LabelSmoothing(alpha=0.3).views(undefended.model, views, _generator()))
    assert torch.equal(penalty(views), penalty(smooth)) and float(penalty(views)) > 0


def test_the_maximiser_stays_in_its_ball_and_moves_the_prediction_most(
    undefended: TrainedNet,
) -> None:
    model, x, y = undefended.model, undefended.x, undefended.y
    views = Trades(eps=(0.05, EPS)).views(model, [clean_view(x, y)], _generator())
    assert [view.weight for view in views] == [1.0, 0.0]
    assert torch.equal(views[0].x, x)
    far = (views[1].x - x).flatten(1).abs().amax(1)
    assert 0.3 < float((far <= 0.05 + 1e-6).double().mean()) < 0.7
    assert float(far.max()) == pytest.approx(EPS, abs=1e-6)
    assert float(views[1].x.min()) >= 0 and float(views[1].x.max()) <= 1
    noise = 2 * torch.rand(x.shape, generator=_generator()) - 1
    random = (x + far.view(-1, 1, 1, 1) * noise.sign()).clamp(0, 1)
    with torch.no_grad():
        found, drawn = (_kl(model(x), model(moved)) for moved in (views[1].x, random))
    assert float((found > drawn).double().mean()) > 0.8
    assert float(found.mean()) > 5 * float(drawn.mean())


def test_crafting_leaves_the_net_as_it_was_and_statistics_move_once_a_step() -> None:
    model = norm_net()
    before, x = state_of(model), torch.rand(8, 1, 4, 4, generator=_generator())
    Trades(eps=(0.1,)).views(model, [clean_view(x, torch.arange(8))], _generator())
    assert is_untouched(model, before)
    images = random_images(32, side=4)
    plan = TrainingPlan(data=images, held_out=images, calibration=None, num_classes=10,
                        augmentation="none", settings=TrainingSpec(epochs=3, batch_size=16),
                        stack=(Trades(eps=(0.1,)),))  # fmt: skip
    train(model, plan, _generator())
    norm = model[2]
    assert isinstance(norm, nn.BatchNorm1d) and norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 3 * 2


def test_without_beta_it_is_the_plain_training() -> None:
    plain, defended = _small_net(), _small_net()
    _first_step((), plain)
    loss, _ = _first_step((Trades(eps=(0.1,), beta=0.0),), defended)
    assert loss > 0
    for one, two in zip(plain.parameters(), defended.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)


def test_it_makes_a_net_more_robust(undefended: TrainedNet, artefact_folder: Path) -> None:
    net = trained_with(Trades(eps=(EPS,)), folder=artefact_folder, epochs=10)
    assert accuracy(net.model, net.x, net.y) > 0.9
    assert robust_accuracy(net) > robust_accuracy(undefended) + 0.3

"""What the tests of training-time defenses share: nets trained on the digits, and two attacks."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conftest import TrainedNet
from tests.making import EPS, accuracy, context_of, spec_of
from trainables.attacks.pgd import pgd
from trainables.attacks.targeted_margin_pgd import targeted_margin_pgd
from trainables.defenses import Defense, View
from trainables.trial.settings import TrainingSpec


def trained_with(
    *stack: Defense,
    folder: Path,
    epochs: int = 15,
    training: TrainingSpec | None = None,
    seed: int = 0,
) -> TrainedNet:
    """Train a small_cnn on the digits under a stack, or take it from the folder."""
    spec = spec_of(
        *stack,
        epochs=epochs,
        training=training,
        train_images=None,
        measured_images=None,
        seed=seed,
    )
    ctx = context_of(spec, folder)
    model = ctx.train(spec.stack, ctx.pools.train, spec.seed).model
    points = ctx.points()
    return TrainedNet(ctx, model.requires_grad_(False), points.images(), points.labels)


def robust_accuracy(net: TrainedNet, eps: float = EPS) -> float:
    """Return the share of held-out images that withstand pgd, then the margins' pgd."""
    return white_box_accuracy(net.model, net.x, net.y, eps)


def white_box_accuracy(model: nn.Module, x: Tensor, y: Tensor, eps: float = EPS) -> float:
    """Return the share of images x (B, C, H, W) of classes y (B,) that withstand both attacks."""
    generator = torch.Generator().manual_seed(0)
    attacked = pgd(model, x, y, eps=eps, steps=20, generator=generator)
    resist = model(attacked).argmax(1) == y
    if not resist.any():
        return 0.0
    again = targeted_margin_pgd(model, x[resist], y[resist], eps=eps, generator=generator)
    return accuracy(model, again, y[resist]) * float(resist.double().mean())


def clean_view(x: Tensor, y: Tensor) -> View:
    """Return the view that a training starts a batch from."""
    return View(x, F.one_hot(y, 10).to(x.dtype), 1.0)


def norm_net() -> nn.Sequential:
    """Return a small net with batch norm in train mode, for images (B, 1, 4, 4) of 10 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10)
        )


def state_of(model: nn.Module) -> list[Tensor]:
    """Return copies of all weights and buffers."""
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def is_untouched(model: nn.Module, before: list[Tensor]) -> bool:
    """Return whether a net in training has its weights, buffers, modes and gradients of before."""
    same = all(torch.equal(*pair) for pair in zip(before, model.state_dict().values(), strict=True))
    return (
        same
        and all(module.training for module in model.modules())
        and all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    )

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.making import (
    LinearSoftmax,
    all_finite,
    context_of,
    random_images,
    same_weights,
    spec_of,
    train_in,
)
from trainables.defenses import Stack, build_defense
from trainables.defenses.training.early_stopping import EarlyStopping
from trainables.errors import TrainingDivergedError
from trainables.storage.artefacts import ArtefactStore
from trainables.training.evaluation import loss_and_accuracy
from trainables.training.loop import TrainingPlan, train
from trainables.training.trained import Trained
from trainables.trial.settings import ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import run_trial

CURVES = {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy"}


def _trained(spec: TrialSpec, folder: Path) -> Trained:
    ctx = context_of(spec, folder)
    return ctx.train(spec.stack, ctx.pools.train, spec.seed)


def test_a_seed_gives_the_same_weights_and_curves_and_another_seed_others(tmp_path: Path) -> None:
    first, second = (_trained(spec_of(epochs=2), tmp_path / name) for name in ("a", "b"))
    assert same_weights(first.model, second.model)
    assert first.curves == second.curves
    other = _trained(spec_of(epochs=2, seed=1), tmp_path / "a")
    assert not same_weights(first.model, other.model)
    assert first.curves != other.curves and first.key != other.key


def test_the_global_generator_neither_steers_a_training_nor_is_moved(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = _trained(spec_of(), tmp_path / "a")
    after = torch.rand(3)
    torch.manual_seed(2)
    assert same_weights(first.model, _trained(spec_of(), tmp_path / "b").model)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)


def test_a_training_is_the_plain_loop_of_torch() -> None:
    images, settings = random_images(50), TrainingSpec(epochs=3, batch_size=16)
    ours, theirs = LinearSoftmax(64, 10), LinearSoftmax(64, 10)
    plan = TrainingPlan(
        data=images,
        held_out=images,
        calibration=None,
        num_classes=10,
        augmentation="none",
        settings=settings,
        stack=(),
    )
    progress = train(ours, plan, torch.Generator().manual_seed(5))

    generator = torch.Generator().manual_seed(5)
    optimizer = torch.optim.SGD(
        theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.05, total_steps=12, cycle_momentum=False
    )
    losses = []
    for _ in range(3):
        total = 0.0
        for rows in torch.split(torch.randperm(50, generator=generator), 16):
            optimizer.zero_grad()
            loss = F.cross_entropy(theirs(images.images(rows)), images.labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / 50)
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert progress.curves["train_loss"] == pytest.approx(losses, rel=1e-5)
    assert progress.curves["validation_loss"][-1] == loss_and_accuracy(ours, images).loss


def test_curves_have_a_value_an_epoch_and_end_at_the_model_that_is_given(tmp_path: Path) -> None:
    ctx = context_of(spec_of(epochs=3), tmp_path)
    trained = ctx.train(Stack(), ctx.pools.train, 0)
    assert set(trained.curves) == CURVES
    assert {len(curve) for curve in trained.curves.values()} == {3} == {len(trained.seconds)}
    assert all(seconds > 0 for seconds in trained.seconds)
    end = loss_and_accuracy(trained.model, ctx.curve_pool)
    assert trained.curves["validation_loss"][-1] == pytest.approx(end.loss, rel=1e-6)
    assert trained.curves["validation_accuracy"][-1] == end.accuracy


# One step, two steps, a last batch of one image, and every image in a batch of its size.
SIZES = [(1, 1000, 65), (2, 1000, 65), (2, 64, 65), (1, 8, 64)]


@pytest.mark.parametrize(("epochs", "batch_size", "train_images"), SIZES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_every_schedule_and_optimizer_trains_any_number_of_steps(
    schedule: str,
    optimizer: str,
    epochs: int,
    batch_size: int,
    train_images: int,
    tmp_path: Path,
) -> None:
    training = TrainingSpec(
        epochs=epochs, batch_size=batch_size, optimizer=optimizer, schedule=schedule
    )
    spec = spec_of(training=training, model=ModelSpec(norm="batch"), train_images=train_images)
    trained = _trained(spec, tmp_path)
    assert {len(curve) for curve in trained.curves.values()} == {epochs}
    assert all(all_finite(curve) for curve in trained.curves.values())
    assert all(bool(tensor.isfinite().all()) for tensor in trained.model.state_dict().values())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_every_schedule_and_optimizer_learns(schedule: str, optimizer: str, tmp_path: Path) -> None:
    rate = 0.003 if optimizer == "adam" else 0.05
    training = TrainingSpec(
        epochs=8, batch_size=32, optimizer=optimizer, schedule=schedule, learning_rate=rate
    )
    curves = _trained(spec_of(training=training, train_images=300), tmp_path).curves
    assert curves["validation_accuracy"][-1] > 0.8


def test_sgd_without_momentum_runs(tmp_path: Path) -> None:
    assert _trained(spec_of(training=TrainingSpec(epochs=1, momentum=0.0)), tmp_path).seconds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        # One step an epoch: the first is taken from a finite loss, the next epoch sees the ruin.
        ({"batch_size": 1000, "epochs": 9}, r"loss is (nan|inf) in epoch \d of 9"),
        # Several steps: the loss of the epoch itself is not finite.
        ({"batch_size": 10, "epochs": 5}, r"loss is (nan|inf) in epoch 1 of 5"),
    ],
)
def test_a_training_that_diverges_says_in_which_epoch(
    settings: dict[str, int], message: str, tmp_path: Path
) -> None:
    training = TrainingSpec(
        learning_rate=100.0,
        schedule="constant",
        activation="elu",
        **settings,  # type: ignore[arg-type]
    )
    with pytest.raises(TrainingDivergedError, match=message):
        train_in(context_of(spec_of(training=training), tmp_path))


class Cliff(nn.Module):
    """Gives finite scores until a step has been taken."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores (B, K)."""
        return self.weight / (self.weight == 0).all() + x.mean((1, 2, 3))[:, None]


def test_ruin_by_the_very_last_step_is_a_divergence_too() -> None:
    images = random_images(30)
    plan = TrainingPlan(
        data=images,
        held_out=images,
        calibration=None,
        num_classes=10,
        augmentation="none",
        settings=TrainingSpec(epochs=1, batch_size=100, schedule="constant", weight_decay=0.1),
        stack=(),
    )
    model = Cliff()
    with pytest.raises(TrainingDivergedError, match="validation loss is nan in epoch 1 of 1"):
        train(model, plan, torch.Generator())


@pytest.mark.parametrize("patience", [1, 1000])
def test_early_stopping_gives_the_best_epoch_back(patience: int) -> None:
    # Labels of noise: the loss on calibration falls from a poor start, then goes up and down.
    noise, calibration, model = random_images(80), random_images(81), LinearSoftmax(64, 10)
    plan = TrainingPlan(
        data=noise,
        held_out=noise,
        calibration=calibration,
        num_classes=10,
        augmentation="none",
        settings=TrainingSpec(epochs=40, schedule="constant", learning_rate=0.2),
        stack=(EarlyStopping(patience=patience),),
    )
    scores = train(model, plan, torch.Generator().manual_seed(0)).curves["early_stopping_score"]
    best = scores.index(min(scores))
    assert best > 0 and min(scores) < scores[-1]
    assert len(scores) == min(40, best + 1 + patience)
    assert loss_and_accuracy(model, calibration).loss == scores[best]


def test_dropout_repeats_with_the_seed(tmp_path: Path) -> None:
    watched = build_defense("tests.defenses.toys:ScaleFeatures", {}, radius=0.1)
    first, second = (_trained(spec_of(watched), tmp_path / name) for name in ("a", "b"))
    assert same_weights(first.model, second.model)


def test_a_diverged_trial_is_recorded(tmp_path: Path) -> None:
    training = TrainingSpec(epochs=5, batch_size=10, learning_rate=100.0, schedule="constant",
                            activation="elu")  # fmt: skip
    record = run_trial(spec_of(training=training), ArtefactStore(tmp_path))
    assert record.status == "failed"
    assert record.error is not None and record.error.startswith("TrainingDivergedError: ")
    assert "epoch 1 of 5" in record.error
    assert record.metrics == {} and record.artefacts == {}

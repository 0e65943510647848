from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.conftest import TrainedNet
from tests.defenses.robustness import trained_with
from tests.making import EPS, accuracy, context_of, spec_of
from trainables.attacks.fgsm import fgsm
from trainables.attacks.pgd import pgd
from trainables.datasets import LabelledImages
from trainables.defenses import EpochData, EpochVerdict, View
from trainables.defenses.training.fgsm_adversarial_training import FgsmAdversarialTraining
from trainables.training.evaluation import loss_and_accuracy
from trainables.training.loop import TrainingPlan, train
from trainables.training.modes import frozen_for_attack
from trainables.trial.settings import TrainingSpec


def _views(net: TrainedNet, defense: FgsmAdversarialTraining, seed: int = 0) -> list[View]:
    clean = View(net.x, F.one_hot(net.y, 10).float(), 1.0)
    return list(defense.views(net.model, [clean], torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    ("fraction", "weights"), [(0.0, [1.0]), (0.25, [0.75, 0.25]), (1.0, [1.0])]
)
def test_the_loss_is_shared_between_clean_and_adversarial_images(
    fraction: float, weights: list[float], undefended: TrainedNet
) -> None:
    views = _views(undefended, FgsmAdversarialTraining(eps=(EPS,), fraction=fraction))
    assert [view.weight for view in views] == weights
    assert torch.equal(views[0].x, undefended.x) == (fraction < 1)


def test_the_adversarial_view_is_fgsms(undefended: TrainedNet) -> None:
    adversarial = _views(undefended, FgsmAdversarialTraining(eps=(EPS,)))[1]
    expected = fgsm(undefended.model, undefended.x, undefended.y, eps=EPS)
    assert torch.equal(adversarial.x, expected)
    assert torch.equal(adversarial.target.argmax(1), undefended.y)


@pytest.mark.parametrize("random_start", [False, True])
def test_of_a_set_each_image_draws_its_own_radius_and_stays_inside(
    random_start: bool, undefended: TrainedNet
) -> None:
    radii = (0.05, 0.1, 0.2)
    defense = FgsmAdversarialTraining(eps=radii, random_start=random_start)
    far = (_views(undefended, defense)[1].x - undefended.x).flatten(1).abs().amax(1)
    nearest = torch.tensor(radii)[(far[:, None] - torch.tensor(radii)).abs().argmin(1)]
    assert bool((far <= nearest + 1e-6).all())
    if not random_start:
        torch.testing.assert_close(far, nearest, atol=1e-6, rtol=0)
    shares = [float((nearest == radius).double().mean()) for radius in torch.tensor(radii)]
    assert all(0.2 < share < 0.5 for share in shares)
    again = (_views(undefended, defense)[1].x - undefended.x).flatten(1).abs().amax(1)
    other = (_views(undefended, defense, seed=1)[1].x - undefended.x).flatten(1).abs().amax(1)
    assert torch.equal(far, again) and not torch.equal(far, other)


def test_crafting_moves_no_running_statistics_and_leaves_no_gradients() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3)).train()
    before = model[1].running_mean.clone()  # type: ignore[operator]
    view = View(torch.rand(8, 1, 4, 4), F.one_hot(torch.arange(8) % 3, 3).float(), 1.0)
    FgsmAdversarialTraining(eps=(0.1,)).views(model, [view], torch.Generator().manual_seed(0))
    assert torch.equal(model[1].running_mean, before)  # type: ignore[arg-type]
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_it_makes_a_net_more_robust(undefended: TrainedNet, hardened: TrainedNet) -> None:
    def robust(net: TrainedNet) -> float:
        generator = torch.Generator().manual_seed(0)
        return accuracy(
            net.model, pgd(net.model, net.x, net.y, eps=EPS, generator=generator), net.y
        )

    assert robust(hardened) > robust(undefended) + 0.2
    assert accuracy(hardened.model, hardened.x, hardened.y) > 0.9


class Honest(nn.Module):
    """Class 1 where the mean of the image is above 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores (B, 2)."""
        mean = x.mean((1, 2, 3)) - 0.5
        return self.scale * torch.stack([-mean, mean], 1)


def _grey(count: int, level: int) -> LabelledImages:
    pixels = torch.full((count, 1, 4, 4), level, dtype=torch.uint8)
    return LabelledImages(pixels=pixels, labels=torch.ones(count, dtype=torch.int64), scale=255)


def _score(model: nn.Module, train: LabelledImages) -> float:
    defense = FgsmAdversarialTraining(eps=(0.1,))
    score = defense.epoch_score(model, EpochData(train=train, calibration=None))
    assert score is not None
    return score


def test_an_honest_net_falls_to_both_attacks_or_to_neither() -> None:
    assert _score(Honest(), _grey(200, 240)) == 0.0  # far from the border: withstands both
    assert _score(Honest(), _grey(200, 130)) == 0.0  # near it: falls to one step already


class Kinked(Honest):
    """Classifies right in the corners of the ball, where FGSM goes, and wrong half-way there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores (B, 2)."""
        moved = (x.mean((1, 2, 3)) - 130 / 255).abs()
        wrong = self.scale * torch.where(moved < 0.06, moved, 0.12 - moved) - 0.045
        return torch.stack([wrong, -wrong], 1)


def test_a_net_that_withstands_fgsm_alone_is_seen_through() -> None:
    before = torch.random.get_rng_state()
    model = Kinked().train()
    assert _score(model, _grey(200, 130)) == 1.0
    assert _score(model, _grey(8, 130)) == 1.0  # fewer images than are watched
    assert model.training and model.scale.requires_grad and model.scale.grad is None
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("eps", "looked_at"), [(EPS, 16), (0.25, 128)])
def test_the_score_is_the_share_that_falls_to_pgd_of_what_withstands_fgsm(
    eps: float, looked_at: int, hardened: TrainedNet
) -> None:
    train = hardened.ctx.pools.train
    found = FgsmAdversarialTraining(eps=(0.1, eps)).epoch_score(
        hardened.model, EpochData(train=train, calibration=None)
    )
    x, y = train.images(slice(0, looked_at)), train.labels[:looked_at]
    with frozen_for_attack(hardened.model), torch.no_grad():
        rows = hardened.model(fgsm(hardened.model, x, y, eps=eps)).argmax(1) == y
        generator = torch.Generator().manual_seed(0)
        moved = pgd(hardened.model, x[rows], y[rows], eps=eps, steps=10, generator=generator)
        share = float((hardened.model(moved).argmax(1) != y[rows]).double().mean())
    assert found == share
    assert (found > 0.5) == (looked_at > 16)


def test_without_detection_nothing_is_scored(undefended: TrainedNet) -> None:
    defense = FgsmAdversarialTraining(detect_overfitting=False)
    data = EpochData(train=undefended.ctx.pools.train, calibration=None)
    assert defense.epoch_score(undefended.model, data) is None


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ([0.0], (False, 0)),
        ([0.1, 0.5, 0.9], (False, 2)),
        ([0.1, 0.5, 0.91], (True, 1)),
        ([1.0], (True, 0)),
    ],
)
def test_the_epoch_before_the_overfitting_is_kept(
    scores: Sequence[float], verdict: tuple[bool, int]
) -> None:
    assert FgsmAdversarialTraining().after_epoch(scores) == EpochVerdict(*verdict)


def test_a_training_that_overfits_is_stopped_and_given_back_as_it_was_before(
    artefact_folder: Path,
) -> None:
    training = TrainingSpec(epochs=20)
    defense = FgsmAdversarialTraining(eps=(0.45,))
    ctx = trained_with(defense, folder=artefact_folder, training=training).ctx
    trained = ctx.train(ctx.spec.stack, ctx.pools.train, 0)
    scores = trained.curves[f"{defense.name}_score"]
    assert 2 < len(scores) < 20
    assert scores[-1] > 0.9 and max(scores[:-1]) <= 0.9
    kept = loss_and_accuracy(trained.model, ctx.curve_pool).loss
    assert kept == pytest.approx(trained.curves["validation_loss"][-2], rel=1e-6)
    assert kept != pytest.approx(trained.curves["validation_loss"][-1], rel=1e-3)


def test_detection_changes_nothing_in_a_training_that_does_not_overfit(tmp_path: Path) -> None:
    weights, scores = [], []
    for name, detect in (("with", True), ("without", False)):
        spec = spec_of(FgsmAdversarialTraining(eps=(0.05,), detect_overfitting=detect), epochs=3)
        ctx = context_of(spec, tmp_path / name)
        # Their identities differ, and with them their seeds: so the training is run by hand.
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        plan = TrainingPlan(
            data=ctx.pools.train, held_out=ctx.curve_pool, calibration=None, num_classes=10,
            augmentation="none", settings=spec.training, stack=spec.stack.training,
        )  # fmt: skip
        progress = train(model, plan, torch.Generator().manual_seed(0))
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
        scores.append(progress.curves.get("fgsm_adversarial_training_score"))
    assert torch.equal(*weights)
    assert scores[0] is not None and max(scores[0]) <= 0.9 and scores[1] is None

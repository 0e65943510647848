import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.conftest import TrainedNet
from tests.making import EPS, accuracy
from trainables.attacks.fgsm import fgsm
from trainables.attacks.pgd import pgd
from trainables.defenses import View
from trainables.defenses.fgsm_adversarial_training import FgsmAdversarialTraining


def _views(net: TrainedNet, defense: FgsmAdversarialTraining, seed: int = 0) -> list[View]:
    clean = View(net.x, F.one_hot(net.y, 10).float(), 1.0)
    return list(defense.views(net.model, [clean], torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    ("fraction", "weights"), [(0.0, [1.0]), (0.25, [0.75, 0.25]), (1.0, [1.0])]
)
def test_the_loss_is_shared_between_clean_and_adversarial_images(
    fraction: float, weights: list[float], undefended: TrainedNet
) -> None:
    views = _views(undefended, FgsmAdversarialTraining(eps=EPS, fraction=fraction))
    assert [view.weight for view in views] == weights
    assert torch.equal(views[0].x, undefended.x) == (fraction < 1)


def test_the_adversarial_view_is_fgsms(undefended: TrainedNet) -> None:
    adversarial = _views(undefended, FgsmAdversarialTraining(eps=EPS))[1]
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
    FgsmAdversarialTraining(eps=0.1).views(model, [view], torch.Generator().manual_seed(0))
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

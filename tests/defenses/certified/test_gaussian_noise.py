import math

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from trainables.defenses.certified.gaussian_noise import (
    GaussianNoise,
    VotingPredictor,
    noisy_copies,
)
from trainables.deployed.predictor import Predictor
from trainables.training.modes import seeded

CPU = torch.device("cpu")


def _seed(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _looks_normal(noise: Tensor, sigma: float) -> bool:
    """Mean, variance and fourth moment within four standard errors."""
    scaled = noise.double().flatten() / sigma
    error = 1 / math.sqrt(len(scaled))
    return (
        abs(float(scaled.mean())) < 4 * error
        and abs(float(scaled.square().mean()) - 1) < 4 * math.sqrt(2) * error
        and abs(float(scaled.pow(4).mean()) - 3) < 4 * math.sqrt(96) * error
    )


def test_noisy_copies_are_independent_normal_and_not_cut() -> None:
    x = torch.rand(6, 2, 5, 5, generator=_seed(1))
    noisy = noisy_copies(x, 200, 0.7, _seed())
    assert noisy.shape == (1200, 2, 5, 5)
    noise = noisy.view(200, 6, 2, 5, 5) - x
    assert _looks_normal(noise, 0.7) and not _looks_normal(noise, 0.75)
    assert float(noisy.min()) < 0 and float(noisy.max()) > 1
    flat = noise.flatten(2)
    for one, other in ((flat[0], flat[1]), (flat[:, 0], flat[:, 1]), (flat[..., 0], flat[..., 1])):
        between = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert abs(float(between)) < 4 / math.sqrt(one.numel())
    assert torch.equal(noisy, noisy_copies(x, 200, 0.7, _seed()))
    assert not torch.equal(noisy, noisy_copies(x, 200, 0.7, _seed(1)))


def test_the_gradient_of_a_noisy_copy_is_that_of_the_image() -> None:
    x = torch.rand(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(noisy_copies(x, 5, 0.1, _seed()).sum(), x)
    assert gradient.tolist() == [[5.0] * 3] * 2


def test_in_training_the_layer_draws_once_an_image_from_the_global_generator() -> None:
    layer, x = GaussianNoise(0.3), torch.zeros(40, 1, 20, 20)
    with seeded(3, CPU):
        noisy = layer(x)
    with seeded(3, CPU):
        assert torch.equal(noisy, 0.3 * torch.randn_like(x))
    assert noisy.shape == x.shape and _looks_normal(noisy, 0.3)


def test_in_eval_mode_the_layer_passes_on_or_makes_copies_of_a_generator() -> None:
    layer, x = GaussianNoise(0.3).eval(), torch.rand(4, 1, 3, 3)
    before = torch.get_rng_state()
    assert layer(x) is x
    layer.generator, layer.copies = _seed(5), 7
    assert torch.equal(layer(x), noisy_copies(x, 7, 0.3, _seed(5)))
    assert torch.equal(before, torch.get_rng_state())


class Loud(VotingPredictor):
    """Votes under noise that often changes the class."""

    def draw(self, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return the scores of noisy copies."""
        noisy = noisy_copies(x, count, 0.4, generator)
        return self.inner.scores(noisy, generator).reshape(count, len(x), -1)


def test_the_votes_decide_and_the_mean_softmax_is_what_is_attacked(undefended: TrainedNet) -> None:
    x, predictor = undefended.x[:40], Loud(Predictor(undefended.model), 201)
    assert predictor.stochastic and predictor.forward_passes_per_prediction == 201
    found = predictor.predict(x, _seed())
    again = predictor.predict(x, _seed())
    assert torch.equal(found.label, again.label)
    torch.testing.assert_close(found.log_probabilities.exp().sum(1), torch.ones(40))
    # A vote of other draws elects the same, but where it is close.
    with torch.no_grad():
        scores = predictor.draw(x, 100, _seed(9))
    counts = nn.functional.one_hot(scores.argmax(2), 10).sum(0)
    top = counts.topk(2).values
    clear = top[:, 0] - top[:, 1] > 40
    assert int(clear.sum()) > 10
    assert torch.equal(found.label[clear], counts.argmax(1)[clear])
    mean = scores.softmax(2).mean(0)
    torch.testing.assert_close(found.log_probabilities.exp(), mean, atol=0.25, rtol=0)
    eot, plain = predictor.surfaces()
    assert (eot.kind, eot.draws, plain.kind) == ("eot", 10, "exact")
    torch.testing.assert_close(plain.scores(x, _seed()), undefended.model(x))
    image = x.clone().requires_grad_(True)
    scores = eot.scores(image, _seed())
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(40))
    assert torch.autograd.grad(scores.sum(), image)[0].abs().sum() > 0


def test_a_voting_predictor_says_how_it_draws(undefended: TrainedNet) -> None:
    with pytest.raises(NotImplementedError):
        VotingPredictor(Predictor(undefended.model), 3).predict(undefended.x[:2], _seed())

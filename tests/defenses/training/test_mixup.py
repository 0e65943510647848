from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import nn

from tests.defenses.robustness import clean_view
from tests.making import context_of, same_weights, spec_of
from trainables.defenses.training.mixup import Mixup
from trainables.errors import InputError


def _seed(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_the_share_has_the_distribution_of_the_larger_of_lam_and_its_rest(alpha: float) -> None:
    generator, mixup = _seed(), Mixup(alpha=alpha)
    drawn = [mixup.draw(generator) for _ in range(3000)]
    assert min(drawn) >= 0.5 and max(drawn) <= 1
    # P(max(lam, 1 - lam) <= t) = F(t) - F(1 - t), which by symmetry is 2 F(t) - 1.
    found = stats.kstest(drawn, lambda t: 2 * stats.beta.cdf(t, alpha, alpha) - 1)
    assert found.pvalue > 0.01


def test_images_and_targets_are_mixed_alike_in_every_view() -> None:
    images = torch.rand(16, 1, 4, 4, generator=_seed(1))
    labels = torch.arange(16) % 10
    views = [clean_view(images, labels), clean_view(1 - images, labels)]
    mixed = Mixup(alpha=1.0).views(nn.Identity(), views, _seed(3))
    generator = _seed(3)
    lam = Mixup(alpha=1.0).draw(generator)
    partner = torch.randperm(16, generator=generator)
    assert 0.5 < lam < 0.99 and not torch.equal(partner, torch.arange(16))
    for view, given in zip(mixed, views, strict=True):
        torch.testing.assert_close(view.x, lam * given.x + (1 - lam) * given.x[partner])
        torch.testing.assert_close(
            view.target, lam * given.target + (1 - lam) * given.target[partner]
        )
        assert torch.equal(view.target.argmax(1), labels) and view.weight == given.weight


def test_a_small_alpha_mixes_next_to_nothing_and_a_large_one_in_halves() -> None:
    generator = _seed()
    assert min(Mixup(alpha=1e-3).draw(generator) for _ in range(50)) > 0.99
    assert max(Mixup(alpha=1000.0).draw(generator) for _ in range(50)) < 0.55


def test_trainings_repeat_learn_and_differ_from_plain_ones(tmp_path: Path) -> None:
    def trained(name: str, *stack: Mixup) -> tuple[nn.Module, list[float]]:
        ctx = context_of(spec_of(*stack, epochs=8, train_images=300), tmp_path / name)
        found = ctx.train(ctx.spec.stack, ctx.pools.train, 0)
        return found.model, found.curves["validation_accuracy"]

    one, two, plain = trained("a", Mixup()), trained("b", Mixup()), trained("c")
    assert same_weights(one[0], two[0]) and not same_weights(one[0], plain[0])
    assert one[1][-1] > 0.8


def test_alpha_has_limits() -> None:
    with pytest.raises(InputError, match="mixup: alpha"):
        Mixup(alpha=0.0)

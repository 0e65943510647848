import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables.defenses import View
from trainables.defenses.label_smoothing import LabelSmoothing


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

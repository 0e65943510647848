"""Attacks on many images: the model never sees more at once, and nothing else changes."""

import pytest
import torch
from torch import Tensor

from tests.attacks.test_contract import Row, every_attack
from tests.conftest import TrainedNet
from tests.making import EPS
from trainables.attacks.pgd import pgd
from trainables.attacks.shared import batching


class Watching:
    """Scores, and the most images that were asked about at once."""

    def __init__(self, net: TrainedNet) -> None:
        self.net, self.most = net, 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the net's scores."""
        self.most = max(self.most, len(x))
        scores: Tensor = self.net.model(x)
        return scores


@every_attack
def test_memory_stays_flat_in_the_number_of_images(
    row: Row, undefended: TrainedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "BATCH", 4)
    most = []
    for count in (4, 12):
        watching = Watching(undefended)
        x, y = undefended.x[:count], undefended.y[:count]
        attacked = row.run(watching, x, y)
        assert attacked.shape == x.shape
        most.append(watching.most)
    # An attack may ask about several copies of its batch, but no more of them for more images.
    assert most[1] <= most[0] + 4


def test_batches_change_nothing_but_the_draws(
    undefended: TrainedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = undefended.model, undefended.x[:40], undefended.y[:40]
    eps = torch.linspace(0, EPS, 40)
    whole = pgd(model, x, y, eps=eps, random_start=False, early_stop=False)
    monkeypatch.setattr(batching, "BATCH", 7)
    parts = pgd(model, x, y, eps=eps, random_start=False, early_stop=False)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)

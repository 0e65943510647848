import pytest
import torch
from torch import Tensor, nn

from tests.making import CPU
from trainables.models import unet
from trainables.models.unet import UNet, embed_time, in_parts
from trainables.training.modes import seeded

SHAPES = [(1, 4, 4), (1, 8, 8), (3, 9, 13), (1, 28, 28), (3, 32, 32), (2, 3, 5), (3, 224, 224)]


def _network(shape: tuple[int, int, int], *, time: bool, zero: bool = False) -> UNet:
    channels, height, width = shape
    with seeded(0, CPU):
        network = UNet(
            channels=channels, height=height, width=width, filters=8, most_halvings=3, time=time
        )
        if not zero:
            for weights in network.parameters():
                nn.init.normal_(weights, std=0.1)
    return network


def _images(shape: tuple[int, int, int], count: int) -> Tensor:
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("time", [False, True])
def test_it_keeps_the_shape_of_any_image(shape: tuple[int, int, int], time: bool) -> None:
    network = _network(shape, time=time)
    x = _images(shape, 2).requires_grad_(True)
    found = network(x, torch.tensor([0.1, 0.9]) if time else None)
    assert found.shape == x.shape
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    assert bool((gradient != 0).flatten(1).all())


def test_a_new_network_gives_zeros() -> None:
    network = _network((1, 8, 8), time=False, zero=True)
    assert torch.equal(network(_images((1, 8, 8), 3)), torch.zeros(3, 1, 8, 8))


def test_the_time_matters_and_no_image_sees_another() -> None:
    network, x = _network((1, 8, 8), time=True), _images((1, 8, 8), 2)
    early, late = network(x, torch.zeros(2)), network(x, torch.ones(2))
    assert not torch.allclose(early, late)
    mixed = network(x, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(mixed, torch.stack([early[0], late[1]]))


def test_times_have_distinct_bounded_embeddings() -> None:
    embedded = embed_time(torch.linspace(0, 1, 1001))
    assert float(embedded.abs().max()) <= 1
    nearest = torch.cdist(embedded, embedded) + 10 * torch.eye(1001)
    assert float(nearest.min()) > 0.1


@pytest.mark.parametrize("time", [False, True])
def test_parts_give_the_values_and_gradients_of_the_whole(
    time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = _network((1, 8, 8), time=time), _images((1, 8, 8), 7).requires_grad_(True)
    times = torch.linspace(0, 1, 7) if time else None
    whole = in_parts(network, x, times)
    (expected,) = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setattr(unet, "PIXELS_AT_ONCE", 2 * 64)
    parts = in_parts(network, x, times)
    torch.testing.assert_close(parts, whole)
    (found,) = torch.autograd.grad(parts.square().sum(), x)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(in_parts(network, x, times), whole)

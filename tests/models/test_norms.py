import pytest
import torch
from torch import nn

from trainables.errors import InputError
from trainables.models import ACTIVATIONS, activation, norm_layer


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (6, 6), (7, 7), (11, 1), (16, 8), (20, 5), (64, 8)]
)
def test_groups_are_the_largest_divisor_up_to_eight(channels: int, groups: int) -> None:
    layer = norm_layer("group", channels)
    assert isinstance(layer, nn.GroupNorm)
    assert (layer.num_groups, layer.num_channels) == (groups, channels)


def test_no_norm_changes_nothing() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert norm_layer("none", 3)(x) is x


def test_activations_are_those_of_torch() -> None:
    x = torch.linspace(-2, 2, 9)
    for name, expected in {
        "relu": x.relu(),
        "elu": nn.functional.elu(x),
        "gelu": nn.functional.gelu(x),
        "silu": nn.functional.silu(x),
        "tanh": x.tanh(),
    }.items():
        assert torch.equal(activation(name)(x), expected)


def test_an_unknown_activation_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=f"known: {', '.join(ACTIVATIONS)}"):
        activation("swish")

"""The pieces that our own convolutional networks are made of."""

from collections import OrderedDict

from torch import nn

from trainables.models.contract import ModelArguments
from trainables.models.norms import activation, norm_layer


def conv_layer(
    arguments: ModelArguments,
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    padding: int,
    stride: int = 1,
    pool: bool = False,
) -> nn.Sequential:
    """Build convolution, normalisation, activation and, if asked, 2x2 max-pooling."""
    layers = [
        nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding),
        norm_layer(arguments.norm, out_channels),
        activation(arguments.activation),
    ]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


def dense_layer(arguments: ModelArguments, in_features: int, out_features: int) -> nn.Sequential:
    """Build a fully connected layer with its activation."""
    return nn.Sequential(nn.Linear(in_features, out_features), activation(arguments.activation))


def flatten(
    channels: int, height: int, width: int, *, largest: int, pooled: int
) -> tuple[nn.Module, int]:
    """Flatten a map (B, channels, height, width); return the number of features too.

    A map with a side above `largest`, which is the side that a 32-pixel image leads to, is averaged
    down to `pooled`: else the dense layer behind it grows with the area, to 10^8 weights at 224
    pixels.
    """
    if max(height, width) <= largest:
        return nn.Flatten(), channels * height * width
    height, width = min(pooled, height), min(pooled, width)
    averaged = nn.Sequential(nn.AdaptiveAvgPool2d((height, width)), nn.Flatten())
    return averaged, channels * height * width


def named_stem(*layers: nn.Module) -> nn.Sequential:
    """Name the layers of a stem layer1, layer2, .."""
    return nn.Sequential(
        OrderedDict((f"layer{number}", layer) for number, layer in enumerate(layers, start=1))
    )

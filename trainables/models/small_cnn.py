"""A small network for the digits, trained in a second."""

from torch import nn

from trainables.models.contract import Classifier, ModelArguments
from trainables.models.layers import conv_layer, dense_layer, flatten, named_stem


def small_cnn(arguments: ModelArguments) -> Classifier:
    """Build two 3x3 convolutions (32, 64), a max-pool and a dense layer of 128 features."""
    flat, width = flatten(64, arguments.height // 2, arguments.width // 2, largest=16, pooled=8)
    return Classifier(
        arguments,
        stem=named_stem(
            conv_layer(arguments, arguments.channels, 32, 3, padding=1),
            conv_layer(arguments, 32, 64, 3, padding=1),
        ),
        body=nn.Sequential(nn.MaxPool2d(2), flat, dense_layer(arguments, width, 128)),
        head=nn.Linear(128, arguments.num_classes),
    )

"""PixelDP's MNIST network: two strided 5x5 convolutions."""

import math

from torch import nn

from trainables.models.contract import Classifier, ModelArguments
from trainables.models.layers import conv_layer, dense_layer, flatten, named_stem


def pixeldp_cnn(arguments: ModelArguments) -> Classifier:
    """Build two 5x5 convolutions of stride 2 (32, 64) and a dense layer of 1,024 features.

    Source: Lecuyer et al., Certified robustness to adversarial examples with differential
    privacy, 2019.
    """
    height, width = (math.ceil(side / 4) for side in (arguments.height, arguments.width))
    flat, flat_width = flatten(64, height, width, largest=8, pooled=8)
    return Classifier(
        arguments,
        stem=named_stem(
            conv_layer(arguments, arguments.channels, 32, 5, stride=2, padding=2),
            conv_layer(arguments, 32, 64, 5, stride=2, padding=2),
        ),
        body=nn.Sequential(flat, dense_layer(arguments, flat_width, 1024)),
        head=nn.Linear(1024, arguments.num_classes),
    )

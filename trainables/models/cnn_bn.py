"""Model B of the published tables: three convolutions with batch norm."""

from torch import nn

from trainables.models.contract import Classifier, ModelArguments
from trainables.models.layers import conv_layer, dense_layer, flatten, named_stem


def cnn_bn(arguments: ModelArguments) -> Classifier:
    """Build (Conv+BN+MaxPool) x 3 + Flatten + FC + FC; 3x3, widths 32/64/128, 256 features.

    Source: Model B of "Training robust neural networks"; it prints the layers, not the widths.
    """
    flat, width = flatten(128, arguments.height // 8, arguments.width // 8, largest=4, pooled=4)
    return Classifier(
        arguments,
        stem=named_stem(
            conv_layer(arguments, arguments.channels, 32, 3, padding=1, pool=True),
            conv_layer(arguments, 32, 64, 3, padding=1, pool=True),
            conv_layer(arguments, 64, 128, 3, padding=1, pool=True),
        ),
        body=nn.Sequential(flat, dense_layer(arguments, width, 256)),
        head=nn.Linear(256, arguments.num_classes),
    )

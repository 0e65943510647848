"""LeNet-5, Model A of the published tables."""

from torch import nn

from trainables.models.contract import Classifier, ModelArguments
from trainables.models.layers import conv_layer, dense_layer, flatten, named_stem

KERNEL = 5
CLASSIC_SIDE = 32
"""Image side that LeNet-5 was made for; smaller ones (28) are padded, as LeCun padded MNIST."""


def lenet5(arguments: ModelArguments) -> Classifier:
    """Build Conv+MaxPool+Conv+MaxPool+Flatten+FC+FC+FC with the classic widths 6/16, 120/84.

    Source: LeCun et al., Gradient-based learning applied to document recognition, 1998.
    """
    side = min(arguments.height, arguments.width)
    first = 0 if side >= CLASSIC_SIDE else KERNEL // 2
    # Below 6 pixels an unpadded 5x5 convolution leaves nothing to pool.
    second = 0 if _pooled_side(side, first) > KERNEL else KERNEL // 2
    height, width = (
        _pooled_side(_pooled_side(side, first), second)
        for side in (arguments.height, arguments.width)
    )
    flat, flat_width = flatten(16, height, width, largest=5, pooled=5)
    return Classifier(
        arguments,
        stem=named_stem(
            conv_layer(arguments, arguments.channels, 6, KERNEL, padding=first, pool=True),
            conv_layer(arguments, 6, 16, KERNEL, padding=second, pool=True),
        ),
        body=nn.Sequential(
            flat, dense_layer(arguments, flat_width, 120), dense_layer(arguments, 120, 84)
        ),
        head=nn.Linear(84, arguments.num_classes),
    )


def _pooled_side(side: int, padding: int) -> int:
    return (side + 2 * padding - KERNEL + 1) // 2

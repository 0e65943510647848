"""ResNet-18 with the stem that is usual for CIFAR-10."""

import functools

from torch import nn

from trainables.models.contract import Classifier, ModelArguments
from trainables.models.layers import named_stem
from trainables.models.norms import activation, norm_layer

WIDTH = 64


def resnet18(arguments: ModelArguments) -> Classifier:
    """Build torchvision's ResNet-18 with a 3x3 stem of stride 1 and no max-pool; 512 features.

    Source: He et al., Deep residual learning for image recognition, 2016 (section 4.2's stem).
    """
    from torchvision.models import resnet

    net = resnet.resnet18(
        weights=None,
        num_classes=arguments.num_classes,
        norm_layer=functools.partial(norm_layer, arguments.norm),
    )
    for block in net.modules():
        if isinstance(block, resnet.BasicBlock):
            # Torchvision's ReLU works in place, which hooks and per-sample gradients do not bear.
            block.relu = activation(arguments.activation)
    conv1 = nn.Conv2d(arguments.channels, WIDTH, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")
    first = nn.Sequential(conv1, net.bn1, activation(arguments.activation))
    return Classifier(
        arguments,
        stem=named_stem(first, net.layer1),
        body=nn.Sequential(net.layer2, net.layer3, net.layer4, net.avgpool, nn.Flatten()),
        head=net.fc,
    )

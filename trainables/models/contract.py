"""The contract between a model and everything that defends, attacks or measures it.

x (B, C, H, W) in [0, 1]
  -> points["image"] -> normalization
  -> stem.layer1 -> points["layer1"] -> stem.layer2 -> points["layer2"] -> ..
  -> body                                     = features(x), (B, D)
  -> points["features"] -> head               = forward(x), (B, K) logits

Legend: B batch, C channels, H height, W width, D features, K classes.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.errors import InputError
from trainables.models.norms import Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArguments:
    """What a model is built for."""

    channels: int
    height: int
    width: int
    num_classes: int
    mean: tuple[float, ...]
    """Per channel, in pixel values of [0, 1]."""
    std: tuple[float, ...]
    norm: Norm
    activation: str


class Normalization(nn.Module):
    """Subtracts a mean and divides by a standard deviation, per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        return (x - self.mean) / self.std


class Classifier(nn.Module):
    """An image classifier with named places where a defense may insert a module.

    `stem` has the named children layer1, layer2, ..; `body` maps the stem's output to (B, D).
    """

    def __init__(
        self, arguments: ModelArguments, *, stem: nn.Sequential, body: nn.Module, head: nn.Linear
    ) -> None:
        super().__init__()
        self.normalization = Normalization(arguments.mean, arguments.std)
        self.stem = stem
        self.body = body
        self.head = head
        names = ["image", *dict(stem.named_children()), "features"]
        self.points = nn.ModuleDict({name: nn.Identity() for name in names})

    @property
    def noise_points(self) -> tuple[str, ...]:
        """Return the points where noise may go: the image and after each stem layer."""
        return tuple(name for name in self.points if name != "features")

    def features(self, x: Tensor) -> Tensor:
        """Return the penultimate features (B, D), before whatever is inserted at 'features'."""
        hidden = self.normalization(self.points["image"](x))
        for name, layer in self.stem.named_children():
            hidden = self.points[name](layer(hidden))
        features: Tensor = self.body(hidden)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        logits: Tensor = self.head(self.points["features"](self.features(x)))
        return logits

    def path_to(self, point: str) -> list[nn.Module]:
        """Return what stands between the image and a point: nothing of what is at the point itself.

        Each is a Sequential that holds one module by its name ("normalization", "layer1", and
        "points[layer1]" for what was inserted there), so that an error can say where it stands.
        Raises InputError, naming the known points, for one where noise cannot go.
        """
        if point not in self.noise_points:
            known = ", ".join(self.noise_points)
            raise InputError(f"no path to the place {point!r}; known: {known}")
        if point == "image":
            return []
        path = [("points[image]", self.points["image"]), ("normalization", self.normalization)]
        for name, layer in self.stem.named_children():
            path.append((name, layer))
            if name == point:
                break
            path.append((f"points[{name}]", self.points[name]))
        return [
            nn.Sequential(OrderedDict([named]))
            for named in path
            if type(named[1]) is not nn.Identity
        ]

    def insert(self, point: str, module: nn.Module) -> None:
        """Append a module at a point, after what is there already.

        Raises InputError, naming the known points, for an unknown one.
        """
        if point not in self.points:
            raise InputError(f"unknown place {point!r}; known: {', '.join(self.points)}")
        present = self.points[point]
        empty = type(present) is nn.Identity
        self.points[point] = module if empty else nn.Sequential(present, module)


def missing_parts(model: nn.Module, needed: Iterable[str]) -> list[str]:
    """List which of the needed parts (features, points, head, convolutions) a model lacks.

    'features' must be a method: the module of that name in torchvision's VGG or DenseNet returns
    maps, not the (B, D) that the contract asks for.
    """
    features = getattr(model, "features", None)
    present = {
        "features": callable(features) and not isinstance(features, nn.Module),
        "points": isinstance(getattr(model, "points", None), nn.ModuleDict)
        and callable(getattr(model, "insert", None)),
        "head": isinstance(getattr(model, "head", None), nn.Linear),
        "convolutions": any(isinstance(module, nn.Conv2d) for module in model.modules()),
    }
    return [part for part in needed if not present[part]]

"""Architectures of other packages behind the contract of our models.

Axes: B batch, C channels, H, W, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainables.errors import InputError
from trainables.models.given.preprocessing import Preprocess, Preprocessing


class Adapted(nn.Module):
    """A network of another package: images of [0, 1] in, logits out.

    Its tensors have the names that its package gives them, as its checkpoints do.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocess = Preprocess(preprocessing)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        logits: Tensor = self.network(self.preprocess(x))
        return logits


class AdaptedClassifier(Adapted):
    """One whose last layer is linear: with features, a head, and places for further layers."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, head: str) -> None:
        super().__init__(network, preprocessing)
        self._head = head
        self.points = nn.ModuleDict({"image": nn.Identity(), "features": nn.Identity()})

    @property
    def head(self) -> nn.Linear:
        """The last linear layer, which stays where it is in the network."""
        found = self.network.get_submodule(self._head)
        assert isinstance(found, nn.Linear)
        return found

    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer is given (B, D), before what is inserted at 'features'."""
        given: list[Tensor] = []

        def keep(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            del layer
            given.append(inputs[0])

        hook = self.head.register_forward_pre_hook(keep)
        try:
            self.network(self.preprocess(self.points["image"](x)))
        finally:
            hook.remove()
        return given[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        if type(self.points["features"]) is nn.Identity:
            logits: Tensor = self.network(self.preprocess(self.points["image"](x)))
        else:
            logits = self.head(self.points["features"](self.features(x)))
        return logits

    def insert(self, point: str, module: nn.Module) -> None:
        """Append a module at a point; InputError names the known points."""
        if point not in self.points:
            raise InputError(f"unknown place {point!r}; known: {', '.join(self.points)}")
        present = self.points[point]
        empty = type(present) is nn.Identity
        self.points[point] = module if empty else nn.Sequential(present, module)


def adapt(network: nn.Module, preprocessing: Preprocessing) -> Adapted:
    """Put a network behind the contract, with its last linear layer as its head where it has one.

    The head is the linear layer whose output is what the network returns, and whose input has the
    shape (B, D).
    """
    plain = Adapted(network, preprocessing)
    head = _head_of(plain, preprocessing)
    return plain if head is None else AdaptedClassifier(network, preprocessing, head)


def _head_of(model: Adapted, preprocessing: Preprocessing) -> str | None:
    """Return the name of the linear layer that answers, by what passes through each."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = []
    for name, layer in model.network.named_modules():
        if isinstance(layer, nn.Linear):
            hooks.append(layer.register_forward_hook(_noting(seen, name)))
    was_training, side = model.training, preprocessing.crop
    try:
        with torch.no_grad():
            answer = model.eval()(torch.zeros(1, len(preprocessing.mean), side, side))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    for name, (given, returned) in reversed(seen.items()):
        if returned is answer and given.ndim == 2:
            return name
    return None


def _noting(seen: dict[str, tuple[Tensor, Tensor]], name: str) -> Callable[..., None]:
    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del layer
        seen[name] = (inputs[0], output)

    return note

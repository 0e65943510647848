"""Removal of units that clean images leave silent, and fine-tuning of what is left.

Axes: N clean rows, C units (output channels of a convolution).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.datasets import LabelledImages
from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.repair.repair import Step, fine_tune, plain_step, repaired
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.parameters import parameter
from trainables.training.evaluation import batches, in_batches

_TRIALS = 64
"""Accuracies that are measured on the way, at most: of a wider layer several units go at once."""


@dataclass(frozen=True, kw_only=True)
class FinePruning(Defense):
    """Prune the units that clean images activate least, then fine-tune on the clean images.

    Units are the channels of the last convolution, by the mean of their rectified output, after a
    normalisation that follows. They are pruned from the lowest mean on, for as long as accuracy on
    the clean rows stays within `accuracy_drop` of what it was, and stay pruned in the fine-tuning.
    Clean rows are the calibration pool. Source: Liu et al., 2018, sections 4.1 and 4.3.
    """

    name = "fine_pruning"
    slot = "repair"
    guarantee = "empirical"
    meaning = "Prune the units that clean images leave silent, then fine-tune on clean images."
    source = "Liu et al., 2018"
    limits = (
        "It needs clean, rightly labelled images that nobody poisoned: the calibration pool.",
        "It fine-tunes on plain images, which wears off what adversarial training or noise gave.",
    )
    broken_by = (
        "Liu et al., 2018 (Fine-pruning): a poison that is trained with the silent units pruned "
        "moves into others; fine-tuning alone has to remove it then.",
        "Min et al., 2023 (Towards stable backdoor purification): fine-tuning leaves the "
        "backdoor in where the poison rate is low.",
    )
    needs = ("convolutions",)

    accuracy_drop: float = parameter(
        0.04, kind="float", low=0.0, high=1.0, unit="fraction",
        meaning="accuracy on the clean rows that pruning may cost",
    )  # fmt: skip
    epochs: int = parameter(
        10, kind="int", meaning="passes of the fine-tuning", low=0, high=100_000
    )
    learning_rate: float = parameter(
        0.01, kind="float", meaning="of the fine-tuning", low=1e-8, high=100.0
    )

    @property
    def needs_calibration(self) -> bool:
        """Whether something is fitted on the calibration pool: the whole repair is."""
        return True

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Deploy a pruned and fine-tuned copy of the network."""
        batch_size = ctx.training.batch_size

        def repair(
            model: nn.Module, clean: LabelledImages, generator: torch.Generator
        ) -> dict[str, int]:
            layer = last_convolution(model, clean)
            pruned = prune(model, layer, clean, accuracy_drop=self.accuracy_drop)
            fine_tune(
                model,
                clean,
                generator,
                epochs=self.epochs,
                batch_size=batch_size,
                learning_rate=self.learning_rate,
                step=lambda optimizer: _keeping_silent(optimizer, layer, pruned),
            )
            return {"pruned_units": len(pruned), "units": layer.units}

        return repaired(self, predictor, ctx, repair)


@dataclass(frozen=True, slots=True, eq=False)
class PrunableLayer:
    """A convolution with the normalisation that follows it, if one does."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d | nn.GroupNorm | None

    @property
    def units(self) -> int:
        """The number of its units (C)."""
        return self.convolution.out_channels

    @property
    def last(self) -> nn.Module:
        """The module whose output are the units' values, not yet rectified."""
        return self.convolution if self.norm is None else self.norm

    def parameters(self) -> list[Tensor]:
        """List what a unit is made of, each (C, ..)."""
        parts = (self.convolution, *([self.norm] if self.norm else []))
        found = [value for part in parts for value in (part.weight, part.bias)]
        return [value for value in found if value is not None]

    def silence(self, units: Tensor) -> None:
        """Set the weights of some units to zero: their output is zero on every image."""
        with torch.no_grad():
            for value in self.parameters():
                value[units.to(value.device)] = 0


def last_convolution(model: nn.Module, clean: LabelledImages) -> PrunableLayer:
    """Find the convolution that runs last on an image.

    Raises InputError where there is none.
    """
    called: list[nn.Module] = []
    leaves = [m for m in model.modules() if next(m.children(), None) is None]
    hooks = [
        leaf.register_forward_hook(lambda module, given, output: called.append(module))
        for leaf in leaves
        if not isinstance(leaf, nn.Identity)
    ]
    try:
        with torch.no_grad():
            model(clean.images(slice(0, 1)))
    finally:
        for hook in hooks:
            hook.remove()
    places = [place for place, module in enumerate(called) if isinstance(module, nn.Conv2d)]
    if not places:
        raise InputError("fine_pruning: the network runs no convolution, so no unit can be pruned")
    convolution = called[places[-1]]
    assert isinstance(convolution, nn.Conv2d)
    following = called[places[-1] + 1 : places[-1] + 2]
    norm = following[0] if following else None
    if isinstance(norm, nn.BatchNorm2d | nn.GroupNorm) and norm.affine:
        return PrunableLayer(convolution, norm)
    return PrunableLayer(convolution, None)


def mean_activations(model: nn.Module, layer: PrunableLayer, clean: LabelledImages) -> Tensor:
    """Return the mean rectified output of each unit (C,) over clean images and positions."""
    means: list[Tensor] = []

    def note(module: nn.Module, given: object, output: Tensor) -> None:
        means.append(output.relu().double().mean((2, 3)))

    hook = layer.last.register_forward_hook(note)
    try:
        with torch.no_grad():
            for x in batches(clean):
                model(x)
    finally:
        hook.remove()
    return torch.cat(means).mean(0)


def prune(
    model: nn.Module, layer: PrunableLayer, clean: LabelledImages, *, accuracy_drop: float
) -> Tensor:
    """Silence the units of least mean activation, in place, and return which (P,).

    At most as many as cost no more than `accuracy_drop` of accuracy on the clean rows (N), each
    further lot included; one unit stays.
    """
    order = mean_activations(model, layer, clean).argsort(stable=True)
    before, least = [value.clone() for value in layer.parameters()], _right(model, clean)
    least -= int(accuracy_drop * len(clean) + 1e-9)
    pruned, lot = 0, -(-layer.units // _TRIALS)
    for count in range(lot, layer.units, lot):
        layer.silence(order[:count])
        if _right(model, clean) < least:
            break
        pruned = count
    with torch.no_grad():
        for value, earlier in zip(layer.parameters(), before, strict=True):
            value.copy_(earlier)
    layer.silence(order[:pruned])
    return order[:pruned]


def _right(model: nn.Module, clean: LabelledImages) -> int:
    with torch.no_grad():
        return int((in_batches(model, clean).argmax(1) == clean.labels).sum())


def _keeping_silent(optimizer: torch.optim.Optimizer, layer: PrunableLayer, pruned: Tensor) -> Step:
    plain = plain_step(optimizer)

    def taken(loss: Callable[[], Tensor]) -> Tensor:
        value = plain(loss)
        layer.silence(pruned)
        return value

    return taken

"""Specs, contexts and small models that the tests of trainables/ share."""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.datasets import LabelledImages
from trainables.defenses import DEFENSES, SLOTS, Defense, build_defense, build_stack
from trainables.defenses.stack import conflict
from trainables.deployed.predictor import Predictor
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.threats import Threat
from trainables.trial.context import TrialContext
from trainables.trial.deployment_spec import DeploymentSpec
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import prepare_trial

CPU = torch.device("cpu")
EPS = 0.15
"""The digits' standard radius."""


def spec_of(
    *stack: Defense,
    threats: Iterable[Threat] = (),
    epochs: int = 1,
    train_images: int | None = 200,
    measured_images: int | None = 60,
    pools: str = "search",
    seed: int = 0,
    model: ModelSpec | None = None,
    training: TrainingSpec | None = None,
) -> TrialSpec:
    """Return the spec of a training that takes a moment."""
    return TrialSpec(
        data=DataSpec(pools=pools, train_images=train_images, measured_images=measured_images),
        model=model or ModelSpec(),
        training=training or TrainingSpec(epochs=epochs),
        stack=build_stack(stack),
        threats=tuple(threats),
        seed=seed,
    )


def one_of_each_slot() -> list[Defense]:
    """Return the first defense of every slot that goes with those before it."""
    chosen: list[Defense] = []
    for slot in SLOTS:
        for name, found in DEFENSES.items():
            defense = build_defense(name, {}, radius=EPS)
            if found.slot == slot and not any(conflict(defense, other) for other in chosen):
                chosen.append(defense)
                break
    return chosen


def context_of(spec: DeploymentSpec, folder: Path) -> TrialContext:
    """Return the context of a spec with its artefacts in the folder."""
    return prepare_trial(spec, ArtefactStore(folder), device=CPU)


def train_in(ctx: TrialContext) -> nn.Module:
    """Train the spec's own model."""
    return ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed).model


def stored_bytes(store: ArtefactStore) -> int:
    """Add up the artefacts' files."""
    return sum(entry.size for entry in store.folder.entries(".safetensors"))


def counting(built: list[int], seconds: float = 0.0) -> Callable[[], Artefact]:
    """Return a builder that notes in `built` that it was called."""

    def build() -> Artefact:
        built.append(1)
        time.sleep(seconds)
        return Artefact({"weights": torch.arange(6.0).view(2, 3)}, {"count": len(built)})

    return build


class LinearSoftmax(nn.Module):
    """scores = W x + b on flattened images: gradients have closed forms."""

    def __init__(self, features: int, num_classes: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(num_classes, features, generator=generator))
        self.bias = nn.Parameter(torch.randn(num_classes, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, K)."""
        return x.flatten(1) @ self.weight.T + self.bias


class FixedPredictor(Predictor):
    """Answers with given scores, whatever the images; rows are asked in the pool's order."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__(nn.Identity())
        self.answers, self.asked = scores, 0

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the next rows of the answers, from the first again after the last."""
        rows = torch.arange(self.asked, self.asked + len(x)) % len(self.answers)
        self.asked += len(x)
        return self.answers[rows]


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images that are classified right."""
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


def random_images(count: int, *, side: int = 8, num_classes: int = 10) -> LabelledImages:
    """Return grey noise with labels in turn."""
    generator = torch.Generator().manual_seed(count)
    return LabelledImages(
        pixels=torch.randint(256, (count, 1, side, side), generator=generator, dtype=torch.uint8),
        labels=torch.arange(count) % num_classes,
        scale=255,
    )


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Return whether two models hold the same tensors, bit for bit."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def all_finite(values: Iterable[float]) -> bool:
    """Return whether every number is finite."""
    return all(math.isfinite(value) for value in values)

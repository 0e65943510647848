"""A user's own defenses that fit something when they are deployed."""

from dataclasses import dataclass

from torch import nn

from trainables.defenses import Defense
from trainables.defenses.defense import DefenseContext
from trainables.defenses.prediction.temperature import TemperedPredictor
from trainables.deployed.predictor import Predictor
from trainables.storage.artefacts import Artefact

HERE = "tests.results.bundle_toys"


def _brightness(ctx: DefenseContext) -> float:
    assert ctx.pools.calibration is not None
    return 1 + float(ctx.pools.calibration.images().mean())


@dataclass(frozen=True, kw_only=True)
class FitsOpenly(Defense):
    """Divide the scores by what it fits through the context."""

    name = f"{HERE}:FitsOpenly"
    slot = "deployment"

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        fitted = ctx.fitted("brightness", lambda: Artefact(values={"T": _brightness(ctx)}))
        return TemperedPredictor(predictor, fitted.values["T"])


@dataclass(frozen=True, kw_only=True)
class FitsSecretly(Defense):
    """Divide the scores by what it fits behind the context's back."""

    name = f"{HERE}:FitsSecretly"
    slot = "deployment"

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        return TemperedPredictor(predictor, _brightness(ctx))


@dataclass(frozen=True, kw_only=True)
class TrainsSecretly(Defense):
    """Take an artefact from the store behind the context's back."""

    name = f"{HERE}:TrainsSecretly"
    slot = "deployment"

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        found = ctx.cached("toy", {"of": "toy"}, lambda: Artefact(values={"T": 2.0}))
        return TemperedPredictor(predictor, found.values["T"])


def tiny(
    *,
    channels: int,
    height: int,
    width: int,
    num_classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> nn.Module:
    """Build a user's own linear network."""
    del mean, std
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes))

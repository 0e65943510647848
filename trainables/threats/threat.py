"""What every threat is: frozen parameters and a way to measure a deployed model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from trainables.datasets import Dataset
from trainables.deployed.predictor import Predictor
from trainables.device import full_precision
from trainables.errors import InputError
from trainables.parameters import check_parameters, plain_parameters
from trainables.records.value import MetricValue
from trainables.trial.context import TrialContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a measurement found."""

    metrics: dict[str, MetricValue]
    notes: dict[str, Any] = field(default_factory=dict)
    """What it reports besides its numbers: points, steps, draws, which attack broke what."""
    outcomes: Mapping[str, Tensor] = field(default_factory=dict)
    """Metric -> (N,) bool, on which of its fixed points the model did well; an audit keeps them."""


@dataclass(frozen=True, kw_only=True)
class Threat:
    """A way in which a deployed model can be harmed."""

    name: ClassVar[str]
    meaning: ClassVar[str]
    source: ClassVar[str] = ""
    VERSION: ClassVar[int] = 1
    """Raised when the results of the measurement change."""
    repeatable: ClassVar[bool] = True
    """Whether a second measurement yields the same numbers; times do not."""

    def __post_init__(self) -> None:
        check_parameters(self, self.name)

    def check(self, dataset: Dataset) -> None:
        """Raise InputError where the parameters name what the data set does not have at all.

        It is asked before anything is trained. What depends on the rows that a trial is given is
        not refused: `_measure` raises InputError, and the threat's metrics are missing with its
        words while the rest of the trial is measured.
        """

    def foreseen(self, ctx: TrialContext) -> str:
        """Return in words what of it the rows of a trial will not allow; empty where nothing is
        known.
        """
        del ctx
        return ""

    def on_given_weights(self, *, members_known: bool) -> str:
        """Return why it is not measured of a model whose weights are given; empty where it is.

        `members_known` says whether the training pool is what they were trained on.
        """
        del members_known
        return ""

    def measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Measure the predictor at the context's effort, in float32 whatever stands around.

        torch's global generators are seeded meanwhile: a user's network may draw from them even in
        eval mode, and its figures are to repeat. Raises InputError for what the trial does not
        allow.
        """
        if ctx.spec.model.weights:
            reason = self.on_given_weights(members_known=ctx.members_known)
            if reason:
                raise InputError(f"{self.name}: {reason}")
        with full_precision(ctx.device), ctx.seeded(self.name):
            return self._measure(predictor, ctx)

    def _measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Measure the predictor; every threat has its own way."""
        raise NotImplementedError

    def metric_names(self) -> tuple[str, ...]:
        """List the metrics that it measures, so that objectives can be checked beforehand."""
        raise NotImplementedError

    def canonical(self) -> dict[str, Any]:
        """Return name and parameters as plain JSON values."""
        return {"name": self.name, **plain_parameters(self)}

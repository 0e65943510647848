"""Whoever decides a draw: an Optuna trial, or chance."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from search_spaces.domains import Range, Scalar


class StudyChooser:
    """Let an Optuna trial decide: its suggest_* calls under the names of the draw."""

    def __init__(self, trial: Any) -> None:
        self.trial = trial

    def choose(self, name: str, options: Sequence[Scalar]) -> Scalar:
        """Suggest one of the options."""
        picked: Scalar = self.trial.suggest_categorical(name, list(options))
        return picked

    def number(self, name: str, span: Range) -> float | int:
        """Suggest a number of the range."""
        suggest: Callable[..., float | int] = (
            self.trial.suggest_int if span.integer else self.trial.suggest_float
        )
        return suggest(name, span.low, span.high, log=span.log)


class RandomChooser:
    """Let chance decide: every option and every number of a range is equally likely."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def choose(self, name: str, options: Sequence[Scalar]) -> Scalar:
        """Draw one of the options."""
        del name
        return options[int(self.generator.integers(len(options)))]

    def number(self, name: str, span: Range) -> float | int:
        """Draw a number of the range; with log, evenly in its logarithm."""
        del name
        if span.integer and not span.log:
            return int(self.generator.integers(int(span.low), int(span.high) + 1))
        low, high = (span.low - 0.5, span.high + 0.5) if span.integer else (span.low, span.high)
        if span.log:
            drawn = math.exp(self.generator.uniform(math.log(low), math.log(high)))
        else:
            drawn = float(self.generator.uniform(low, high))
        number = min(max(drawn, span.low), span.high)
        return round(number) if span.integer else number

"""A sampler between the study and another one, that proposes nothing which would be cut."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from orchestrator.search.distributions import distribution_of, space_distributions
from orchestrator.search.stacks import draw_size, draw_stack, filled_slots, without
from search_spaces import Space
from search_spaces.domains import Flat, Range, Scalar


class Sized(BaseSampler):
    """Ask another sampler for a whole trial, and pass on to the study what of it can run.

    A sampler that knows no slot yet is not asked: then the number of defenses is drawn first. Of
    one that proposes slots on their own (`shortened`) so many are kept as were drawn first; what is
    dropped or cut is no part of the study's trial, and so is credited with nothing.
    """

    def __init__(self, space: Space, inner: BaseSampler, seed: int, *, shortened: bool) -> None:
        self.space, self.inner, self.shortened = space, inner, shortened
        self._generator = np.random.default_rng(seed)
        self._distributions = space_distributions(space)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return everything that a trial may have: it is proposed as a whole."""
        del study, trial
        return self._distributions

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return every parameter of a trial that can run; nothing where they are fixed already."""
        del search_space
        known = self.inner.infer_relative_search_space(study, trial)
        answers = self.inner.sample_relative(study, trial, known)
        if "fixed_params" in trial.system_attrs:
            return {}
        if not any(f"slot.{slot}" in answers for slot in self.space.slots):
            return draw_stack(self.space, self._generator)
        flat = self.space.draw(_Asking(self.inner, study, trial, answers))
        return self.space.ran(self._shorter(flat) if self.shortened else flat)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Ask the other one for a parameter that a whole trial lacks, such as a fixed one of an
        older space.
        """
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Let the other one know of a trial that begins."""
        self.inner.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the other one know of a trial that has ended."""
        self.inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Draw other numbers from now on."""
        self.inner.reseed_rng()
        self._generator = np.random.default_rng()

    def _shorter(self, flat: Flat) -> Flat:
        size, slots = draw_size(self.space, self._generator), filled_slots(self.space, flat)
        dropped = self._generator.permutation(len(slots))[size:]
        return without(self.space, flat, [slots[int(place)] for place in dropped])


class _Asking:
    """A chooser that takes a sampler's answers, and asks it for what they lack."""

    def __init__(
        self,
        sampler: BaseSampler,
        study: optuna.Study,
        trial: FrozenTrial,
        answers: Mapping[str, Any],
    ) -> None:
        self.sampler, self.study, self.trial, self.answers = sampler, study, trial, answers

    def choose(self, name: str, options: Sequence[Scalar]) -> Scalar:
        """Return the sampler's choice."""
        distribution = optuna.distributions.CategoricalDistribution(list(options))
        picked: Scalar = self._answer(name, distribution)
        return picked

    def number(self, name: str, span: Range) -> float | int:
        """Return the sampler's number."""
        picked: float | int = self._answer(name, distribution_of(span))
        return picked

    def _answer(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self.answers:
            return self.answers[name]
        return self.sampler.sample_independent(self.study, self.trial, name, distribution)

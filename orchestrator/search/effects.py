"""A search by the effects of single defenses: each trial is the stack that should gain the most.

Axes: N trials, M candidates, D objectives, R draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import moocore
import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.special import expit, logit, ndtr

from orchestrator.search.distributions import space_distributions
from orchestrator.search.encoding import Encoding
from orchestrator.search.stacks import draw_stack
from orchestrator.search.surrogate import Points, Surrogate
from orchestrator.search.variations import variation
from search_spaces import Space
from search_spaces.domains import Flat

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FEWEST_TO_FIT = 10
"""Completed trials before which trials are drawn at random."""
_CANDIDATES = 96
_DRAWS = 8
_EDGE = 0.005
"""Shares are modelled in logits, from this far inside of 0 and 1 on."""
_LEAST_SPREAD = 0.05
"""Doubt of the prediction whether a constraint is kept, 0 or 1, that is left at least."""


class Effects(BaseSampler):
    """Propose the stack with the largest expected gain in hypervolume.

    A Gaussian process per objective (`Surrogate`) predicts what stacks of defenses do from the
    trials so far; another one whether a stack breaks a constraint. Candidates are random stacks,
    the number of defenses first, and variations of the trials on the front. The gain of each, over
    draws from its predictions and times its chance to keep the constraints, is what the volume
    between the front and the objectives' worst values would grow by; trials that run count as if
    they were to come out as predicted. Source: expected hypervolume improvement, Emmerich, 2005.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self.space = space
        self._generator = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)
        self._distributions = space_distributions(space)
        self._encoding = Encoding(space)
        self._flats: dict[int, Flat] = {}

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
        """Return every parameter of a trial; nothing where they are fixed already."""
        del search_space
        if "fixed_params" in trial.system_attrs:
            return {}
        completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(completed) < FEWEST_TO_FIT:
            return draw_stack(self.space, self._generator)
        others = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.FAIL))
        running = [t for t in others if t.state == TrialState.RUNNING and t.number != trial.number]
        fitted = self._fit(completed, running)
        tried = [self._flat(each) for each in (*completed, *others) if each.number != trial.number]
        candidates = self._candidates(fitted.parents, tried)
        gains = fitted.gains(self._encoding.points(candidates), self._generator)
        # Where nothing gains, such as at the end of a small space, any of them will do.
        noise = 1e-12 * self._generator.random(len(candidates))
        return candidates[int(np.argmax(gains + noise))]

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter that a whole trial lacks, such as a fixed one of an older space."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw other numbers from now on."""
        self._generator = np.random.default_rng()
        self._independent.reseed_rng()

    def _flat(self, trial: FrozenTrial) -> Flat:
        """Return what a trial of the study ran; an older journal holds what was cut as well."""
        if trial.number not in self._flats:
            drawn = {k: v for k, v in trial.params.items() if k in self._distributions}
            self._flats[trial.number] = self.space.ran(drawn)
        return self._flats[trial.number]

    def _fit(self, completed: Sequence[FrozenTrial], running: Sequence[FrozenTrial]) -> "_Fitted":
        maximized = np.array([o.direction == "maximize" for o in self.space.objectives])
        signs = np.where(maximized, -1.0, 1.0)
        values_ND = np.array([trial.values for trial in completed])
        broken_N = np.array([_is_broken(trial) for trial in completed])
        flats = [self._flat(trial) for trial in completed]
        points, parts = self._encoding.points(flats), self._encoding.parts
        scales = [_Scale.of(values_N) for values_N in values_ND.T]
        models = [
            Surrogate(points, scale.to_line(values_N), parts)
            for scale, values_N in zip(scales, values_ND.T, strict=True)
        ]
        kept_ND = values_ND[~broken_N] * signs
        front_N = moocore.is_nondominated(kept_ND) if len(kept_ND) else np.zeros(0, dtype=bool)
        kept = [flat for flat, broken in zip(flats, broken_N, strict=True) if not broken]
        fitted = _Fitted(
            scales=scales,
            models=models,
            signs=signs,
            worst=np.array([o.worst for o in self.space.objectives]) * signs,
            front=kept_ND[front_N],
            constraint=Surrogate(points, broken_N.astype(float), parts) if broken_N.any() else None,
            parents=[flat for flat, on in zip(kept, front_N, strict=True) if on],
        )
        if not running:
            return fitted
        expected_MD = fitted.expected(self._encoding.points([self._flat(t) for t in running]))
        front = np.concatenate([fitted.front, expected_MD])
        front = front[moocore.is_nondominated(front)]
        return replace(fitted, front=front)

    def _candidates(self, parents: Sequence[Flat], tried: Sequence[Flat]) -> list[Flat]:
        """Return draws that were not tried; only where there are none, some that were."""
        known = {_key(flat) for flat in tried}
        found: dict[tuple[tuple[str, Any], ...], Flat] = {}
        for number in range(_CANDIDATES):
            if parents and number % 2:
                flat = variation(self.space, parents, self._generator)
            else:
                flat = draw_stack(self.space, self._generator)
            found[_key(flat)] = flat
        return [flat for key, flat in found.items() if key not in known] or list(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """The line on which effects add up: logits of shares, and of other values themselves."""

    share: bool

    @classmethod
    def of(cls, values_N: Floats) -> "_Scale":
        """Return the scale of some values."""
        return cls(share=bool(((values_N >= 0) & (values_N <= 1)).all()))

    def to_line(self, values: Floats) -> Floats:
        """Return values on the line."""
        line: Floats = logit(np.clip(values, _EDGE, 1 - _EDGE)) if self.share else values
        return line

    def from_line(self, line: Floats) -> Floats:
        """Return the values of places on the line."""
        values: Floats = expit(line) if self.share else line
        return values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fitted:
    """What the trials so far say. Losses: less is better."""

    scales: list[_Scale]
    models: list[Surrogate]
    signs: Floats
    worst: Floats
    """(D,) losses that hypervolumes reach to."""
    front: Floats
    """(F, D) losses."""
    constraint: Surrogate | None
    """Of 1 where a constraint is broken, else 0; None where none ever was."""
    parents: list[Flat]

    def expected(self, points: Points) -> Floats:
        """Return the losses (M, D) that are expected."""
        lines = [model.predict(points)[0] for model in self.models]
        values = [scale.from_line(line) for scale, line in zip(self.scales, lines, strict=True)]
        return np.stack(values, axis=1) * self.signs

    def gains(self, points: Points, generator: np.random.Generator) -> Floats:
        """Return by how much each candidate (M,) is expected to raise the hypervolume."""
        drawn = []
        for scale, model in zip(self.scales, self.models, strict=True):
            mean, spread = model.predict(points)
            # The same luck for all candidates: they are compared, not measured.
            luck_R1 = generator.standard_normal((_DRAWS, 1))
            drawn.append(scale.from_line(mean + spread * luck_R1))
        losses_RMD = np.stack(drawn, axis=-1) * self.signs
        before = self._volume(self.front)
        gains_M = np.zeros(len(points))
        for losses_MD in losses_RMD:
            for place in np.flatnonzero(~self._beaten(losses_MD)):
                after = self._volume(np.concatenate([self.front, losses_MD[place, None]]))
                gains_M[place] += (after - before) / _DRAWS
        return gains_M * self._chances(points)

    def _volume(self, losses: Floats) -> float:
        return float(moocore.hypervolume(losses, self.worst)) if len(losses) else 0.0

    def _beaten(self, losses_MD: Floats) -> Mask:
        """Return which losses (M,) gain nothing: the front has better, or the worst is no worse."""
        outside_M: Mask = np.any(losses_MD >= self.worst, axis=1)
        no_better_MF: Mask = np.all(self.front[None] <= losses_MD[:, None], axis=2)
        beaten: Mask = outside_M | np.any(no_better_MF, axis=1)
        return beaten

    def _chances(self, points: Points) -> Floats:
        if self.constraint is None:
            return np.ones(len(points))
        mean, spread = self.constraint.predict(points)
        chances: Floats = ndtr((0.5 - mean) / np.maximum(spread, _LEAST_SPREAD))
        return chances


def _is_broken(trial: FrozenTrial) -> bool:
    return any(violation > 0 for violation in trial.constraints.values())


def _key(flat: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(flat.items()))

"""Who proposes: the samplers of a search, and which one goes on when a sweep has grown large."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from orchestrator.search.effects import Effects
from orchestrator.search.sized import Sized
from search_spaces import Space
from search_spaces.schema import SearchSection

_GENERATIONS = 5
"""Generations of NSGA that a budget holds at least, where it is large enough."""
_POPULATION = (8, 50)
"""Fewest and most trials of a generation; Optuna's own is 50."""
MOST_FOR_TPE = 250
"""Finished trials up to which TPE and the model of effects propose: in the largest space a proposal
then takes 0.1 s."""
MODELS = ("effects", "tpe")
"""Searches by a model, which takes the longer the more there is to fit."""


def sampler_for(space: Space, finished: int) -> BaseSampler:
    """Return who proposes whole trials of a space to its study, after so many finished ones."""
    search = space.file.search
    if search.algorithm == "effects" and finished < MOST_FOR_TPE:
        return Effects(space, seed=search.seed + finished)
    inner = build_sampler(search, finished)
    # What NSGA has of its parents is as high as they are; TPE fills each slot on its own.
    shortened = isinstance(inner, TPESampler)
    return Sized(space, inner, search.seed + finished, shortened=shortened)


def successor(sampler: BaseSampler, space: Space, finished: int) -> BaseSampler:
    """Return who goes on after so many finished trials: nearly always the sampler itself."""
    if space.file.search.algorithm not in MODELS or finished < MOST_FOR_TPE:
        return sampler
    if isinstance(sampler, Sized) and isinstance(sampler.inner, Succeeding):
        return sampler
    return sampler_for(space, finished)


def build_sampler(search: SearchSection, finished: int) -> BaseSampler:
    """Return Optuna's part of a search that begins, or is resumed after so many finished trials."""
    if search.algorithm in MODELS and finished >= MOST_FOR_TPE:
        return Succeeding(seed=search.seed + finished)
    with warnings.catch_warnings():
        # Parts of the samplers are called experimental; that is for us to follow, not the user.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _sampler(search, finished)


def population(trials: int | None) -> int:
    """Return the number of trials in a generation of NSGA: a fifth of the budget, within limits.

    The first generation is drawn at random, so that Optuna's own 50 would make a sweep of 50 trials
    a random search. None: the budget is not known.
    """
    low, high = _POPULATION
    return high if trials is None else max(low, min(high, trials // _GENERATIONS))


def describe_sampler(algorithm: str, trials: int) -> str:
    """Return who proposes the trials of a sweep of this size."""
    if algorithm in ("nsga2", "nsga3"):
        return f"{algorithm}, {population(trials)} trials a generation, the first at random"
    if algorithm not in MODELS or trials <= MOST_FOR_TPE:
        return algorithm
    return (
        f"{algorithm} up to {MOST_FOR_TPE:,} finished trials, then nsga2 from the best of them on: "
        f"{algorithm} takes the longer to propose the more there are"
    )


class Succeeding(NSGAIISampler):
    """NSGA-II after another sampler: its first parents are the best of the trials so far.

    Optuna's own goes through all trials for each proposal, to find the newest generation and its
    parents; this one counts them as they end, so that a proposal costs the same after thousands.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._sizes: Counter[int] | None = None
        self._parents: dict[int, list[FrozenTrial]] = {}

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """Return the trial's generation: the newest, or one more where that has all its trials."""
        key = self._get_generation_key()
        known: int | None = trial.system_attrs.get(key)
        if known is not None:
            return known
        if self._sizes is None:
            ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            self._sizes = Counter(t.system_attrs[key] for t in ended if key in t.system_attrs)
        newest = max(self._sizes, default=0)
        assert self.population_size is not None  # NSGA-II has one
        generation = newest + int(self._sizes[newest] >= self.population_size)
        study._storage.set_trial_system_attr(trial._trial_id, key, generation)
        return generation

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Count a trial that has completed."""
        super().after_trial(study, trial, state, values)
        generation = trial.system_attrs.get(self._get_generation_key())
        if self._sizes is not None and state == TrialState.COMPLETE and generation is not None:
            self._sizes[generation] += 1

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Return a generation; the one before the first is everything that has completed."""
        if generation < 0:
            return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return super().get_population(study, generation)

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Return the parents of a generation, which are chosen once."""
        if generation < 0:
            return []
        if generation not in self._parents:
            self._parents[generation] = (
                super().get_parent_population(study, generation)
                if generation
                else self.select_parent(study, 0)
            )
        return self._parents[generation]


def _sampler(search: SearchSection, finished: int) -> BaseSampler:
    seed, size = search.seed + finished, population(search.trials)
    if search.algorithm == "nsga2":
        return NSGAIISampler(seed=seed, population_size=size)
    if search.algorithm == "nsga3":
        return NSGAIIISampler(seed=seed, population_size=size)
    return _SAMPLERS[search.algorithm](seed)


_SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    # The grid is enumerated by the space; this sampler only fills in what that leaves open.
    "grid": lambda seed: RandomSampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    # Grouping is what lets TPE learn parameters that only some stacks have.
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True, group=True),
}

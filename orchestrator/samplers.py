"""Who proposes: the samplers of a search, and which one goes on when a sweep has grown large."""

import warnings
from collections.abc import Callable, Mapping

import optuna
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from search_spaces.schema import SearchSection

MOST_FOR_TPE = 500
"""Finished trials up to which TPE proposes: in the largest space a proposal then takes 0.2 s."""


def build_sampler(search: SearchSection, finished: int) -> BaseSampler:
    """Give the sampler of a search that begins, or is resumed after so many finished trials."""
    with warnings.catch_warnings():
        # Parts of the samplers are called experimental; that is for us to follow, not the user.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return successor(_SAMPLERS[search.algorithm](search.seed + finished), search, finished)


def successor(sampler: BaseSampler, search: SearchSection, finished: int) -> BaseSampler:
    """Give who goes on after so many finished trials: nearly always the sampler itself."""
    if search.algorithm != "tpe" or finished < MOST_FOR_TPE or isinstance(sampler, Succeeding):
        return sampler
    return Succeeding(seed=search.seed + finished)


def describe_sampler(algorithm: str, trials: int) -> str:
    """Say who proposes the trials of a sweep of this size."""
    if algorithm != "tpe" or trials <= MOST_FOR_TPE:
        return algorithm
    return (
        f"tpe up to {MOST_FOR_TPE:,} finished trials, then nsga2 from the best of them on: tpe "
        "takes the longer to propose the more there are"
    )


class Succeeding(NSGAIISampler):
    """NSGA-II after another sampler: its first parents are the best of the trials so far."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._founders: list[FrozenTrial] | None = None

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Give a generation; the one before the first is everything that has completed."""
        if generation < 0:
            return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return super().get_population(study, generation)

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Give the parents of a generation, which are chosen once."""
        if generation < 0:
            return []
        if generation > 0:
            return super().get_parent_population(study, generation)
        if self._founders is None:
            self._founders = self.select_parent(study, 0)
        return self._founders


_SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    # The grid is enumerated by the space; this sampler only fills in what that leaves open.
    "grid": lambda seed: RandomSampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    # Grouping is what lets TPE learn parameters that only some stacks have.
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True, group=True),
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
    "nsga3": lambda seed: NSGAIIISampler(seed=seed),
}

"""The sampler that takes over in a large sweep against Optuna's own."""

import optuna
import pytest
from optuna.samplers import NSGAIISampler
from optuna.trial import FrozenTrial, TrialState

from orchestrator.search.samplers import (
    Succeeding,
    build_sampler,
    describe_sampler,
    population,
)
from search_spaces.schema import SearchSection


class Compared(Succeeding):
    """Asks Optuna's own for each generation and each generation's parents too."""

    compared = 0

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        expected = NSGAIISampler.get_trial_generation(self, study, trial)
        assert super().get_trial_generation(study, trial) == expected
        self.compared += 1
        return expected

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        found = super().get_parent_population(study, generation)
        if generation > 0:
            expected = NSGAIISampler.get_parent_population(self, study, generation)
            assert {t.number for t in found} == {t.number for t in expected}
        return found


def run(study: optuna.Study, count: int, at_once: int = 3) -> None:
    """Ask and tell so many trials, a few of them at a time; every seventh fails."""
    waiting: list[optuna.Trial] = []
    for _ in range(count):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.suggest_categorical("kind", ["a", "b"])
        waiting.append(trial)
        if len(waiting) == at_once:
            tell(study, waiting.pop(0))
    for trial in waiting:
        tell(study, trial)


def tell(study: optuna.Study, trial: optuna.Trial) -> None:
    if trial.number % 7 == 3:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, [trial.params["x"], 1 - trial.params["x"] ** 2])


@pytest.mark.parametrize("before", [0, 60])
def test_its_generations_and_parents_are_those_that_optuna_finds(before: int) -> None:
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    run(study, before)
    study.sampler = sampler = Compared(seed=1)
    run(study, 230)
    study.sampler = resumed = Compared(seed=2)
    run(study, 70)
    assert sampler.compared >= 230 and resumed.compared >= 70
    key = sampler._get_generation_key()
    generations = [t.system_attrs[key] for t in study.get_trials() if key in t.system_attrs]
    assert max(generations) >= 4


@pytest.mark.parametrize(
    ("trials", "expected"), [(1, 8), (40, 8), (42, 8), (100, 20), (250, 50), (5000, 50), (None, 50)]
)
def test_a_budget_holds_five_generations(trials: int | None, expected: int) -> None:
    assert population(trials) == expected


@pytest.mark.parametrize("algorithm", ["nsga2", "nsga3"])
def test_nsga_begins_to_choose_parents_early_in_a_small_budget(algorithm: str) -> None:
    """With Optuna's own population all 42 trials of `full` were drawn at random."""
    search = SearchSection.model_validate({"algorithm": algorithm, "trials": 42})
    sampler = build_sampler(search, 0)
    assert isinstance(sampler, NSGAIISampler) or algorithm == "nsga3"
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    run(study, 42)
    key = "NSGAIISampler:generation" if algorithm == "nsga2" else "NSGAIIISampler:generation"
    assert max(t.system_attrs.get(key, 0) for t in study.get_trials()) >= 3
    assert describe_sampler(algorithm, 42) == (
        f"{algorithm}, 8 trials a generation, the first at random"
    )

"""Draws of whole trials: sizes come first, nothing is cut, and the study knows what ran."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.search.distributions import space_distributions
from orchestrator.search.proposals import Proposal, Proposals
from orchestrator.search.stacks import draw_stack, filled_slots, sizes, without
from orchestrator.search.variations import variation
from search_spaces import Space, load_space
from search_spaces.schema import NONE
from tests.orchestrator.search.test_proposals import make, record_of
from tests.search_spaces.writing import write_space
from trainables.records.record import TrialRecord
from trainables.records.value import Measured

TWO_CERTIFICATES = {
    "pixeldp": {"attack_bound": [0.1, 0.3]},
    "randomized_smoothing": {"sigma": {"low": 0.1, "high": 1.0}},
    "label_smoothing": {"alpha": {"low": 0.01, "high": 0.3}},
}


@pytest.fixture(scope="module")
def full() -> Space:
    return load_space("full")


def test_every_number_of_defenses_is_drawn_as_often(full: Space) -> None:
    generator = np.random.default_rng(0)
    heights = Counter(len(filled_slots(full, draw_stack(full, generator))) for _ in range(400))
    assert list(sizes(full)) == [1, 2, 3, 4, 5]
    assert set(heights) == set(sizes(full))
    # Some stacks cannot be filled up to their size, as where two defenses own the training.
    assert (heights[1] + heights[2]) / 400 == pytest.approx(0.4, abs=0.1)


def test_a_space_that_does_not_try_the_undefended_model_first_draws_it(tmp_path: Path) -> None:
    assert list(sizes(load_space(str(write_space(tmp_path))))) == [0, 1, 2]
    tried = load_space(str(write_space(tmp_path, first=[{}])))
    assert list(sizes(tried)) == [1, 2]
    bare = load_space(str(write_space(tmp_path, first=[{}], max_stack=0)))
    assert list(sizes(bare)) == [0]
    assert draw_stack(bare, np.random.default_rng(0))["slot.labels"] == NONE


def test_nothing_that_is_drawn_or_varied_is_cut(full: Space) -> None:
    generator = np.random.default_rng(1)
    drawn = [draw_stack(full, generator) for _ in range(60)]
    varied = [variation(full, drawn, generator) for _ in range(60)]
    names = space_distributions(full)
    for flat in (*drawn, *varied):
        assert full.ran(flat) == flat
        assert len(full.spec(flat).stack) == len(filled_slots(full, flat)) <= 5
        assert all(names[name]._contains(names[name].to_internal_repr(flat[name])) for name in flat)
    assert any(flat not in drawn for flat in varied)


def test_what_is_cut_is_no_part_of_what_ran(tmp_path: Path) -> None:
    space = load_space(str(write_space(tmp_path, defenses=TWO_CERTIFICATES, max_stack=3)))
    both = {
        "slot.labels": "label_smoothing", "label_smoothing.alpha": 0.1,
        "slot.architecture": "pixeldp", "pixeldp.attack_bound": 0.1,
        "slot.deployment": "randomized_smoothing", "randomized_smoothing.sigma": 0.5,
    }  # fmt: skip
    ran = space.ran(both)
    assert space.spec(ran).trial == space.spec(both).trial
    assert [d.name for d in space.spec(both).stack] == [
        ran[f"slot.{slot}"] for slot in filled_slots(space, ran)
    ]
    assert len(filled_slots(space, ran)) == 2 and len(ran) == 5
    assert space.ran(ran) == ran
    emptied = without(space, ran, filled_slots(space, ran))
    assert set(emptied.values()) == {NONE} and len(emptied) == 3


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2", "effects"])
def test_the_study_knows_of_each_trial_what_ran_of_it(
    algorithm: str, full: Space, tmp_path: Path
) -> None:
    search = full.file.search.model_copy(update={"algorithm": algorithm})
    space = replace(full, file=full.file.model_copy(update={"search": search}))
    proposals = Proposals(space, tmp_path / "journal", {}, trials=46)
    heights, generator = [], np.random.default_rng(0)
    for number in range(46):
        proposal = proposals.next()
        assert isinstance(proposal, Proposal)
        asked = proposals.live[proposal.spec.trial][0]
        assert asked.params == proposal.flat == full.ran(proposal.flat)
        if number >= len(full.file.first):
            heights.append(len(proposal.spec.stack))
        proposals.finish(_measured(proposal, generator))
    assert min(heights) <= 2
    # Slot by slot at most 6 % of the stacks had at most two defenses.
    least = {"random": 0.15, "tpe": 0.15, "nsga2": 0.0, "effects": 0.0}[algorithm]
    assert np.mean(np.array(heights) <= 2) > least


def _measured(proposal: Proposal, generator: np.random.Generator) -> TrialRecord:
    names = ("clean_accuracy", "robust_accuracy", "backdoor_success_rate", "membership_auc")
    values = [Measured(float(v), 0.0, 1.0, 100) for v in generator.random(4)]
    return replace(record_of(proposal), metrics=dict(zip(names, values, strict=True)))


def test_a_trial_of_an_older_record_is_told_as_what_ran_of_it(tmp_path: Path) -> None:
    space = load_space(str(write_space(tmp_path, max_stack=1)))
    drawn = {
        "slot.labels": "label_smoothing", "label_smoothing.alpha": 0.1,
        "slot.deployment": "temperature", "temperature.T": 2,
    }  # fmt: skip
    record = record_of(Proposal(drawn, space.spec(drawn)))
    (trial,) = make(space, tmp_path, [record]).study.get_trials()
    assert trial.state == TrialState.COMPLETE
    assert trial.params == space.ran(drawn) and len(trial.params) == 3


def test_an_older_study_that_was_told_what_was_cut_goes_on(tmp_path: Path) -> None:
    path = write_space(tmp_path, max_stack=1, search={"algorithm": "effects", "trials": 20})
    space = load_space(str(path))
    study = make(space, tmp_path, trials=20).study
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    records = []
    for _ in range(12):  # as before: slot by slot
        asked = study.ask()
        flat = space.suggest(asked)
        record = record_of(Proposal(flat, space.spec(flat)))
        asked.set_user_attr("trial", record.trial)
        study.tell(asked, [0.5, 0.5])
        records.append(record)
    resumed = make(space, tmp_path, records, trials=20)
    proposal = resumed.next()
    assert isinstance(proposal, Proposal)
    assert space.ran(proposal.flat) == proposal.flat

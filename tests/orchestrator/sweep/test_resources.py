import pytest

from orchestrator.sweep.resources import (
    AUTO,
    FEWEST_WAITING,
    MOST_ON_A_GPU,
    Machine,
    trial_resources,
)
from trainables.errors import InputError

BOX = Machine(cpus=8, gpus=2)


@pytest.mark.parametrize(
    ("cpus", "gpus", "concurrent"),
    [(1, 0, 8), (2, 0, 4), (0.5, 0, 16), (1, 0.5, 4), (1, 2, 1), (3, 1, 2), (8, None, 1)],
)
def test_as_many_trials_run_as_fit(cpus: float, gpus: float | None, concurrent: int) -> None:
    settled = trial_resources(BOX, cpus=cpus, gpus=gpus, max_concurrent=None)
    assert settled.concurrent == concurrent


def test_a_trial_takes_a_gpu_where_there_is_one_and_nothing_was_said() -> None:
    assert trial_resources(BOX, cpus=1, gpus=None, max_concurrent=None).gpus == 1
    plain = Machine(cpus=2, gpus=0)
    assert trial_resources(plain, cpus=1, gpus=None, max_concurrent=None).gpus == 0


@pytest.mark.parametrize(("cpus", "threads"), [(0.25, 1), (1, 1), (1.9, 1), (4, 4)])
def test_torch_gets_a_thread_for_each_whole_cpu(cpus: float, threads: int) -> None:
    assert trial_resources(BOX, cpus=cpus, gpus=0, max_concurrent=None).threads == threads


@pytest.mark.parametrize(
    ("cpus", "gpus"), [(0, 0), (-1, 0), (float("nan"), 0), (1, 1.5), (1, -0.5), (9, 0), (1, 3)]
)
def test_what_cannot_be_given_is_refused(cpus: float, gpus: float) -> None:
    with pytest.raises(InputError, match="per-trial"):
        trial_resources(BOX, cpus=cpus, gpus=gpus, max_concurrent=None)


def test_measured_shares_let_many_on_a_gpu() -> None:
    settled = trial_resources(Machine(cpus=64, gpus=2), cpus=1, gpus=AUTO, max_concurrent=None)
    assert settled.auto and settled.gpus == 1
    assert settled.concurrent == 2 * MOST_ON_A_GPU
    few_cpus = trial_resources(Machine(cpus=4, gpus=2), cpus=1, gpus=AUTO, max_concurrent=None)
    assert few_cpus.concurrent == 4


def test_there_is_nothing_to_measure_where_there_is_no_gpu() -> None:
    settled = trial_resources(Machine(cpus=2, gpus=0), cpus=1, gpus=AUTO, max_concurrent=None)
    assert not settled.auto and settled.gpus == 0
    growing = Machine(cpus=0, gpus=0, grows=True)
    assert trial_resources(growing, cpus=1, gpus=AUTO, max_concurrent=None).auto


def test_enough_trials_wait_for_a_cluster_to_grow_where_nothing_was_said() -> None:
    growing = Machine(cpus=0, gpus=0, grows=True)
    settled = trial_resources(growing, cpus=1, gpus=1, max_concurrent=None)
    assert settled.concurrent == FEWEST_WAITING
    large = Machine(cpus=200, gpus=100, grows=True)
    assert trial_resources(large, cpus=1, gpus=1, max_concurrent=None).concurrent == 100


def test_a_cluster_that_grows_is_only_asked_for_what_could_be() -> None:
    growing = Machine(cpus=0, gpus=0, grows=True)
    assert trial_resources(growing, cpus=4, gpus=1, max_concurrent=8).concurrent == 8
    with pytest.raises(InputError, match="whole number"):
        trial_resources(growing, cpus=4, gpus=1.5, max_concurrent=8)

"""trainables.tune.trainable under a plain tune.Tuner."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from search_spaces import load_space
from tests.search_spaces.writing import write_space
from trainables.errors import StorageError
from trainables.records.record import TrialRecord
from trainables.tune import ActorLease, trainable

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("local_ray")
def test_a_space_runs_under_a_plain_tuner(tmp_path: Path) -> None:
    space = load_space(str(write_space(tmp_path)))
    grid = tune.Tuner(
        trainable(space, run=tmp_path / "run"),
        param_space={
            "slot.labels": tune.grid_search(["none", "label_smoothing"]),
            "label_smoothing.alpha": 0.1,
        },
        tune_config=tune.TuneConfig(metric="clean_accuracy", mode="max", reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    assert len(grid) == 2 and not grid.errors
    best = grid.get_best_result()
    assert best.metrics is not None
    record = TrialRecord.from_json(
        (tmp_path / "run" / "records" / f"{best.metrics['trial']}.json").read_text()
    )
    assert record.status == "completed"


@pytest.mark.usefixtures("local_ray")
def test_a_space_draws_for_rays_own_optuna_search(tmp_path: Path) -> None:
    space = load_space(str(write_space(tmp_path)))
    search = OptunaSearch(
        space.suggest,
        metric=[objective.metric for objective in space.objectives],
        mode=["max" if o.direction == "maximize" else "min" for o in space.objectives],
    )
    grid = tune.Tuner(
        trainable(space, run=tmp_path / "run"),
        tune_config=tune.TuneConfig(search_alg=search, num_samples=3, max_concurrent_trials=2),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    assert len(grid) == 3 and not grid.errors


@pytest.mark.usefixtures("local_ray")
def test_a_failed_trial_is_an_error_of_a_plain_tuner(tmp_path: Path) -> None:
    training = {"epochs": 5, "learning_rate": 100.0, "batch_size": 10, "schedule": "constant"}
    scenarios = [{"dataset": "digits", "training": training}]
    space = load_space(str(write_space(tmp_path, scenarios=scenarios)))
    grid = tune.Tuner(
        trainable(space, run=tmp_path / "run"),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    assert "TrainingDivergedError" in str(grid.errors[0])
    assert len(list((tmp_path / "run" / "records").iterdir())) == 1


@pytest.mark.usefixtures("local_ray")
def test_an_actor_lease_has_one_holder_at_a_time() -> None:
    first, second = ActorLease("a run"), ActorLease("a run")
    assert first.acquire("key", "one")
    assert not second.acquire("key", "two")
    second.release("key", "two")  # not its own
    assert not second.acquire("key", "two")
    first.release("key", "one")
    assert second.acquire("key", "two")


@pytest.mark.usefixtures("local_ray")
def test_a_lease_outlives_the_worker_that_keeps_it() -> None:
    lease = ActorLease("a run whose claims die")
    assert lease.acquire("key", "one")
    for _ in range(3):
        ray.kill(lease.claims, no_restart=False)
        assert lease.acquire("key", "one")  # asked anew, of an actor that Ray starts anew
        lease.release("key", "one")
    ray.kill(lease.claims, no_restart=True)
    with pytest.raises(StorageError, match="claims on artefacts cannot be reached"):
        lease.acquire("key", "one")

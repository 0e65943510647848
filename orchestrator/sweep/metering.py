"""What is passed to Tune so that GPU hours are counted and no trial starts when they are spent."""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from orchestrator.search.gpu_hours import GpuHours
from orchestrator.sweep.stateless import Stateless
from trainables.tune import GPUS_KEY


class Meter(Stateless, tune.Callback):
    """Count each trial from the moment that it gets its GPUs."""

    def __init__(self, hours: GpuHours) -> None:
        self.hours = hours

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Begin to count."""
        del iteration, trials, info
        self.hours.start(trial.trial_id, trial.config[GPUS_KEY])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Cease to count."""
        del iteration, trials, info
        self.hours.end(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Cease to count."""
        del iteration, trials, info
        self.hours.end(trial.trial_id)


class UntilSpent(Stateless, FIFOScheduler):
    """First in, first out, until the GPU hours are spent: then what still waits is called off."""

    def __init__(self, hours: GpuHours) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.hours = hours

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the next waiting trial, or call all of them off."""
        if self.hours.why_end() is None:
            return super().choose_trial_to_run(tune_controller)
        for trial in list(tune_controller.get_live_trials()):
            if trial.status == Trial.PENDING:
                tune_controller.stop_trial(trial)
        return None

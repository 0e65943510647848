"""What costs a trial one of its tries: a worker that dies does, a node that goes does not."""

import logging
from pathlib import Path
from typing import Any

from ray import tune

from orchestrator.sweep.stateless import Stateless

logger = logging.getLogger(__name__)

WORKER_FAILURES = 2
"""How often a trial is run again whose worker died; its own errors are never retried."""
NODE_FAILURES = 20
"""How often more, where its node went: spot nodes do, through no fault of the trial's."""
NEW_STARTS = 1
"""How often more from the start, where Tune gave up on a trial: it does so too early where a
worker's death fails two of its calls, since it mistakes the second for the failure of a trial that
waits."""
_NODE_DIED = "because its node has died"
"""What Ray says of a worker whose node is gone, by SIGTERM, by SIGKILL or unheard of for long."""


_STORAGE = "StorageError: "


class Retries(Stateless, tune.Callback):
    """Restores to a trial the try that the loss of its node cost, and says so."""

    def __init__(self) -> None:
        self.storage: dict[str, str] = {}
        """Tune's name of a trial -> what its storage said, where that ended its last try."""

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Look at why a trial runs again."""
        del iteration, trials, info
        failure = _last_failure(Path(trial.error_file))
        lost = _NODE_DIED in failure
        if lost and trial.max_failures < WORKER_FAILURES + NODE_FAILURES:
            trial.max_failures += 1
        what = "its node" if lost else "its worker or its storage"
        cause = (failure.strip().splitlines() or ["no reason was given"])[-1]
        if _STORAGE in cause:
            self.storage[trial.trial_id] = cause.rpartition(_STORAGE)[2]
        else:
            self.storage.pop(trial.trial_id, None)
        logger.warning("a trial lost %s and runs again (%s): %s", what, trial.trial_id, cause)


def _last_failure(file: Path) -> str:
    return file.read_text().rpartition("Failure # ")[2]

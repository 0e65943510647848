"""What costs a trial one of its tries: a worker that dies does, a node that goes does not."""

import logging
from pathlib import Path
from typing import Any

from ray import tune

logger = logging.getLogger(__name__)

WORKER_FAILURES = 2
"""How often a trial is run again whose worker died; its own errors are never retried."""
NODE_FAILURES = 20
"""How often more, where its node went: spot nodes do, through no fault of the trial's."""
NEW_STARTS = 1
"""How often more from anew, where Tune gave a trial up: it does so too early where a worker's death
fails two of its calls, since it takes the second for the failure of a trial that waits."""
_NODE_DIED = "because its node has died"
"""What Ray says of a worker whose node is gone, by SIGTERM, by SIGKILL or unheard of for long."""


class Retries(tune.Callback):
    """Gives a trial back the try that the loss of its node cost, and says so."""

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Look at why a trial runs again."""
        del iteration, trials, info
        lost = _NODE_DIED in _last_failure(Path(trial.error_file))
        if lost and trial.max_failures < WORKER_FAILURES + NODE_FAILURES:
            trial.max_failures += 1
        what = "its node" if lost else "its worker"
        logger.warning("a trial lost %s and runs again (%s)", what, trial.trial_id)


def _last_failure(file: Path) -> str:
    return file.read_text().rpartition("Failure # ")[2]

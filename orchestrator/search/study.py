"""The Optuna study of a run: its journal, what it is told of a record, how the two are reconciled.

Records are the truth; the study in the journal is brought in line with them when it is opened.
"""

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import TrialState

from orchestrator.search.distributions import space_distributions
from orchestrator.search.samplers import sampler_for
from search_spaces import Space
from search_spaces.objectives import Objective
from trainables.errors import StorageError
from trainables.records.record import TrialRecord
from trainables.records.value import Measured

logger = logging.getLogger(__name__)

TRIAL = "trial"
"""User attribute of a study's trial: the identity of the spec that it stands for."""


class Measures(Protocol):
    """What says by which objectives trials are compared."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives in order."""


def objective_values(space: Measures, record: TrialRecord) -> list[float] | None:
    """Return the objectives of a completed trial, or None where one is not a finite number."""
    if record.status != "completed":
        return None
    metrics = [record.metrics.get(objective.metric) for objective in space.objectives]
    values = [metric.value for metric in metrics if isinstance(metric, Measured)]
    finite = len(values) == len(space.objectives) and all(map(math.isfinite, values))
    return values if finite else None


def violations(space: Space, record: TrialRecord) -> list[float]:
    """Return by how much each constraint is broken; one that was not measured counts as broken.

    Where attacks run, that nothing speaks for masked gradients is a constraint of its own: else the
    search would run after numbers that are not to be believed.
    """
    found = [float(record.is_struck_off)] if "evasion" in space.file.threats else []
    for constraint in space.constraints:
        value = record.metrics.get(constraint.metric)
        found.append(constraint.violation(value.value) if isinstance(value, Measured) else 1.0)
    return found


class Journal(JournalFileBackend):
    """A study's journal, written without waiting for the disk after each of a trial's many lines.

    What a crash of the machine may tear is set aside and reported again from the records.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, JournalFileSymlinkLock(str(path))
        super().__init__(str(path), lock_obj=self.lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations, a line each; others may read and write at the same time.

        Raises StorageError where they cannot be written, as on a full disk.
        """
        text = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs)
        try:
            self.lock.acquire()
            try:
                with self.path.open("ab") as file:
                    file.write(text.encode())
            finally:
                self.lock.release()
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"{self.path} cannot be written: {reason}") from error


def open_study(space: Space, journal: Path, resumed: int) -> optuna.Study:
    """Open the study in its journal; a journal that cannot be read is set aside."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The caller holds the run, so a lock that is still there belongs to a driver that died.
    Path(f"{journal}.lock").unlink(missing_ok=True)
    _cut_torn_line(journal)
    try:
        return _create(space, Journal(journal), resumed)
    except (KeyError, IndexError, TypeError, ValueError, AssertionError) as error:
        aside = journal.with_name(f"{journal.name}.unreadable-{int(time.time())}")
        logger.warning("%s cannot be read (%s); rebuilt from the records", journal, error)
        journal.rename(aside)
        return _create(space, Journal(journal), resumed)


def _cut_torn_line(journal: Path) -> None:
    """Cut off a last line that a driver had no time to end: the next would be glued to it."""
    if not journal.exists():
        return
    with journal.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            logger.warning("%s ends within a line, which is cut off", journal)
            file.truncate(whole)


def reconcile(study: optuna.Study, space: Space, records: Mapping[str, TrialRecord]) -> None:
    """Bring a study in line with the records: what ran is reported, what died is failed, what is
    missing is added."""
    reported, known = set(), space_distributions(space)
    for frozen in study.get_trials(deepcopy=False):
        identity = frozen.user_attrs.get(TRIAL)
        if frozen.state == TrialState.RUNNING:
            study.tell(frozen.number, state=TrialState.FAIL)
        elif frozen.state == TrialState.COMPLETE:
            reported.add(identity)
    for identity, record in records.items():
        values = objective_values(space, record)
        if identity in reported or values is None or not record.sampled:
            continue
        params = space.ran(record.sampled)  # older records hold what was cut as well
        study.add_trial(
            optuna.create_trial(
                params=params,
                distributions={name: known[name] for name in params},
                values=values,
                user_attrs={TRIAL: identity},
                constraints={f"constraint{i}": v for i, v in enumerate(violations(space, record))},
            )
        )


def _create(space: Space, backend: Journal, resumed: int) -> optuna.Study:
    return optuna.create_study(
        study_name=space.name,
        storage=JournalStorage(backend),
        sampler=sampler_for(space, resumed),
        directions=[objective.direction for objective in space.objectives],
        load_if_exists=True,
    )

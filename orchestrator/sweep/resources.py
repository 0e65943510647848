"""What a trial may use, checked before anything starts."""

import logging
import math
import os
from dataclasses import dataclass
from typing import Literal, Protocol

from trainables.errors import InputError

logger = logging.getLogger(__name__)

AUTO: Literal["auto"] = "auto"
Gpus = float | Literal["auto"]
"""GPUs of a trial: a share of one, a whole number, or measured."""
MOST_ON_A_GPU = 8
"""Trials that share a GPU where their share is measured."""
FEWEST_WAITING = 16
"""Trials at once on a cluster: those that wait for a place are what makes it grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is to run on."""

    cpus: float
    gpus: float
    grows: bool = False
    """Whether more may come: an autoscaling cluster counts what runs now, not what could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResources:
    """What each trial gets, and how many run at once."""

    cpus: float
    gpus: float
    concurrent: int
    auto: bool = False
    """Whether a trial's share of a GPU is measured; `gpus` is then what the first one gets."""

    @property
    def described(self) -> str:
        """Describe in words what each trial gets."""
        if self.auto:
            return f"{self.cpus:g} CPUs and as much of a GPU as the first one needs each"
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs each"

    @property
    def threads(self) -> int:
        """CPU threads of torch in a trial: one for each whole CPU asked for, and at least one."""
        return max(1, int(self.cpus))


class Declared(Protocol):
    """What a space assigns to each trial."""

    @property
    def cpus_per_trial(self) -> float: ...
    @property
    def gpus_per_trial(self) -> Gpus | None: ...


class Asked(Protocol):
    """What the command line assigns to each trial; None: what the space does."""

    @property
    def cpus_per_trial(self) -> float | None: ...
    @property
    def gpus_per_trial(self) -> Gpus | None: ...
    @property
    def max_concurrent(self) -> int | None: ...


def machine_for(address: str | None) -> Machine:
    """Return what there is to run on: this machine, or a cluster that is yet to be joined.

    Warns of GPUs here that torch cannot use.
    """
    if address is not None:
        return Machine(cpus=0, gpus=0, grows=True)
    from trainables.device import why_unusable

    if (reason := why_unusable()) is not None:
        logger.warning("the GPUs here cannot be used, so trials run on CPUs: %s", reason)
    return this_machine()


def this_machine() -> Machine:
    """Count the CPUs that this process may use and the GPUs that torch can compute on."""
    from trainables.device import accelerator_count

    return Machine(cpus=len(os.sched_getaffinity(0)), gpus=accelerator_count())


def asked_resources(asked: Asked, declared: Declared, machine: Machine) -> TrialResources:
    """Settle what each trial gets: what was asked for, or else what its space declares.

    Raises InputError for what Ray cannot provide.
    """
    cpus, gpus = asked.cpus_per_trial, asked.gpus_per_trial
    return trial_resources(
        machine,
        cpus=declared.cpus_per_trial if cpus is None else cpus,
        gpus=declared.gpus_per_trial if gpus is None else gpus,
        max_concurrent=asked.max_concurrent,
    )


def trial_resources(
    machine: Machine, *, cpus: float, gpus: Gpus | None, max_concurrent: int | None
) -> TrialResources:
    """Settle what each trial gets.

    Raises InputError for what Ray cannot provide: fractions above one GPU, or more than there is.
    """
    auto = gpus == AUTO and (machine.gpus > 0 or machine.grows)
    if gpus == AUTO:
        gpus = 1.0 if auto else 0.0
    assert not isinstance(gpus, str)  # it has been read
    if not 0 < cpus < math.inf:  # NaN is refused here too
        raise InputError(f"--cpus-per-trial must be above 0, but got {cpus:g}")
    if gpus is None:
        gpus = 1.0 if machine.gpus else 0.0
    if not 0 <= gpus < math.inf or (gpus > 1 and gpus != int(gpus)):
        raise InputError(
            f"--gpus-per-trial must be a share of one GPU or a whole number, but got {gpus:g}"
        )
    if not machine.grows:
        _check_there_is("cpus", cpus, machine.cpus)
        _check_there_is("gpus", gpus, machine.gpus)
    on_a_gpu = MOST_ON_A_GPU if auto else 1
    fitting = [int(machine.cpus / cpus), *([int(machine.gpus / gpus) * on_a_gpu] if gpus else [])]
    least = FEWEST_WAITING if machine.grows else 1
    concurrent = max_concurrent or max(least, min(fitting))
    return TrialResources(cpus=cpus, gpus=gpus, concurrent=concurrent, auto=auto)


def _check_there_is(what: str, asked: float, there: float) -> None:
    if asked > there:
        raise InputError(
            f"--{what}-per-trial {asked:g}: there are only {there:g} {what.upper()[:-1]}s here"
        )

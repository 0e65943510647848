"""What a trial may use, checked before anything starts."""

import math
import os
from dataclasses import dataclass

import torch

from trainables.errors import InputError


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

    @property
    def threads(self) -> int:
        """CPU threads of torch in a trial: one for each whole CPU asked for, and at least one."""
        return max(1, int(self.cpus))


def this_machine() -> Machine:
    """Count this machine's CPUs (those that the process may use) and GPUs."""
    return Machine(cpus=len(os.sched_getaffinity(0)), gpus=torch.cuda.device_count())


def trial_resources(
    machine: Machine, *, cpus: float, gpus: float | None, max_concurrent: int | None
) -> TrialResources:
    """Settle what each trial gets.

    Raises InputError for what Ray cannot give: fractions above one GPU, or more than there is.
    """
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
    fitting = [int(machine.cpus / cpus), *([int(machine.gpus / gpus)] if gpus else [])]
    concurrent = max_concurrent or max(1, min(fitting))
    return TrialResources(cpus=cpus, gpus=gpus, concurrent=concurrent)


def _check_there_is(what: str, asked: float, there: float) -> None:
    if asked > there:
        raise InputError(
            f"--{what}-per-trial {asked:g}: there are only {there:g} {what.upper()[:-1]}s here"
        )

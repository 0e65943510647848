"""The attacks of other libraries, set as ours are; why there are none where one is lacking."""

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.attacks import attack
from trainables.device import forked_rng
from trainables.records.value import Missing

PGD_STEPS = 20
_APGD_STEPS = 100
Run = Callable[[], Tensor]
"""-> the attacked images (N, C, H, W)"""
Runs = Mapping[str, Run | Missing]


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is attacked: a network that takes no more gradients, images and labels."""

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float
    num_classes: int


def pgd_runs(subject: Subject) -> Runs:
    """Return PGD of each library: 20 steps of eps / 4 in the Linf ball, from the clean image."""
    size = subject.eps / 4
    ours = {"steps": PGD_STEPS, "step_size": size, "random_start": False}
    return {
        "ours": _ours("pgd", subject, ours),
        "foolbox": _of("foolbox", lambda: _foolbox_pgd(subject, size)),
        "torchattacks": _of("torchattacks", lambda: _torchattacks_pgd(subject, size)),
    }


def autoattack_runs(subject: Subject) -> Runs:
    """Return the standard AutoAttack of each library."""
    return {
        "ours": _ours("autoattack", subject, {}),
        "pyautoattack": _of("pyautoattack", lambda: _pyautoattack(subject)),
        "torchattacks": _of("torchattacks", lambda: _torchattacks_autoattack(subject)),
    }


def _ours(name: str, subject: Subject, keywords: Mapping[str, Any]) -> Run:
    def run() -> Tensor:
        generator = torch.Generator(subject.x.device).manual_seed(0)
        return attack(name)(
            subject.model, subject.x, subject.y, eps=subject.eps, generator=generator, **keywords
        )

    return run


def _of(library: str, build: Callable[[], Run]) -> Run | Missing:
    if importlib.util.find_spec(library) is None:
        return Missing(f"{library} is not installed")
    return build()


def _foolbox_pgd(subject: Subject, size: float) -> Run:
    attacks: Any = importlib.import_module("foolbox.attacks")
    models: Any = importlib.import_module("foolbox.models.pytorch")
    wrapped = models.PyTorchModel(subject.model, bounds=(0, 1), device=subject.x.device)
    attack = attacks.LinfPGD(abs_stepsize=size, steps=PGD_STEPS, random_start=False)
    return lambda: torch.as_tensor(attack.run(wrapped, subject.x, subject.y, epsilon=subject.eps))


def _torchattacks_pgd(subject: Subject, size: float) -> Run:
    library: Any = importlib.import_module("torchattacks")
    attack = library.PGD(
        subject.model, eps=subject.eps, alpha=size, steps=PGD_STEPS, random_start=False
    )
    return lambda: torch.as_tensor(attack(subject.x, subject.y))


def _pyautoattack(subject: Subject) -> Run:
    library: Any = importlib.import_module("pyautoattack")

    def run() -> Tensor:
        with _as_found(subject.x.device):
            attack = library.AutoAttack(
                subject.model, device=subject.x.device, eps=subject.eps, norm="Linf", seed=0
            )
            found, _ = attack.run_standard_evaluation(
                subject.x, subject.y, batch_size=len(subject.x)
            )
        return torch.as_tensor(found)

    return run


def _torchattacks_autoattack(subject: Subject) -> Run:
    library: Any = importlib.import_module("torchattacks")

    def run() -> Tensor:
        with _as_found(subject.x.device):
            attack = library.AutoAttack(
                subject.model, norm="Linf", eps=subject.eps, n_classes=subject.num_classes, seed=0
            )
            *iterated, square = attack._autoattack.attacks
            for part in iterated:  # the authors' 100 steps; the library's own are 10
                part.steps = _APGD_STEPS
            square.rescale_schedule = False
            return torch.as_tensor(attack(subject.x, subject.y))

    return run


@contextmanager
def _as_found(device: torch.device) -> Iterator[None]:
    """Keep a library quiet, and restore what it changes: global seeds, the trace."""
    logger, trace = logging.getLogger("auto-attack"), sys.gettrace()
    was_disabled = logger.disabled
    logger.disabled = True
    try:
        with forked_rng(device):
            yield
    finally:
        logger.disabled = was_disabled
        sys.settrace(trace)

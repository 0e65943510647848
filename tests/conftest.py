"""Fixtures of the whole suite: one thread, and two small networks trained on the digits."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before numpy and torch, and for the processes that tests start: with a thread for each core in
# each of several processes, the threads wait for one another, and a test takes five times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch import Tensor, nn

from tests.making import EPS, context_of, spec_of
from tests.sharing import WholeFiles, ray_last
from trainables.defenses import build_defense
from trainables.deployed.predictor import Predictor
from trainables.threats.evasion.evasion import Evasion
from trainables.threats.threat import Findings
from trainables.trial.context import TrialContext


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNet:
    """A trained small_cnn with the trial that it came from and held-out images."""

    ctx: TrialContext
    model: nn.Module
    x: Tensor
    y: Tensor


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests on Ray last."""
    items[:] = ray_last(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFiles:
    """Share the suite between workers, where it runs with `-n`."""
    return WholeFiles(config, log)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run torch with one thread: sums then come out the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def artefact_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of artefacts that tests may share, so that equal trainings run once.

    Workers share it too: the store lets one of them build what several need.
    """
    base = tmp_path_factory.getbasetemp()
    shared = "PYTEST_XDIST_WORKER" in os.environ
    folder = (base.parent if shared else base) / "artefacts"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def undefended(artefact_folder: Path) -> TrainedNet:
    """Train a small_cnn on the digits."""
    return _trained(artefact_folder)


@pytest.fixture(scope="session")
def hardened(artefact_folder: Path) -> TrainedNet:
    """Train a small_cnn on the digits with FGSM adversarial training."""
    return _trained(artefact_folder, "fgsm_adversarial_training")


@pytest.fixture(scope="session")
def undefended_screen(undefended: TrainedNet) -> Findings:
    """Attack the undefended net as a screen does, once for all who read what it finds."""
    torch.set_num_threads(1)
    return Evasion().measure(Predictor(undefended.model), undefended.ctx)


def _trained(folder: Path, *defenses: str) -> TrainedNet:
    torch.set_num_threads(1)
    stack = [build_defense(name, {"eps": EPS}, radius=EPS) for name in defenses]
    ctx = context_of(spec_of(*stack, epochs=15, train_images=None, measured_images=None), folder)
    model = ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed).model
    points = ctx.points()
    return TrainedNet(ctx, model.requires_grad_(False), points.images(), points.labels)

"""Networks on real photographs and digits, for comparisons with other libraries' attacks."""

from pathlib import Path

import pytest
import torch

from tests.conftest import TrainedNet
from tests.datasets.making import real_data
from tests.making import CPU
from trainables.storage.artefacts import ArtefactStore
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import prepare_trial


@pytest.fixture(scope="session")
def mnist_net(artefact_folder: Path) -> TrainedNet:
    """Train a pixeldp_cnn on some of MNIST."""
    data_dir = real_data("MNIST")
    return _trained(artefact_folder, data_dir, "mnist", "pixeldp_cnn", images=4000, epochs=2)


@pytest.fixture(scope="session")
def cifar10_net(artefact_folder: Path) -> TrainedNet:
    """Train a cnn_bn on some of CIFAR-10."""
    data_dir = real_data("cifar10-5k")
    name = f"folder:{data_dir / 'cifar10-5k'}"
    return _trained(artefact_folder, data_dir, name, "cnn_bn", images=1500, epochs=4)


def _trained(
    folder: Path, data_dir: Path, name: str, model: str, *, images: int, epochs: int
) -> TrainedNet:
    torch.set_num_threads(1)
    spec = TrialSpec(
        data=DataSpec(name=name, train_images=images, measured_images=100),
        model=ModelSpec(name=model),
        training=TrainingSpec(epochs=epochs),
    )
    ctx = prepare_trial(spec, ArtefactStore(folder), data_dir=data_dir, device=CPU)
    net = ctx.train(spec.stack, ctx.pools.train, spec.seed).model.eval()
    points = ctx.points()
    return TrainedNet(ctx, net.requires_grad_(False), points.images(), points.labels)


@pytest.fixture
def trained(net: str, request: pytest.FixtureRequest) -> TrainedNet:
    """Return the net of the parameter `net`."""
    found: TrainedNet = request.getfixturevalue(net)
    return found

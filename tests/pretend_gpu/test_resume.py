"""Trainings on the pretended GPU that are interrupted, and go on there to the same bits."""

from pathlib import Path

import pytest

from tests.making import EPS
from tests.pretend_gpu.cases import SMALL, device, tiny, trained_on
from trainables.defenses import build_defense
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.training import checkpoints
from trainables.training.trained import Trained
from trainables.trial.spec import TrialSpec

pytestmark = pytest.mark.pretend_gpu

STACKS = ("none", "pgd_adversarial_training", "dp_sgd", "randomized_network", "early_stopping")


class InterruptedTrainingError(RuntimeError):
    """A worker died."""


def _in_pieces(spec: TrialSpec, folder: Path) -> tuple[Trained, int]:
    """Train, dying after each checkpoint; return also how often that was."""
    keep, deaths = ArtefactStore.keep_progress, 0

    def keep_and_die(store: ArtefactStore, key: str, artefact: Artefact) -> None:
        keep(store, key, artefact)
        raise InterruptedTrainingError(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "EVERY_SECONDS", 0.0)
        patch.setattr(ArtefactStore, "keep_progress", keep_and_die)
        while True:
            try:
                return trained_on(device(), spec, folder)[1], deaths
            except InterruptedTrainingError:
                deaths += 1


@pytest.mark.parametrize("name", STACKS)
def test_a_resumed_training_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    spec = tiny(build_defense(name, SMALL.get(name, {}), radius=EPS), epochs=2)
    whole = trained_on(device(), spec, tmp_path / "whole")[1]
    resumed, deaths = _in_pieces(spec, tmp_path / "resumed")
    assert deaths == 1
    assert resumed.weights_sha256 == whole.weights_sha256 and resumed.curves == whole.curves


def test_a_checkpoint_of_another_device_is_not_gone_on_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = tiny(epochs=2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedTrainingError):
        patch.setattr(checkpoints, "EVERY_SECONDS", 0.0)
        keep = ArtefactStore.keep_progress

        def keep_and_die(store: ArtefactStore, key: str, artefact: Artefact) -> None:
            keep(store, key, artefact)
            raise InterruptedTrainingError(key)

        patch.setattr(ArtefactStore, "keep_progress", keep_and_die)
        trained_on(device(), spec, tmp_path)
    from tests.making import CPU

    trained_on(CPU, spec, tmp_path)
    assert any("kept on pretend, and this is cpu" in text for text in caplog.messages)

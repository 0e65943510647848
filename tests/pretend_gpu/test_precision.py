"""What is trained in bfloat16 on the pretended GPU, and what is measured in float32 there."""

from pathlib import Path

import pytest
import torch

from tests.pretend_gpu.cases import device, tiny, trained_on
from trainables.device import full_precision, training_precision

pytestmark = pytest.mark.pretend_gpu


def test_a_training_within_a_measurement_ends_in_the_same_bits(tmp_path: Path) -> None:
    # torch keeps the weights that it has cast until the outermost autocast ends: a training inside
    # of one went on with those of its first step.
    spec = tiny(epochs=2)
    alone = trained_on(device(), spec, tmp_path / "alone")[1]
    with full_precision(device()):
        inside = trained_on(device(), spec, tmp_path / "inside")[1]
    with torch.autocast("pretend", dtype=torch.float16):
        around = trained_on(device(), spec, tmp_path / "around")[1]
    assert inside.weights_sha256 == alone.weights_sha256 == around.weights_sha256
    assert inside.curves["train_loss"] == alone.curves["train_loss"]


def test_a_training_computes_in_bfloat16_and_a_measurement_in_float32() -> None:
    where = device()
    weights = torch.randn(8, 8, device=where)
    with full_precision(where):
        assert (weights @ weights).dtype == torch.float32
        with training_precision(where):
            assert (weights @ weights).dtype == torch.bfloat16
            with full_precision(where):
                assert (weights @ weights).dtype == torch.float32
        assert (weights @ weights).dtype == torch.float32

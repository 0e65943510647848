import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.making import spec_of
from trainables.storage.artefacts import ArtefactStore
from trainables.trial import stages
from trainables.trial.gpu import CONTEXT_MIB, GpuUse, hide_gpus, memory_fraction

GIB = 2**30


def test_a_share_of_a_gpu_is_a_share_of_its_memory_less_the_context() -> None:
    fraction = memory_fraction(0.25, 24 * GIB)
    assert fraction * 24 * 1024 + CONTEXT_MIB == pytest.approx(6 * 1024)


@pytest.mark.parametrize("gpus", [None, 1, 4])
def test_whole_gpus_are_not_capped(gpus: float | None) -> None:
    assert memory_fraction(gpus, 24 * GIB) == 1


def test_a_share_that_holds_no_context_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no CUDA context"):
        memory_fraction(0.01, 24 * GIB)


def test_hidden_gpus_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    hide_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_record_says_what_the_trial_was_given_and_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def fake(device: torch.device, use: GpuUse) -> Iterator[None]:
        del device
        yield
        use.peak_mib, use.total_mib = 700, 24_000

    monkeypatch.setattr(stages, "gpu_use", fake)
    store = ArtefactStore(tmp_path)
    record = stages.run_trial(spec_of(), store, device=torch.device("cpu"), gpus=0.5)
    assert {"gpus": 0.5, "gpu_peak_mib": 700, "gpu_total_mib": 24_000}.items() <= (
        record.hardware.items()
    )


def test_a_record_of_nobody_who_shares_anything_out_says_nothing_of_gpus(tmp_path: Path) -> None:
    record = stages.run_trial(spec_of(), ArtefactStore(tmp_path), device=torch.device("cpu"))
    assert set(record.hardware) == {
        "device",
        "machine",
        "threads",
        "training_precision",
        "measuring_precision",
    }

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.making import spec_of
from trainables import trial
from trainables.artefacts import ArtefactStore
from trainables.gpu import CONTEXT_MIB, GpuUse, gpu_use, hide_gpus, memory_fraction, trial_device

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


def test_a_trial_that_was_given_no_gpu_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert trial_device(0).type == "cpu"
    assert trial_device(0.5).type == trial_device(None).type == "cuda"


def test_a_trial_that_was_given_a_gpu_that_torch_lacks_runs_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert trial_device(1).type == "cpu"


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

    monkeypatch.setattr(trial, "gpu_use", fake)
    store = ArtefactStore(tmp_path)
    record = trial.run_trial(spec_of(), store, device=torch.device("cpu"), gpus=0.5)
    assert {"gpus": 0.5, "gpu_peak_mib": 700, "gpu_total_mib": 24_000}.items() <= (
        record.hardware.items()
    )


def test_a_record_of_nobody_who_shares_anything_out_says_nothing_of_gpus(tmp_path: Path) -> None:
    record = trial.run_trial(spec_of(), ArtefactStore(tmp_path), device=torch.device("cpu"))
    assert set(record.hardware) == {"device", "machine", "threads"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_trial_is_held_to_its_share_and_its_peak_is_noted() -> None:
    device, use = torch.device("cuda"), GpuUse(0.5)
    _, total = torch.cuda.mem_get_info(device)
    with pytest.raises(torch.OutOfMemoryError), gpu_use(device, use):
        torch.empty(total // 2, dtype=torch.uint8, device=device)
    with gpu_use(device, use):
        torch.empty(256 * 2**20, dtype=torch.uint8, device=device)
        torch.cuda.reset_peak_memory_stats(device)  # as the cost threat does
    assert use.peak_mib is not None
    assert 256 + CONTEXT_MIB <= use.peak_mib < 300 + CONTEXT_MIB
    assert use.total_mib == total // 2**20

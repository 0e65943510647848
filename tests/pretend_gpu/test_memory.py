"""A trial's share of the pretended GPU's memory: held to it, and measured."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.orchestrator.greedy import NAME
from tests.pretend_gpu.cases import device, tiny
from trainables.artefacts import ArtefactStore
from trainables.defenses import build_defense
from trainables.device import backend, ran_out_of_memory
from trainables.gpu import CONTEXT_MIB, GpuUse, gpu_use
from trainables.record import TrialRecord
from trainables.threats import build_threat
from trainables.trial import run_trial

pytestmark = pytest.mark.pretend_gpu

_MIB = 2**20
_SHARE, _HELD_MIB = 0.05, 200
"""A share of the pretended 16,000 MiB, and the tensors that it holds beside a context of 600."""


def _held(mib: int) -> torch.Tensor:
    return torch.empty(mib * _MIB, dtype=torch.uint8, device=device())


def _greedy_trial(mib: float, gpus: float, folder: Path) -> TrialRecord:
    spec = tiny(build_defense(NAME, {"mib": mib}, radius=0.1))
    return run_trial(spec, ArtefactStore(folder), gpus=gpus)


def test_a_share_of_memory_is_held_to_and_given_back() -> None:
    with pytest.raises(torch.OutOfMemoryError) as raised, gpu_use(device(), GpuUse(_SHARE)):
        _held(_HELD_MIB + 8)
    assert ran_out_of_memory(str(raised.value))
    with gpu_use(device(), GpuUse(_SHARE)):
        _held(_HELD_MIB - 8)
    with gpu_use(device(), GpuUse(1)):
        _held(_HELD_MIB + 8)


def test_the_peak_is_the_most_that_was_held_even_where_it_is_counted_anew_meanwhile() -> None:
    use = GpuUse(0.5)
    with gpu_use(device(), use):
        large = _held(256)
        del large
        backend(device()).reset_peak_memory_stats(device())  # as the cost threat does
        _held(16)
    assert use.peak_mib is not None
    assert 256 + CONTEXT_MIB <= use.peak_mib < 300 + CONTEXT_MIB


def test_a_trial_over_its_share_fails_for_its_memory_and_leaves_none_taken(tmp_path: Path) -> None:
    over = _greedy_trial(_HELD_MIB + 8.0, _SHARE, tmp_path)
    assert over.status == "failed" and ran_out_of_memory(over.error or "")
    whole = _greedy_trial(_HELD_MIB + 8.0, 1, tmp_path)
    assert whole.status == "completed", whole.error
    assert whole.hardware["gpu_peak_mib"] >= _HELD_MIB and over.hardware["gpus"] == _SHARE
    assert backend(device()).memory_reserved(device()) < 64 * _MIB


def test_the_cost_threat_measures_the_memory_of_a_prediction(tmp_path: Path) -> None:
    spec = replace(tiny(), threats=(build_threat("cost", {}, radius=0.1),))
    record = run_trial(spec, ArtefactStore(tmp_path), gpus=1)
    assert record.status == "completed", record.error
    assert record.metrics["peak_memory_mib"].value > 0  # type: ignore[union-attr]

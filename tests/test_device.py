"""The device seam, over torch's own Python: only the C calls below torch.cuda are stubbed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import trainables
from orchestrator.commands.doctor import _gpus
from orchestrator.sweep.resources import machine_for, this_machine
from tests.cuda_driver import GIB, TOTAL, stub_cuda
from tests.making import spec_of
from trainables import device as seam
from trainables.errors import DeviceError
from trainables.storage.artefacts import ArtefactStore
from trainables.trial.gpu import CONTEXT_MIB, GpuUse, gpu_use
from trainables.trial.stages import run_trial

ROOT = Path(trainables.__file__).parents[1]
SOURCES = [
    file
    for package in ("trainables", "orchestrator", "results", "search_spaces", "benchmarks")
    for file in sorted((ROOT / package).rglob("*.py"))
]


def _on_backend(tree: ast.AST) -> Iterator[str]:
    """Return the names that a file takes from an accelerator's module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            called = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "backend"
            if called or (isinstance(node.value, ast.Name) and node.value.id == "gpu"):
                yield node.attr


class _Recording:
    """torch.cuda, with a note of what was taken from it."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.taken.add(name)
        return getattr(torch.cuda, name)


def test_every_call_on_an_accelerator_passes_torchs_own_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver, recording = stub_cuda(monkeypatch), _Recording()
    monkeypatch.setattr(torch, "get_device_module", lambda device: recording)
    device, use = seam.given_device(0.5), GpuUse(0.5)
    assert device == torch.device("cuda", 0)
    assert seam.accelerator_names() == [seam.device_name(device)] == ["Stubbed GPU"]
    with gpu_use(device, use):
        seam.synchronize(device)
        state = seam.rng_state(device)
        assert state is not None
        seam.set_rng_state(device, state)
        # As the cost threat measures a prediction's peak.
        recording.reset_peak_memory_stats(device)
        assert recording.max_memory_allocated(device) - recording.memory_allocated(device) == GIB
    assert use.peak_mib == 2048 + CONTEXT_MIB and use.total_mib == TOTAL // 2**20
    assert driver.fraction == pytest.approx(0.5 - CONTEXT_MIB * 2**20 / TOTAL)
    with gpu_use(device, whole := GpuUse(1)):
        pass
    assert whole.peak_mib == 2048 + 2048  # 3 GiB are taken, of which torch reserved one
    used = {name for file in SOURCES for name in _on_backend(ast.parse(file.read_text()))}
    assert len(used) > 10 and used <= recording.taken, used - recording.taken


def test_no_source_names_an_accelerator_beside_the_seam() -> None:
    naming = [
        str(file.relative_to(ROOT))
        for file in SOURCES
        if file != Path(seam.__file__)
        and re.search(r"torch\.(cuda|xpu|mps)\.|[\"']cuda[\"':]", file.read_text())
    ]
    assert naming == []


def test_a_device_without_an_index_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = stub_cuda(monkeypatch)
    assert seam.indexed(torch.device("cuda")) == torch.device("cuda", 0)
    assert driver.ready
    with pytest.raises(ValueError, match="specified index"):  # what it is for
        torch.cuda.set_per_process_memory_fraction(0.5, torch.device("cuda"))


def test_a_gpu_whose_driver_is_too_old_is_counted_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stub_cuda(monkeypatch, too_old=True)
    assert torch.cuda.device_count() == 1 and not torch.cuda.is_available()
    assert this_machine().gpus == machine_for(None).gpus == 0
    assert any("too old" in text and "trials run on CPUs" in text for text in caplog.messages)
    assert seam.given_device(None) == seam.given_device(0) == seam.CPU
    check = _gpus()
    assert not check.good and check.needed and "too old" in check.found


@pytest.mark.parametrize("gpus", [0.5, 1])
def test_a_trial_that_was_given_a_gpu_that_it_cannot_use_fails_and_says_why(
    gpus: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub_cuda(monkeypatch, too_old=True)
    record = run_trial(spec_of(), ArtefactStore(tmp_path), gpus=gpus)
    assert record.status == "failed" and record.error is not None
    assert "torch cannot use" in record.error and "too old" in record.error
    assert "\n" not in record.error


def test_a_trial_that_was_given_a_gpu_where_there_is_none_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub_cuda(monkeypatch, too_old=True)
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: 0)
    assert seam.why_unusable() is None and seam.given_device(None) == seam.CPU
    with pytest.raises(DeviceError, match="it sees none"):
        seam.given_device(1)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_memory_that_is_spent_is_known_by_all_its_names(text: str) -> None:
    assert seam.ran_out_of_memory(f"RuntimeError: {text}")


def test_other_errors_of_a_gpu_are_not_taken_for_it() -> None:
    assert not seam.ran_out_of_memory("RuntimeError: CUDA error: device-side assert triggered")


def _flags() -> list[Any]:
    newer = [operator.fp32_precision for operator in seam._float32_operators()]
    return [*newer, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()]


@pytest.fixture
def restored_flags() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("restored_flags")
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_what_is_measured_is_computed_in_float32_whatever_stands_around(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    before = _flags()
    weights = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (weights @ weights).dtype == torch.bfloat16
        with seam.full_precision(seam.CPU):
            exact = weights @ weights
            assert set(_flags()) == {"ieee", False, "highest"}
        assert (weights @ weights).dtype == torch.bfloat16
    assert exact.dtype == torch.float32 and _flags() == before
    reference = weights.double() @ weights.double()
    assert (exact - reference).abs().max() < 1e-4  # bfloat16 errs by 0.1 here, TF32 by 0.01

"""CUDA's driver and allocator, stubbed below torch's own Python: what torch.cuda checks is real."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

GIB = 2**30
TOTAL = 24 * GIB


class CudaDriver:
    """The C calls of torch.cuda, on a machine of one GPU; as on a real one, the allocator refuses
    every device until CUDA is initialised."""

    def __init__(self, *, too_old: bool = False) -> None:
        self.too_old = too_old
        """Whether the driver shows its GPU, by NVML, and cannot run this torch."""
        self.ready = False
        self.fraction: float | None = None
        self.peaks_reset = 0

    def init(self) -> None:
        if self.too_old:
            raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).")
        self.ready = True

    def set_fraction(self, fraction: float, device: int) -> None:
        self.check(device)
        self.fraction = fraction

    def reset_peaks(self, device: int) -> None:
        self.check(device)
        self.peaks_reset += 1

    def memory_stats(self, device: int) -> dict[str, Any]:
        self.check(device)
        bytes_ = {"current": GIB, "peak": 2 * GIB}
        return {kind: {"all": bytes_} for kind in ("allocated_bytes", "reserved_bytes")}

    def check(self, device: int) -> None:
        if not self.ready or device != 0:
            raise RuntimeError("Invalid device argument: did you call init?")


def stub_cuda(monkeypatch: pytest.MonkeyPatch, *, too_old: bool = False) -> CudaDriver:
    """Put the stubs below torch.cuda until the test ends."""
    driver = CudaDriver(too_old=too_old)
    calls = {
        "_accelerator_getAccelerator": lambda: torch.device("cuda"),
        "_cuda_getDeviceCount": lambda: 0 if too_old else 1,
        "_cuda_init": driver.init,
        "_cuda_isInBadFork": lambda: False,
        "_cuda_getDevice": lambda: 0,
        "_cuda_setDevice": lambda index: None,
        "_cuda_synchronize": lambda: None,
        "_cuda_emptyCache": lambda: None,
        "_cuda_setMemoryFraction": driver.set_fraction,
        "_cuda_resetPeakMemoryStats": driver.reset_peaks,
        "_cuda_memoryStats": driver.memory_stats,
    }
    for name, call in calls.items():
        monkeypatch.setattr(torch._C, name, call, raising=False)
    properties = SimpleNamespace(name="Stubbed GPU")
    replaced = {
        "_exchange_device": lambda index: 0,  # the C call under another name, as is the next
        "_maybe_exchange_device": lambda index: 0,
        "_initialized": False,
        "_queued_calls": [],
        "_cached_device_count": None,
        "_device_count_nvml": lambda: 1,
        "_cudart": SimpleNamespace(cudaMemGetInfo=lambda index: (TOTAL - 3 * GIB, TOTAL)),
        "_get_device_properties": lambda index: properties,
        "default_generators": (torch.Generator(),),
    }
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, value, raising=False)
    return driver

"""A trial's part of a GPU: what it was given, the most that it may take, and the most it took."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from trainables.device import accelerated, backend

CONTEXT_MIB = 600
"""Memory that a process takes on a GPU besides torch's tensors: the CUDA context, cuBLAS, cuDNN.

An allowance, not a measurement: it is what stands in where other processes are on the GPU too, so
that the own part cannot be separated from theirs.
"""
_MIB = 2**20


@dataclass(slots=True)
class GpuUse:
    """What a trial was given and took; all of it None where that is not known."""

    gpus: float | None
    """GPUs that the trial was given: a share of one, whole ones, or 0."""
    peak_mib: int | None = None
    """The most GPU memory that the trial held at once, its CUDA context included."""
    total_mib: int | None = None
    """Memory of the GPU that it ran on."""

    def plain(self) -> dict[str, float | int]:
        """Return what is known under the names that a record's hardware has."""
        named = {"gpus": self.gpus, "gpu_peak_mib": self.peak_mib, "gpu_total_mib": self.total_mib}
        return {name: value for name, value in named.items() if value is not None}


def hide_gpus() -> None:
    """Let nothing in this process see a GPU, and nothing that it starts."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


@contextmanager
def gpu_use(device: torch.device, use: GpuUse) -> Iterator[None]:
    """Cap a trial at its share of the GPU's memory and, when it ends, note the most that it took.

    A trial above its share gets torch's OutOfMemoryError, and its neighbours notice nothing. What
    the process kept of an earlier trial is given back first, and what is left of this one after.
    """
    if not accelerated(device):
        yield
        return
    gpu = backend(device)
    gpu.empty_cache()
    gpu.reset_peak_memory_stats(device)
    _, total = gpu.mem_get_info(device)
    gpu.set_per_process_memory_fraction(memory_fraction(use.gpus, total), device)
    try:
        yield
    finally:
        # What torch has reserved falls only where its cache is emptied, which nothing does within
        # a trial, so the peak stands even where the cost threat restarts the count.
        reserved = gpu.max_memory_reserved(device)
        use.peak_mib = (reserved + _context_bytes(device, use.gpus)) // _MIB
        use.total_mib = total // _MIB
        gpu.empty_cache()


def memory_fraction(gpus: float | None, total_bytes: int) -> float:
    """Return the fraction of a GPU's memory that torch's tensors may take under a share of it.

    Raises ValueError where the share holds less than a CUDA context.
    """
    if gpus is None or gpus >= 1:
        return 1.0
    fraction = gpus - CONTEXT_MIB * _MIB / total_bytes
    if fraction <= 0:
        raise ValueError(
            f"{gpus:g} of a GPU with {total_bytes / _MIB:.0f} MiB holds no CUDA context "
            f"({CONTEXT_MIB} MiB); assign a trial more of it"
        )
    return fraction


def _context_bytes(device: torch.device, gpus: float | None) -> int:
    """Return what the process takes besides torch: exactly where no other trial is on the GPU."""
    if gpus is not None and gpus < 1:
        return CONTEXT_MIB * _MIB
    free, total = backend(device).mem_get_info(device)
    return max(0, int(total - free - backend(device).memory_reserved(device)))

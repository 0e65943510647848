"""The meter of a trial's GPU memory compared with the driver's own figures."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

from benchmarks.on_gpu.bench import Bench
from benchmarks.on_gpu.machine import nvidia_smi
from benchmarks.on_gpu.report import Clock, Row, missing
from trainables.device import accelerated, backend, synchronize
from trainables.metrics import intervals
from trainables.records.value import Missing
from trainables.trial.gpu import GpuUse, gpu_use

PART = "memory"
_EVERY_S = 0.002
_OFF_SHARE, _OFF_MIB = 0.05, 64
"""How far the meter may be from the driver: the larger of both."""
_MIB = 2**20


class Watch:
    """The most memory that the driver said was taken, looked at from another thread."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak_bytes = device, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def look(self) -> None:
        """Ask the driver once."""
        free, total = backend(self.device).mem_get_info(self.device)
        self.peak_bytes = max(self.peak_bytes, total - free)

    def _look(self) -> None:
        while not self._over.wait(_EVERY_S):
            self.look()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look every two milliseconds until the end."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()


def measure_memory(bench: Bench, clock: Clock) -> Iterator[Row]:
    """Yield the peak by gpu_use, by the driver's free memory, and by NVML."""
    del clock  # one pass
    if not accelerated(bench.device):
        yield missing(PART, "peak by gpu_use", "MiB", "a CPU has no such meter")
        return
    _, model = bench.checkpoint()
    x, y = bench.points(bench.settings.memory_batch)
    use, watch = GpuUse(1), Watch(bench.device)
    with gpu_use(bench.device, use), watch.watching():
        images = x.clone().requires_grad_(True)
        loss = F.cross_entropy(model(images), y)
        synchronize(bench.device)
        watch.look()  # with the graph still held, so that a short pass is not missed
        torch.autograd.grad(loss, images)
        synchronize(bench.device)
        watch.look()
        by_nvml = nvidia_smi("memory.used")
        del loss, images
    assert use.peak_mib is not None
    driver = watch.peak_bytes / _MIB
    allowed = max(_OFF_MIB, _OFF_SHARE * driver)
    yield Row(
        part=PART, name="peak by gpu_use", unit="MiB", value=intervals.exact(use.peak_mib),
        note=f"a pass to and fro of {len(y)} images; within {allowed:.0f} MiB of the driver",
        passed=abs(use.peak_mib - driver) <= allowed,
    )  # fmt: skip
    note = "most of total - free while it ran, other processes included"
    yield Row(
        part=PART, name="peak by the driver", unit="MiB", value=intervals.exact(driver), note=note
    )
    if isinstance(by_nvml, Missing):
        yield missing(PART, "memory used by NVML", "MiB", by_nvml.reason)
        return
    yield Row(
        part=PART, name="memory used by NVML", unit="MiB", value=intervals.exact(float(by_nvml)),
        note="nvidia-smi, at the end of the pass",
    )  # fmt: skip

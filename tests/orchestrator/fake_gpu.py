"""A GPU for a machine without: what a trial takes of it is made up, and nothing else."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trainables.trial import stages
from trainables.trial.gpu import GpuUse

TOTAL_MIB, PEAK_MIB = 8000, 3000
"""Two such trials fit on the GPU."""
FOLDER_VARIABLE = "FAKE_GPU_FOLDER"
"""Names a folder in which the trials that have a share leave a mark."""
OUTGREW = "outgrew"
_TOGETHER_SECONDS = 60


@contextmanager
def fake_use(device: torch.device, use: GpuUse) -> Iterator[None]:
    """Stand in for `gpu_use`: say what a trial would have taken.

    The first one with a share runs out of memory; the others wait until two have been there at
    once.
    """
    del device
    use.total_mib, use.peak_mib = TOTAL_MIB, PEAK_MIB
    if use.gpus is not None and 0 < use.gpus < 1:
        marks = Path(os.environ[FOLDER_VARIABLE])
        try:
            (marks / OUTGREW).touch(exist_ok=False)
        except FileExistsError:
            _wait_for_another(marks)
        else:
            raise torch.OutOfMemoryError("CUDA out of memory, made up by a test")
    yield


def install() -> None:
    """Put the fake into this process; Ray calls it in each worker before any trial."""
    stages.gpu_use = fake_use  # type: ignore[attr-defined]


def _wait_for_another(marks: Path) -> None:
    (marks / f"share-{uuid.uuid4().hex}").touch()
    deadline = time.monotonic() + _TOGETHER_SECONDS
    while len(list(marks.glob("share-*"))) < 2:
        if time.monotonic() > deadline:
            raise TimeoutError("no other trial came onto the GPU")
        time.sleep(0.05)

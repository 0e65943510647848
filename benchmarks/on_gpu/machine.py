"""Where a run was measured: device, driver, versions, date and commit."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from trainables.device import device_name, precisions
from trainables.records.value import Missing

_LIBRARIES = ("torchvision", "foolbox", "torchattacks", "pyautoattack")
_TIMEOUT_S = 10


def machine(device: torch.device) -> dict[str, Any]:
    """Return what is known of the machine and the code, as plain JSON values."""
    driver = nvidia_smi("driver_version")
    return {
        "device": device_name(device),
        "device_type": device.type,
        "driver": None if isinstance(driver, Missing) else driver,
        "torch": torch.__version__,
        "cuda_version": torch.version.cuda,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **precisions(device),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def nvidia_smi(field: str) -> str | Missing:
    """Return a field of this machine's one GPU as nvidia-smi prints it, without its unit."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Missing("there is no nvidia-smi")
    command = [tool, f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    printed = _output(command)
    lines = (printed or "").split("\n")
    if printed is None or len(lines) != 1 or not lines[0]:
        return Missing("nvidia-smi does not answer" if not printed else "there are several GPUs")
    return lines[0]


def _commit() -> str | None:
    """Return the checkout's commit, marked where files were changed; None outside of one."""
    git, here = shutil.which("git"), str(Path(__file__).parent)
    if git is None:
        return None
    commit = _output([git, "-C", here, "rev-parse", "HEAD"])
    changed = _output([git, "-C", here, "status", "--porcelain"])
    return f"{commit}, changed" if commit and changed else commit


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

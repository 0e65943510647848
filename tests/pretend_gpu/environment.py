"""Makes a process, and all that it starts, load the pretended GPU as it imports torch.

torch loads what is installed as an entry point of the group `torch.backends`. Here nothing is
installed: a folder on the process's path says that something is.
"""

import os
from pathlib import Path

from tests.pretend_gpu.building import build
from tests.pretend_gpu.install import LIBRARY_VARIABLE

_ROOT = Path(__file__).resolve().parents[2]
_ENTRY_POINTS = """\
[torch.backends]
pretend = tests.pretend_gpu.install:autoload
"""
_METADATA = """\
Metadata-Version: 2.1
Name: pretended-gpu
Version: 1
"""


def device_environment(folder: Path) -> dict[str, str]:
    """Return this process's environment with the device in it; writes what torch finds to `folder`.

    Compiles the device where that has not been done. Raises NoCompilerError.
    """
    metadata = folder / "pretended_gpu-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text(_METADATA)
    (metadata / "entry_points.txt").write_text(_ENTRY_POINTS)
    paths = [str(_ROOT), str(folder), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        LIBRARY_VARIABLE: str(build()),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }

"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def replace_bytes(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    return replace_file(path, write)


def replace_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    return replace_bytes(path, text.encode())

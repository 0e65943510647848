"""Write the golden files: `python -m tests.golden`.

A file that is there is kept, and the command fails where its content would change. Whoever means
to change identities, so that the stores and runs of all users lose their use, says `--replace`.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden import artefacts, spaces

FOLDER = Path(__file__).parent
TRIALS = FOLDER / "trials.json"
ARTEFACTS = FOLDER / "artefacts.json"


def main(arguments: list[str]) -> int:
    """Write both files; return 1 where one that differs was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("--replace", action="store_true", help="replace files that differ")
    replace = parser.parse_args(arguments).replace
    with tempfile.TemporaryDirectory() as folder:
        contents = {TRIALS: spaces.identities(), ARTEFACTS: artefacts.keys(Path(folder))}
    refused = [path for path, content in contents.items() if not _write(path, content, replace)]
    for path in refused:
        print(f"{path.name} differs and was kept; --replace replaces it", file=sys.stderr)
    return 1 if refused else 0


def _write(path: Path, content: dict[str, Any], replace: bool) -> bool:
    text = _text(content)
    if path.exists() and path.read_text() != text and not replace:
        return False
    path.write_text(text)
    return True


def _text(content: dict[str, Any]) -> str:
    """Write one entry a line, so that a change shows in a diff."""
    lines = []
    for name, value in content.items():
        parts = value.items() if isinstance(value, dict) else [("artefacts", value)]
        inner = [f"  {json.dumps(key)}: {_rows(part)}" for key, part in parts]
        lines.append(f" {json.dumps(name)}: {{\n" + ",\n".join(inner) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _rows(part: Any) -> str:
    if not isinstance(part, list) or not part:
        return json.dumps(part)
    return "[\n   " + ",\n   ".join(json.dumps(row) for row in part) + "\n  ]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A sweep whose disk fills up ends in one line; with more room the same command completes it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.orchestrator.command_line import REPOSITORY
from tests.orchestrator.sweep.test_sweep import records_of
from tests.search_spaces.writing import TINY, write_space

pytestmark = pytest.mark.slow

SCRIPT = r"""
mount -t tmpfs -o size=900k none "$1" || exit 77
shift
runs=$1 python=$2 space=$3 kept=$4
launch() {
    "$python" -m orchestrator launch --space "$space" --runs "$runs" --no-audit \
        > "$kept/$1.out" 2> "$kept/$1.err"
    echo $? > "$kept/$1.code"
}
launch full
cp -r "$runs/tiny/records" "$kept/records"
mount -o remount,size=64m "$runs"
launch more
cp -r "$runs/tiny" "$kept/tiny"
"""


def test_a_full_disk_ends_a_sweep_in_one_line_and_more_room_completes_it(tmp_path: Path) -> None:
    runs, kept = tmp_path / "runs", tmp_path / "kept"
    runs.mkdir()
    kept.mkdir()
    space = write_space(tmp_path)
    done = subprocess.run(
        [
            "unshare", "-rm", "sh", "-c", SCRIPT, "sh", str(runs), str(runs), sys.executable,
            str(space), str(kept),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    assert (kept / "full.code").read_text() == "1\n"
    errors = (kept / "full.err").read_text()
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: ") and "No space left on device" in last, errors
    assert "run the same command again" in last
    assert "Traceback" not in errors
    before = {file.name: file.read_text() for file in (kept / "records").glob("*.json")}
    completed = {name for name, text in before.items() if '"completed"' in text}
    assert len(completed) < TINY["search"]["trials"]
    assert (kept / "more.code").read_text() == "0\n", (kept / "more.err").read_text()
    records = records_of(kept / "tiny")
    assert len(records) == TINY["search"]["trials"]
    assert {record.status for record in records.values()} == {"completed"}
    for name in completed:  # what was lost to the disk ran again
        assert (kept / "tiny" / "records" / name).read_text() == before[name]
    assert not list((kept / "tiny").glob("**/.*tmp*"))

"""The benchmark of a GPU, in its tiny form, on the pretended one."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu import PARTS, main

pytestmark = pytest.mark.pretend_gpu


def test_every_part_of_the_benchmark_runs_on_the_device(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert main(["--tiny", "--seconds", "40", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["machine"]["device"] == "Pretended GPU" and found["tiny"]
    rows = found["rows"]
    assert {row["part"] for row in rows} == set(PARTS)
    (meter,) = [row for row in rows if row["name"] == "peak by gpu_use"]
    assert meter["passed"] is True and meter["value"] > 0

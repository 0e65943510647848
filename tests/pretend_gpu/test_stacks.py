"""Every stack that `full` begins with and every other defense, as trials on the pretended GPU."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import search_spaces
from tests.making import CPU, EPS
from tests.pretend_gpu.cases import (
    SMALL,
    alike,
    assert_same_model,
    device,
    tiny,
    trained_on,
)
from trainables.defenses import DEFENSES, build_defense
from trainables.storage.artefacts import ArtefactStore
from trainables.trial.stages import run_trial

pytestmark = pytest.mark.pretend_gpu

_FULL = Path(search_spaces.__file__).with_name("full.yaml")
Stack = dict[str, dict[str, Any] | None]
FURTHER: list[Stack] = [{"fine_pruning": None}, {"ft_sam": None}]
"""With the defenses that `full` does not search."""
STACKS: list[Stack] = [*yaml.safe_load(_FULL.read_text())["first"], *FURTHER]


def stack_name(stack: Stack) -> str:
    """Return the defenses of a stack and their values as a test's name."""
    names = ["-".join([name, *map(str, (raw or {}).values())]) for name, raw in stack.items()]
    return "+".join(names) or "none"


def test_every_defense_is_in_a_stack() -> None:
    assert {name for stack in STACKS for name in stack} | {"none"} == set(DEFENSES)


@pytest.mark.parametrize("raw", STACKS, ids=stack_name)
def test_a_trial_runs_on_the_device_and_the_cpu_reads_what_it_made(
    raw: Stack, tmp_path: Path
) -> None:
    spec = tiny(
        *(
            build_defense(name, {**(settings or {}), **SMALL.get(name, {})}, radius=EPS)
            for name, settings in raw.items()
        )
    )
    record = run_trial(spec, ArtefactStore(tmp_path), gpus=1)
    assert record.status == "completed", record.error
    assert record.hardware["device"] == "Pretended GPU"
    assert record.hardware["training_precision"] == "bfloat16"
    assert record.hardware["gpu_peak_mib"] > 0
    made = set(tmp_path.iterdir())
    here, there = (trained_on(where, spec, tmp_path) for where in (device(), CPU))
    assert here[1].weights_sha256 == there[1].weights_sha256
    assert set(tmp_path.iterdir()) == made  # nothing was trained again
    with alike():
        assert_same_model((here[0], here[2]), (there[0], there[2]))

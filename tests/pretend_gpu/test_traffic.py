"""How often the host waits for the device: at no step of a training, once a step of an attack.

A wait that comes with each step shows in the difference between few steps and many.
"""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.test_contract import ROWS, Row
from tests.conftest import TrainedNet
from tests.making import EPS
from tests.pretend_gpu.cases import SMALL, device, tiny, trained_on
from tests.pretend_gpu.counting import Traffic, counted
from tests.pretend_gpu.test_stacks import STACKS, Stack, stack_name
from trainables.defenses import build_defense
from trainables.spec import TrainingSpec

pytestmark = pytest.mark.pretend_gpu

IMAGES = 128
FEW, MANY = 4, 12
"""Steps of an attack."""
_SHORT = {**SMALL, "fgsm_adversarial_training": {"detect_overfitting": False}}
"""That detection is an attack at the end of an epoch, whose steps wait as any attack's do."""
THE_AUTHORS_OWN = ("autoattack",)
"""Attacks whose steps are another package's."""
STEPPING = [row for row in ROWS if row.takes("steps") and row.name not in THE_AUTHORS_OWN]
STOPS = [(row, stop) for row in STEPPING for stop in row.stops]


def _training(raw: Stack, folder: Path, **changes: Any) -> Traffic:
    stack = [
        build_defense(name, {**(settings or {}), **_SHORT.get(name, {})}, radius=EPS)
        for name, settings in raw.items()
    ]
    spec = tiny(*stack, **{"train_images": IMAGES} | changes)
    with counted(where=True) as traffic:
        trained_on(device(), spec, folder)
    return traffic


def _more(many: Traffic, few: Traffic) -> Counter[str]:
    """Return the lines that the host waited at more often."""
    found = Counter(many.by_line)
    found.subtract(few.by_line)
    return Counter({line: n for line, n in found.items() if n > 0 and line.startswith("read")})


@pytest.mark.parametrize("raw", STACKS, ids=stack_name)
def test_no_step_of_a_training_waits_for_the_device(raw: Stack, tmp_path: Path) -> None:
    # As many rows in more steps, so that what is done once a row or an epoch is equal.
    few, many = (
        _training(raw, tmp_path / str(size), training=TrainingSpec(epochs=1, batch_size=size))
        for size in (IMAGES // 2, IMAGES // 8)
    )
    assert many.reads <= few.reads, _more(many, few)


@pytest.mark.parametrize("name", ["denoiser", "diffusion_purification"])
def test_no_step_of_an_image_networks_training_waits(name: str, tmp_path: Path) -> None:
    # Its batches are of one size, so that more rows are more steps.
    few, many = (
        _training({name: None}, tmp_path / str(rows), train_images=rows) for rows in (64, 256)
    )
    assert many.reads <= few.reads, _more(many, few)


@pytest.mark.parametrize(
    ("row", "stop"),
    STOPS,
    ids=["-".join([str(row), *map(str, stop.values())]) for row, stop in STOPS],
)
def test_a_step_of_an_attack_waits_once_at_most(
    row: Row, stop: dict[str, bool], undefended: TrainedNet
) -> None:
    where = device()
    model = copy.deepcopy(undefended.model).to(where)
    x, y = undefended.x[:8].to(where), undefended.y[:8].to(where)
    small = {"eps": EPS / 50} if row.takes("eps") else {}  # so that some resist to the end

    def attacked(steps: int) -> Traffic:
        with counted(where=True) as traffic:
            row.run(model, x, y, **stop, **small, **{"steps": steps})
        return traffic

    few, many = attacked(FEW), attacked(MANY)
    rounds = row.settings.get("search_steps", 1) * row.settings.get("restarts", 1)
    targets = 3 if row.name == "targeted_margin_pgd" else 1
    assert many.reads - few.reads <= rounds * targets * (MANY - FEW), _more(many, few)

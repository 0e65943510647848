"""Every attack on the pretended GPU: the images that it finds on the CPU, from equal draws."""

import copy

import pytest
import torch

from tests.attacks.test_contract import ROWS, Row
from tests.conftest import TrainedNet
from tests.pretend_gpu.cases import alike, device

pytestmark = pytest.mark.pretend_gpu

_FEW = 12


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_attack_finds_on_the_device_what_it_finds_on_the_cpu(
    row: Row, undefended: TrainedNet
) -> None:
    x, y, where = undefended.x[:_FEW], undefended.y[:_FEW], device()
    on_cpu = row.run(undefended.model, x, y)
    model = copy.deepcopy(undefended.model).to(where)
    with alike():
        on_device = row.run(model, x.to(where), y.to(where))
    assert on_device.device == where
    with torch.no_grad():
        found, expected = model(on_device).argmax(1).cpu(), undefended.model(on_cpu).argmax(1)
    assert torch.equal(found, expected)
    torch.testing.assert_close(on_device.cpu(), on_cpu, atol=max(row.tolerance, 1e-5), rtol=0)

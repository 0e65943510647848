"""Every model on the pretended GPU: a step of training, and scores equal to the CPU's."""

import copy

import pytest
import torch
from torch.nn import functional as F

from tests.models.making import dataset_of
from tests.pretend_gpu.cases import assert_equal, device
from trainables.device import training_precision
from trainables.models import MODELS, build_model

pytestmark = pytest.mark.pretend_gpu


@pytest.mark.parametrize("name", MODELS)
def test_a_model_scores_and_trains(name: str) -> None:
    torch.manual_seed(0)
    dataset, where = dataset_of(3, 16), device()
    model = build_model(name, dataset=dataset).eval()
    x, y = torch.rand(4, *dataset.shape), torch.arange(4) % dataset.num_classes
    moved = copy.deepcopy(model).to(where)
    with torch.no_grad():
        assert_equal(moved(x.to(where)), model(x))
    optimizer = torch.optim.SGD(moved.train().parameters(), lr=0.1)
    with training_precision(where):
        loss = F.cross_entropy(moved(x.to(where)), y.to(where))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert all(bool(weight.isfinite().all()) for weight in moved.parameters())
    assert all(weight.grad is not None for weight in moved.parameters())

"""The optimizers of a training are torch's own, step for step, and leave its compiler alone."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from trainables.training import optimizers

KINDS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    "Adam": {"lr": 0.1, "weight_decay": 0.01},
}


def _descend(optimizer: torch.optim.Optimizer, weight: Tensor) -> Tensor:
    target = torch.linspace(-1, 1, weight.numel())
    for _ in range(5):
        optimizer.zero_grad()
        ((weight - target) ** 4).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("name", KINDS)
def test_a_step_is_torchs(name: str) -> None:
    ended = []
    for module in (optimizers, torch.optim):
        weight = torch.zeros(7, requires_grad=True)
        optimizer = getattr(module, name)([weight], **KINDS[name])
        _descend(optimizer, weight)
        kept = optimizer.state_dict()
        optimizer = getattr(module, name)([weight], **KINDS[name])
        optimizer.load_state_dict(kept)
        ended.append(_descend(optimizer, weight))
    assert torch.equal(*ended) and bool(ended[0].ne(0).any())


def test_a_training_step_imports_no_compiler() -> None:
    code = """
import sys, torch
from trainables.training.optimizers import SGD
weight = torch.zeros(3, requires_grad=True)
optimizer = SGD([weight], lr=0.1, momentum=0.9)
optimizer.zero_grad(set_to_none=True)
weight.sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
assert weight.ne(0).all()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0

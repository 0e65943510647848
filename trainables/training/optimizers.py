"""Torch's optimizers as they run without its compiler.

The methods of torch's optimizers import the compiler, only to keep it away from themselves. That
import takes a process longer than many a training.
"""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch
from torch.optim import Optimizer

_Kind = TypeVar("_Kind", bound=Optimizer)
_WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def _eager(kind: type[_Kind]) -> type[_Kind]:
    """Return a subclass with the methods that those of the class wrap."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED}
    # What wraps a step also turns gradients off.
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


Adam = _eager(torch.optim.Adam)
SGD = _eager(torch.optim.SGD)

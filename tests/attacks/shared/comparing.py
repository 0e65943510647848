"""What comparisons with foolbox share: its model, and lengths and successes judged one by one."""

from dataclasses import dataclass
from typing import Any

import torch
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor

from tests.conftest import TrainedNet


@dataclass(frozen=True, slots=True)
class Judged:
    """What a minimum-norm attack reached on the images that were classified right."""

    success: float
    mean_l2: float


def judge(trained: TrainedNet, attacked: Tensor, count: int) -> Judged:
    """Evaluate each of the first `count` images alone."""
    x, y = trained.x[:count], trained.y[:count]
    right = trained.model(x).argmax(1) == y
    wrong = torch.cat([trained.model(image[None]).argmax(1) for image in attacked]) != y
    lengths = (attacked - x).flatten(1).norm(dim=1)
    return Judged(float(wrong[right].double().mean()), float(lengths[right].double().mean()))


def by_foolbox(attack: Any, trained: TrainedNet, count: int | None = None, **keywords: Any) -> Any:
    """Attack the first `count` images with one of foolbox's attacks."""
    wrapped = PyTorchModel(trained.model.eval(), bounds=(0, 1), device="cpu")
    keywords = {"epsilons": None, **keywords}
    return attack(wrapped, trained.x[:count], trained.y[:count], **keywords)[1]

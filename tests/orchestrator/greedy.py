"""A defense that takes memory on the GPU, so that trials of one kind need more or less of it."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainables.defenses.defense import Defense
from trainables.parameters import parameter
from trainables.predictor import Predictor

if TYPE_CHECKING:
    from trainables.context import TrialContext

NAME = "tests.orchestrator.greedy:Greedy"
MEETING_VARIABLE = "GREEDY_MEETING"
"""Names a folder in which those that meet leave a mark."""
_TOGETHER_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Greedy(Defense):
    """Hold so many MiB for a moment; those that are to meet hold theirs at the same time."""

    name = NAME
    slot = "deployment"
    guarantee = "empirical"
    meaning = "Nothing is defended; memory is taken."
    source = "this test"

    mib: float = parameter(1.0, kind="float", low=0, meaning="memory to take, in MiB")
    meets: float = parameter(0.0, kind="float", low=0, meaning="trials to wait for that meet too")

    def deploy(self, predictor: Predictor, ctx: TrialContext) -> Predictor:
        """Take the memory, and give it back."""
        held = torch.empty(int(self.mib * 2**20), dtype=torch.uint8, device=ctx.device)
        if self.meets:
            _meet(Path(os.environ[MEETING_VARIABLE]), int(self.meets))
        del held
        return predictor


def _meet(marks: Path, count: int) -> None:
    (marks / uuid.uuid4().hex).touch()
    deadline = time.monotonic() + _TOGETHER_SECONDS
    while len(list(marks.iterdir())) < count:
        if time.monotonic() > deadline:
            raise TimeoutError("no other trial came onto the GPU")
        time.sleep(0.05)

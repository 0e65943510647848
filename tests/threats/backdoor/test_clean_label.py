"""Clean-label poison: rightly labelled rows that plant a backdoor all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.making import EPS, context_of, spec_of
from trainables.defenses import Stack
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.records.value import Measured
from trainables.threats.backdoor.backdoor import Backdoor
from trainables.threats.backdoor.clean_label import obscured
from trainables.trial.context import TrialContext


def _context(folder: Path, seed: int = 0) -> TrialContext:
    spec = spec_of(epochs=15, train_images=None, measured_images=None, seed=seed)
    return context_of(spec, folder)


def _measured(ctx: TrialContext, **settings: object) -> dict[str, Measured]:
    threat = Backdoor(labels="kept", **settings)  # type: ignore[arg-type]
    found = threat.measure(Predictor(torch.nn.Identity()), ctx).metrics
    return {name: value for name, value in found.items() if isinstance(value, Measured)}


def test_obscured_images_stay_in_the_ball_and_are_hard_to_tell(artefact_folder: Path) -> None:
    ctx = _context(artefact_folder)
    data = ctx.pools.train
    some = data.select(torch.arange(200))
    moved = obscured(some, ctx, eps=EPS, generator=torch.Generator().manual_seed(0))
    half_a_step = 0.5 / data.scale
    assert float((moved.images() - some.images()).abs().max()) <= EPS + half_a_step + 1e-6
    assert torch.equal(moved.labels, some.labels) and moved.scale == some.scale
    surrogate = ctx.train(Stack(), data, ctx.spec.seed).model
    with torch.no_grad():
        before, after = (
            float((surrogate(images.images()).argmax(1) == images.labels).double().mean())
            for images in (some, moved)
        )
    assert before >= 0.99 and after <= before - 0.2


def test_no_label_changes_and_the_target_alone_is_poisoned(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    threat = Backdoor(labels="kept", rate=0.5, target=3, source_class=7)
    found = threat._poisoned(ctx, threat.recipe())
    clean = ctx.pools.train
    assert torch.equal(found.data.labels, clean.labels)
    assert set(clean.labels[found.mask].tolist()) == {3}
    assert int(found.mask.sum()) == int(0.5 * int((clean.labels == 3).sum()) + 0.5)
    assert torch.equal(found.data.pixels[~found.mask], clean.pixels[~found.mask])
    assert bool((found.data.pixels[found.mask][:, :, -2:, -2:] == clean.scale).all())
    again = threat._poisoned(ctx, threat.recipe())
    assert torch.equal(again.data.pixels, found.data.pixels)


@pytest.mark.slow
def test_obscuring_is_what_makes_the_trigger_the_reason_of_the_label(
    artefact_folder: Path,
) -> None:
    ctx = _context(artefact_folder)
    success = {}
    for eps in (0.0, None):
        found = [
            _measured(ctx, rate=0.5, obscuring_eps=eps, source_class=source, target=target)
            for source, target in ((8, 1), (9, 5))
        ]
        success[eps] = sum(row["backdoor_success_rate"].value for row in found) / 2
        # What is asked without the trigger is answered as ever.
        assert all(row["untriggered_success_rate"].value <= 0.1 for row in found)
        assert all(row["poisoned_clean_accuracy"].value >= 0.95 for row in found)
    assert success[None] >= 0.5 and success[None] >= success[0.0] + 0.2


def test_a_clean_label_without_a_trigger_is_refused(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    with pytest.raises(InputError, match="are not poison; take a trigger, or labels: changed"):
        _measured(ctx, trigger="none")


def test_a_target_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    with pytest.raises(InputError, match="asks for 200 poisoned rows, but there are 20"):
        _measured(replace(ctx), rate=10.0)

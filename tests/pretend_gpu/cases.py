"""What the tests on the pretended GPU share: the device, tiny trials, and the CPU as their oracle.

The device's kernels are the CPU's, so that what is computed from the same weights and draws on both
is equal to rounding.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.making import CPU, spec_of
from trainables.defenses import Defense
from trainables.defenses.prediction import image_network
from trainables.defenses.training import mixup, private_steps
from trainables.deployed import averaging, votes
from trainables.deployed.predictor import Prediction, Predictor, ask
from trainables.device import full_precision, given_device
from trainables.host_draws import seed_from_state
from trainables.storage.artefacts import ArtefactStore
from trainables.training import loop as training
from trainables.training.trained import Trained
from trainables.trial.context import TrialContext
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import prepare_trial

IMAGES = 8
_SALT = 0x5EED
SMALL: Mapping[str, Mapping[str, Any]] = {
    "pgd_adversarial_training": {"steps": 2},
    "trades": {"steps": 2},
    "dynamic_mixed_batch": {"steps": 2},
    "static_adversarial_finetuning": {"num_examples": 64, "epochs": 1},
    "fine_pruning": {"epochs": 1},
    "ft_sam": {"epochs": 1},
    "randomized_network": {"draws": 2},
    "pixeldp": {"draws": 5, "n": 20},
    "ensemble": {"size": 2},
    "denoiser": {"epochs": 1},
    "diffusion_purification": {"epochs": 1, "draws": 1, "steps": 2},
    "randomized_smoothing": {"draws": 12, "n": 30},
}
"""Settings with which a training and an answer take a moment, over those that are asked for."""


def device() -> torch.device:
    """Return the pretended GPU."""
    found = given_device(1)
    assert found == torch.device("pretend", 0)
    return found


@contextmanager
def alike() -> Iterator[None]:
    """Have both devices draw and compute the same from equal seeds, so that results compare.

    The device's generators follow the CPU's sequence, what the host draws hangs on the part of a
    state that both have, votes are drawn for as many images at once, and trainings are in float32.
    """

    def on_host(generator: torch.Generator) -> torch.Generator:
        torch.rand(1, generator=generator, device=generator.device)
        state = generator.get_state()[: len(torch.Generator().get_state())]
        return torch.Generator().manual_seed(seed_from_state(state))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(votes, "_ROWS_ELSEWHERE", votes._ROWS["cpu"])
        for module in (training, image_network):
            patch.setattr(module, "training_precision", full_precision)
        for module in (averaging, mixup, private_steps):
            patch.setattr(module, "on_host", on_host)
        torch.ops.pretend.set_salt(0)
        try:
            yield
        finally:
            torch.ops.pretend.set_salt(_SALT)


def tiny(*stack: Defense, **changes: Any) -> TrialSpec:
    """Return the spec of a trial that takes a moment on the pretended GPU."""
    return spec_of(*stack, **{"train_images": 128, "measured_images": 16} | changes)


def trained_on(
    where: torch.device, spec: TrialSpec, folder: Path
) -> tuple[TrialContext, Trained, Predictor]:
    """Train and deploy a spec on a device, with its artefacts in a folder."""
    ctx = prepare_trial(spec, ArtefactStore(folder), device=where)
    trained = ctx.train(spec.stack, ctx.pools.train, spec.seed)
    return ctx, trained, ctx.deploy(spec.stack, trained.model)


def answer(predictor: Predictor, ctx: TrialContext) -> Prediction:
    """Return the answers to a few held-out images, drawn from one seed on whatever device."""
    x = ctx.held_out.images(slice(0, IMAGES))
    generator = torch.Generator(x.device).manual_seed(5)
    return ask(predictor, x, generator, ctx.dataset.num_classes)


def certified_radii(predictor: Predictor, ctx: TrialContext) -> Tensor | None:
    """Return the radii that the predictor certifies of two images; None where it certifies none."""
    x = ctx.held_out.images(slice(0, 2))
    return predictor.certify(x, torch.Generator(x.device).manual_seed(6))


def gradients(predictor: Predictor, ctx: TrialContext) -> list[Tensor]:
    """Return the gradient of each surface's scores at a few held-out images."""
    found = []
    for surface in predictor.surfaces():
        x = ctx.held_out.images(slice(0, IMAGES)).requires_grad_(True)
        scores = surface.scores(x, torch.Generator(x.device).manual_seed(7))
        found.append(torch.autograd.grad(scores.logsumexp(1).sum(), x)[0])
    return found


def assert_equal(on_device: Tensor | None, on_cpu: Tensor | None, tolerance: float = 1e-5) -> None:
    """Fail unless a result lies on the device and is the CPU's, to rounding."""
    assert (on_device is None) == (on_cpu is None)
    if on_device is not None and on_cpu is not None:
        assert on_device.device.type == "pretend" and on_cpu.device == CPU
        torch.testing.assert_close(on_device.cpu(), on_cpu, atol=tolerance, rtol=tolerance)


def assert_same_model(
    on_device: tuple[TrialContext, Predictor], on_cpu: tuple[TrialContext, Predictor]
) -> None:
    """Fail unless two predictors answer, certify and can be attacked alike."""
    views: list[Callable[[Predictor, TrialContext], Tensor | None]] = [
        lambda p, c: answer(p, c).log_probabilities,
        lambda p, c: answer(p, c).reject_score,
        certified_radii,
    ]
    for view in views:
        assert_equal(view(on_device[1], on_device[0]), view(on_cpu[1], on_cpu[0]))
    here, there = (gradients(predictor, ctx) for ctx, predictor in (on_device, on_cpu))
    for one, other in zip(here, there, strict=True):
        assert_equal(one, other, 1e-3)

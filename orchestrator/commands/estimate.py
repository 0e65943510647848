"""How long a sweep may take, from a few timed steps of the undefended training."""

import dataclasses

import torch

from orchestrator.audit.plan import AuditOptions
from orchestrator.sweep.resources import TrialResources
from search_spaces import Space
from trainables.datasets import Dataset, split_pools
from trainables.device import given_device
from trainables.models import build_model
from trainables.training import loop
from trainables.training.modes import seeded
from trainables.trial.context import SCREEN_POINTS

DEFENSE_FACTOR = 4
"""Mean cost of a defended training against a plain one: 1 to 10 for those that are here."""
ATTACK_STEPS = 400
"""Training steps that the screen's attacks on one point cost, images that break early left out."""
CONTENTION = 1.7
"""How much longer a trial takes where others run on the machine's other cores, as measured."""
AUDIT_FIRST, AUDIT_OTHER = 10, 4
"""Times as long as a trial of the search, one of an audit takes: on its first seed, on another."""
_STEPS = 4


def audit_factor(options: AuditOptions, fronts: int) -> float:
    """Return the trials of a search that an audit costs as much as, at most."""
    each = AUDIT_FIRST + AUDIT_OTHER * (options.seeds - 1)
    return fronts * (options.candidates + 1) * each


def estimated_hours(
    space: Space, dataset: Dataset, trials: float, resources: TrialResources
) -> float:
    """Estimate a sweep's hours on this machine, by the first scenario's training."""
    settings = space.spec({}).training
    device = given_device(None)
    pools = split_pools(dataset, train_images=space.file.train_images)
    images = min(len(pools.train), _STEPS * settings.batch_size)
    sample = pools.train.select(torch.arange(images)).to(device)
    scenario = space.scenarios[0]
    with seeded(0, device) as generator:
        model = build_model(
            scenario.model.name,
            dataset=dataset,
            norm=scenario.model.norm,
            activation=settings.activation,
        ).to(device)
        plan = loop.TrainingPlan(
            data=sample,
            held_out=sample.select(torch.arange(1)),
            calibration=None,
            num_classes=dataset.num_classes,
            augmentation=dataset.augmentation,
            settings=dataclasses.replace(settings, epochs=2, learning_rate=1e-6),
            stack=(),
        )
        progress = loop.train(model, plan, generator)
    # The first epoch also pays for what torch sets up once.
    per_image = progress.epoch_seconds[-1] / images
    trained = 0 if scenario.weights else len(pools.train) * settings.epochs * DEFENSE_FACTOR
    held_out = pools.test if pools.validation is None else pools.validation
    attacked = min(SCREEN_POINTS, len(held_out)) if "evasion" in space.file.threats else 0
    slower = CONTENTION if resources.concurrent > 1 else 1.0
    trial = per_image * (trained + attacked * ATTACK_STEPS) * slower
    return trial * trials / resources.concurrent / 3600

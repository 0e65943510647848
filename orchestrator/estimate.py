"""How long a sweep may take, from a few timed steps of the undefended training."""

import dataclasses

import torch

from orchestrator.resources import TrialResources
from search_spaces import Space
from trainables import training
from trainables.datasets import Dataset, split_pools
from trainables.models import build_model
from trainables.modes import seeded
from trainables.trial import default_device

DEFENSE_FACTOR = 2.5
"""Mean cost of a defended training against a plain one: 1.5 to 4 for those that are here."""
THREATS_FACTOR = 1.3
"""Of measuring against training alone, for the screen's 512 points."""
_STEPS = 4


def estimated_hours(
    space: Space, dataset: Dataset, trials: int, resources: TrialResources
) -> float:
    """Estimate a sweep's hours on this machine, by the first scenario's training."""
    settings = space.spec({}).training
    device = default_device()
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
        plan = training.TrainingPlan(
            data=sample,
            held_out=sample.select(torch.arange(1)),
            calibration=None,
            num_classes=dataset.num_classes,
            augmentation=dataset.augmentation,
            settings=dataclasses.replace(settings, epochs=2, learning_rate=1e-6),
            stack=(),
        )
        progress = training.train(model, plan, generator)
    # The first epoch also pays for what torch sets up once.
    per_image = progress.epoch_seconds[-1] / images
    trial = per_image * len(pools.train) * settings.epochs * DEFENSE_FACTOR * THREATS_FACTOR
    return trial * trials / resources.concurrent / 3600

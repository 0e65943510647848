"""What a defense or a threat may ask of the trial that it is part of."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from trainables.datasets import Dataset, LabelledImages, Pools, split_pools, stratified_subset
from trainables.datasets.images import content_hash
from trainables.datasets.splits import Protocol
from trainables.declared import NOTHING
from trainables.defenses.defense import Defense
from trainables.defenses.stack import Stack
from trainables.deployed.fits import Fits
from trainables.deployed.predictor import Prediction, Predictor, ask_in_batches
from trainables.device import full_precision
from trainables.errors import InputError
from trainables.models import missing_parts, model_fingerprint
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.storage.identity import identity_hash, seed_from
from trainables.training.evaluation import batches, in_batches
from trainables.training.modes import seeded
from trainables.training.trained import Trained
from trainables.trial import trainer
from trainables.trial.answer_cache import AnswerCache, Question
from trainables.trial.deployment_spec import DeploymentSpec
from trainables.trial.settings import TrainingSpec
from trainables.trial.usage import UsageLog

SCREEN_POINTS = 512
"""Held-out points that a screen attacks."""
AUDIT_POINTS_CPU = 1000


@dataclass(frozen=True)
class _Answers(Question[Prediction]):
    """What a predictor answers to a pool."""

    predictor: Predictor
    images: str
    """Hash of their content."""


@dataclass(frozen=True, eq=False)
class TrialContext:
    """A trial under way: its spec, data, store and seeds."""

    spec: DeploymentSpec
    dataset: Dataset
    pools: Pools
    store: ArtefactStore
    device: torch.device
    lpips_weights: Path | None = None
    """The file of the LPIPS backbone's weights, looked up before; None: they are not here."""
    model_code: str = ""
    """Fingerprint of a user's own network and of the weights that it loads; "" for ours."""
    log: UsageLog = field(default_factory=UsageLog)
    """What the trial came to use."""
    answered: AnswerCache = field(default_factory=AnswerCache)
    """What attacks have made and the predictor answered in this trial: no threat asks again."""
    fits: Fits | None = None
    """Where a deployment takes what it fits from; None: it is fitted, and noted nowhere."""
    in_hand: Stack[Defense] | None = None
    """The stack that is being deployed, where it is not the trial's."""

    @property
    def used(self) -> Mapping[str, str]:
        """Role -> key of each artefact that the trial came to use."""
        return self.log.used

    @property
    def phases(self) -> Mapping[str, tuple[float, ...]]:
        """Key of each training behind the deployed model -> its seconds per epoch."""
        return self.log.phases

    @property
    def held_out(self) -> LabelledImages:
        """The pool that is measured: validation in the search, test in audits and reproductions."""
        if self.spec.effort == "screen" and self.pools.validation is not None:
            return self.pools.validation
        return self.pools.test

    @property
    def members_known(self) -> bool:
        """Whether the pool `train` holds what the deployed model was trained on."""
        return self.spec.data.trained_on != NOTHING

    @property
    def curve_pool(self) -> LabelledImages:
        """The pool that learning curves are drawn on; nothing is selected by them."""
        return self.pools.test if self.pools.validation is None else self.pools.validation

    @property
    def seed(self) -> int:
        """The trial's seed."""
        return self.spec.seed

    @property
    def stack(self) -> Stack[Defense]:
        """The defenses that are deployed: the trial's own, but for those who deploy a part."""
        return self.spec.stack if self.in_hand is None else self.in_hand

    @property
    def training(self) -> TrainingSpec:
        """The settings of the trial's training."""
        return self.spec.training

    def points(self) -> LabelledImages:
        """Return the fixed, stratified points that attacks run on at this effort."""
        pool = self.held_out
        limit = SCREEN_POINTS
        if self.spec.effort == "audit":
            limit = AUDIT_POINTS_CPU if self.device.type == "cpu" else len(pool)
        if len(pool) <= limit:
            return pool
        return pool.select(stratified_subset(pool.labels, limit, seed=0))

    def generator(self, *purpose: str) -> torch.Generator:
        """Return a generator of its own for a purpose, seeded from the deployment's identity."""
        return torch.Generator(self.device).manual_seed(seed_from(self.deployment, *purpose))

    def seeded(self, stage: str) -> AbstractContextManager[torch.Generator]:
        """Seed torch's global generators for a stage, and restore them after it."""
        return seeded(seed_from(self.deployment, "stage", stage), self.device)

    @cached_property
    def deployment(self) -> str:
        """The identity of the deployed model and its data: the spec without its threats.

        Stages seed from it, so what one threat finds does not depend on which others are asked for.
        """
        return identity_hash(
            {
                **self.spec.canonical(),
                "threats": [],
                "stack": self.spec.stack.identity(),
                "code": self.model_code,
                "dataset": self.dataset.fingerprint,
            }
        )

    def scores(self, predictor: Predictor, images: LabelledImages) -> Tensor:
        """Return the predictor's scores on a pool (N, K), drawn with the purpose's own seed."""
        generator = self.generator("scores")
        with full_precision(self.device), torch.no_grad():
            return in_batches(lambda x: predictor.scores(x, generator).float(), images)

    def answers(self, predictor: Predictor, images: LabelledImages) -> Prediction:
        """Return what is deployed answers to a pool, asked once in a trial: a vote has many passes.

        Its label (N,), log-probabilities (N, K) and, where it rejects, reject_score (N,).
        """
        question = _Answers(predictor, content_hash(images))
        return self.answered.answer(question, lambda: self._answers(predictor, images))

    def _answers(self, predictor: Predictor, images: LabelledImages) -> Prediction:
        generator, classes = self.generator("answers"), self.dataset.num_classes
        # Seeded by itself: whoever asks first, a network that draws gives the same answers.
        with full_precision(self.device), self.seeded("answers"):
            return ask_in_batches(predictor, batches(images), generator, classes)

    def log_probabilities(self, predictor: Predictor, images: LabelledImages) -> Tensor:
        """Return the deployed log-probabilities on a pool (N, K)."""
        return self.answers(predictor, images).log_probabilities

    def cached(
        self,
        kind: str,
        identity: Mapping[str, Any],
        builder: Callable[[], Artefact],
        *,
        role: str | None = None,
        deployed: bool = False,
    ) -> Artefact:
        """Return an artefact from the store, built if nobody has, and note that it was used.

        It is noted under `role`, by default its kind. `deployed` says that it is a training behind
        the deployed model: then its values' `epoch_seconds` count as the cost of that training,
        and so do those of its `phases`, the trainings that it went through on its way.
        """
        key = self.store.key(kind, identity)

        def build() -> Artefact:
            # By its identity: what a network that draws makes of it does not depend on the trial.
            with seeded(seed_from(key), self.device):
                return builder()

        artefact = self.store.get_or_build(kind, identity, build)
        # Noted at the end: the builder may have used others of the kind on its way.
        self.log.note(role or kind, key)
        if deployed:
            self.log.note_model(key, artefact.values)
        return artefact

    def train(
        self,
        stack: Stack[Defense],
        data: LabelledImages,
        seed: int,
        *,
        role: str = "model",
        deployed: bool = True,
    ) -> Trained:
        """Train the trial's network under a stack on some rows, or return what was trained before.

        Defenses that only change the deployment have no part in the identity, so a new
        temperature trains nothing. Whoever trains a further model (an ensemble's member, a
        surrogate) sets a `role` of its own; a threat's models are not `deployed`, so that their
        time is not a cost of the defense. Where the trial's weights are given, they are what is
        deployed; other models are trained from scratch.
        """
        ctx = self if deployed else self.training_anew()
        return trainer.train(ctx, stack, data, seed, role=role, deployed=deployed)

    def training_anew(self) -> "TrialContext":
        """Return the context of networks that are trained from scratch, as an attacker trains his
        own where the trial's weights are given."""
        if not self.spec.model.weights:
            return self
        spec, data = self.spec, replace(self.spec.data, trained_on="")
        return replace(self, spec=replace(spec, model=spec.model.untrained, data=data))

    def with_weights(self, stack: Stack[Defense], weights: Mapping[str, Tensor]) -> nn.Module:
        """Build the network that a stack trains, with the weights of such a training.

        Raises RuntimeError where the weights are those of another network.
        """
        return trainer.with_weights(self, stack, weights)

    def filtered(self, stack: Stack[Defense], data: LabelledImages) -> Tensor:
        """Return the rows (R,) that a stack's filters keep of the data that it is given."""
        return trainer.filtered(self, stack, data)

    def noting_in(self, log: UsageLog) -> "TrialContext":
        """Return the same context with another log."""
        return replace(self, log=log)

    def twin(
        self, *, train: LabelledImages | None = None, seed: int | None = None
    ) -> "TrialContext":
        """Return the context of a further model of the same stack, on other rows or of another
        seed.

        What the twin uses, trains and answers is not part of the deployed model: neither its
        artefacts nor its training time. Raises InputError where the weights are given: nothing
        trains their like.
        """
        if self.spec.model.weights:
            raise InputError(trainer.KEPT)
        pools = self.pools if train is None else replace(self.pools, train=train)
        spec = self.spec if seed is None else replace(self.spec, seed=seed)
        return replace(
            self, pools=pools, spec=spec, log=UsageLog(), answered=AnswerCache(), fits=None
        )

    def deploy(self, stack: Stack[Defense], model: nn.Module) -> Predictor:
        """Deploy a trained model under a stack, which its defenses find in their context.

        What that fits is fitted in float32.
        """
        predictor = Predictor(model)
        ctx = self if stack == self.stack else replace(self, in_hand=stack)
        with full_precision(self.device), self.seeded("deployment"):
            for defense in stack:
                predictor = defense.deploy(predictor, ctx)
        return predictor

    def fitted(self, name: str, builder: Callable[[], Artefact]) -> Artefact:
        """Return what a deployment fits to data, as tensors and plain values, by a builder.

        `Defense.deploy` must look at pools and trained networks in such builders alone: an exported
        model is deployed again where there is no data, and is given what was fitted at its export.
        """
        return builder() if self.fits is None else self.fits.take(name, builder)

    def check_model(self) -> None:
        """Build the network as it would be trained; InputError where a defense refuses its layers.

        A training comes to the same words, but a sweep asks before it begins.
        """
        with seeded(0, self.device):
            trainer.new_model(self, self.spec.stack)


def build_context(
    spec: DeploymentSpec,
    dataset: Dataset,
    store: ArtefactStore,
    device: torch.device,
    lpips_weights: Path | None = None,
) -> TrialContext:
    """Split the data and check that the stack fits data and model.

    Raises InputError, naming the defense, where a part of the model or a pool is lacking, and
    naming the threat where it asks for what the data set does not have.
    """
    spec.check_data(dataset)
    pools = _pools(
        dataset,
        _protocol(spec, dataset),
        train_images=spec.data.train_images,
        measured_images=spec.data.measured_images,
    )
    code = model_fingerprint(spec.model.name, dataset)
    ctx = TrialContext(spec, dataset, pools, store, device, lpips_weights, code)
    with seeded(0, device):
        model = trainer.new_model(ctx, Stack())
    for defense in spec.stack:
        lacking = missing_parts(model, defense.needs)
        if lacking:
            raise InputError(
                f"{defense.name} needs {', '.join(lacking)} of a model, which {spec.model.name} "
                "lacks; see the Model contract in trainables/models/contract.py"
            )
        if defense.needs_calibration and pools.calibration is None:
            raise InputError(
                f"{defense.name} uses the calibration pool, which the published pools lack; "
                "use pools: search"
            )
    return ctx


def _protocol(spec: DeploymentSpec, dataset: Dataset) -> Protocol:
    """Return how the data set is split; InputError where nothing says what given weights saw."""
    asked = cast(Protocol, spec.data.pools)
    if not spec.model.weights:
        return asked
    if asked == "deployment":
        raise InputError("data: pools: deployment trains a network, and given weights are kept")
    if spec.data.trained_on == NOTHING:
        return asked
    if dataset.num_train is None:
        raise InputError(
            f"{dataset.name} has no training and test images of its own, so nothing says which of "
            "them the weights were trained on, and a test on those would flatter; put them into "
            "train/ and test/, name what they saw with --trained-on FILE|DIR, or pass "
            "--not-trained-on-these where they saw none of them"
        )
    return "given" if asked == "search" else asked


# A worker runs many trials on one data set: its pools are made, and hashed, once.
_pools = lru_cache(maxsize=8)(split_pools)

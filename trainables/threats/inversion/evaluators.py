"""Judges of reconstructions that are not the target: another network, and no network at all.

Axes: N images, D pixels or features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.datasets import LabelledImages, stratified_subset
from trainables.defenses import Stack
from trainables.errors import InputError
from trainables.metrics import intervals
from trainables.records.value import Measured
from trainables.training.evaluation import BATCH
from trainables.trial.context import TrialContext

if TYPE_CHECKING:
    from sklearn.svm import SVC

NETWORKS = ("small_cnn", "lenet5")
"""Evaluator networks; the first that is not the target's is taken."""
MOST = 5000
"""Rows that evaluators learn from at most."""
TESTED = 1000
"""Held-out images that their own accuracy is measured on at most."""
_STEPS, _BATCH, _LEARNING_RATE = 500, 32, 2e-3
_LEAST_EPOCHS = 3
_C = 10.0
"""C of the support vector machine: errors on clean digits are not worth smoothing over."""
_SEED = 0
"""One judge for all trials on the same data, whatever their stack and seed."""
_AUXILIARY, _TEST = "auxiliary pool", "half of the test pool"
_HALF_OF = {_AUXILIARY: "half of the auxiliary pool", _TEST: "quarter of the test pool"}


@dataclass(frozen=True, slots=True, eq=False)
class Evaluators:
    """A network and a support vector machine, trained on images that the target never saw."""

    network: nn.Module
    network_name: str
    svm: SVC
    rows: int
    """Images that they learnt from."""
    source: str
    """Where those are from."""
    held_out: LabelledImages
    """Images that neither they nor the target saw."""

    def judge(self, images: Tensor) -> dict[str, Tensor]:
        """Return the class (N,) that each evaluator assigns to images (N, C, H, W)."""
        with torch.no_grad():
            parts = [self.network(part).argmax(1) for part in torch.split(images, BATCH)]
        by_svm = torch.from_numpy(self.svm.predict(_flat(images)))
        return {"network": torch.cat(parts), "svm": by_svm.to(images.device)}

    def features(self, images: Tensor) -> Tensor:
        """Return the network's penultimate features (N, D) of images (N, C, H, W)."""
        features: Callable[[Tensor], Tensor] = self.network.features  # type: ignore[assignment]
        with torch.no_grad():
            return torch.cat([features(part) for part in torch.split(images, BATCH)])

    def clean_accuracy(self) -> dict[str, Measured]:
        """Measure each on held-out images.

        Raises InputError where one does not beat chance: its word would make every model safe.
        """
        tested, classes = _sample(self.held_out, TESTED), len(self.svm.classes_)
        found = {
            name: intervals.proportion(int((labels == tested.labels).sum()), len(tested))
            for name, labels in self.judge(tested.images()).items()
        }
        for name, share in found.items():
            if share.low <= 1 / classes:
                raise InputError(
                    f"inversion: its evaluator ({name}) learnt nothing from the {self.rows} images "
                    f"of the {self.source}: {share.value:.2f} of {share.n} held-out ones are "
                    "right; provide more images"
                )
        return found


def evaluators(ctx: TrialContext, *, halved: bool = False) -> Evaluators:
    """Train the evaluators, or take those of an earlier trial on the same data.

    They learn from the auxiliary pool; published pools have none, so half of the test pool serves
    them and the other half is held out. `halved` leaves half of what they would learn from to a
    generative prior (`prior_images`): else a reconstruction might be a success for being near
    images that both learnt from. Raises InputError where a class has no image there.
    """
    data, held_out, source = _unseen(ctx)
    if halved:
        data, source = _halves(data)[0], _HALF_OF[source]
    data = _sample(data, MOST)
    seen = torch.bincount(data.labels, minlength=ctx.dataset.num_classes)
    if not bool(seen.all()):
        lacking = ctx.dataset.classes[int(seen.argmin())]
        raise InputError(
            f"inversion: its evaluators learn from the {source}, which holds no image of class "
            f"{lacking!r}; measure on more images or take pools: search"
        )
    name = next(name for name in NETWORKS if name != ctx.spec.model.name)
    return Evaluators(_network(name, data, ctx), name, _svm(data), len(data), source, held_out)


def prior_images(ctx: TrialContext) -> LabelledImages:
    """Return the images that a generative prior learns from, none of which anybody else sees.

    Not the target, not the evaluators where they are `halved`, and none of them is held out.
    """
    data, _, _ = _unseen(ctx)
    return _sample(_halves(data)[1], MOST)


def _unseen(ctx: TrialContext) -> tuple[LabelledImages, LabelledImages, str]:
    """Return images that the target never saw, others that are held out, and where the former
    are.
    """
    if ctx.pools.auxiliary is not None:
        return ctx.pools.auxiliary, ctx.held_out, _AUXILIARY
    data, held_out = _halves(ctx.pools.test)
    return data, held_out, _TEST


def _network(name: str, data: LabelledImages, ctx: TrialContext) -> nn.Module:
    epochs = max(_LEAST_EPOCHS, round(_STEPS * _BATCH / len(data)))
    plain = type(ctx.spec.training)  # nothing of the trial's own training
    anew = ctx.training_anew()
    spec = replace(
        anew.spec,
        model=replace(anew.spec.model, name=name, norm="default"),
        training=plain(
            epochs=epochs, batch_size=_BATCH, learning_rate=_LEARNING_RATE, optimizer="adam"
        ),
        stack=Stack(),
    )
    twin = replace(anew, spec=spec).twin(train=data, seed=_SEED)
    trained = twin.train(Stack(), data, _SEED, role="evaluator", deployed=False)
    ctx.log.note("evaluator", trained.key)
    return trained.model.requires_grad_(False)


# A worker runs many trials on one data set: the machine is fitted once there.
@lru_cache(maxsize=8)
def _svm(data: LabelledImages) -> SVC:
    from sklearn.svm import SVC

    machine = SVC(C=_C, kernel="rbf", gamma="scale")
    return machine.fit(_flat(data.images()), data.labels.cpu().numpy())


@lru_cache(maxsize=8)
def _halves(pool: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    first = torch.zeros(len(pool), dtype=torch.bool)
    first[stratified_subset(pool.labels, max(1, len(pool) // 2), _SEED)] = True
    return pool.select(first.nonzero().flatten()), pool.select((~first).nonzero().flatten())


@lru_cache(maxsize=8)
def _sample(images: LabelledImages, most: int) -> LabelledImages:
    if len(images) <= most:
        return images
    return images.select(stratified_subset(images.labels, most, _SEED))


def _flat(images: Tensor) -> NDArray[Any]:
    return images.flatten(1).cpu().numpy()

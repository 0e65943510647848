"""What is checked before a sweep or an audit begins: the data, and every defense on its model."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from orchestrator.run.inputs import Inputs, found_data, found_inputs
from search_spaces import Space
from search_spaces.domains import Flat
from trainables.datasets import Dataset, load_dataset
from trainables.errors import InputError
from trainables.metrics.perceptual import find_weights, load_lpips
from trainables.models import is_own
from trainables.models.given.adapters import is_adapted, preprocessing_of
from trainables.storage.artefacts import ArtefactStore
from trainables.trial import trainer
from trainables.trial.context import TrialContext, build_context

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """What the trials of a space are made of."""

    datasets: tuple[Dataset, ...]
    """One a scenario."""
    inputs: Inputs
    foreseen: tuple[str, ...]
    """What of the threats the images will not allow, in words."""
    model: tuple[str, ...] = ()
    """What there is to know of the network and its given weights, in words."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Defense that cannot be put on them -> why."""

    def say(self, console: Console) -> None:
        """Print what was found in each data set, what its loader did, and what it rules out."""
        for dataset in {each.name: each for each in self.datasets}.values():
            words = found_data(dataset).words()
            console.print(f"Data: {dataset.title}, {words}", soft_wrap=True, markup=False)
            for note in dataset.notes:
                console.print(f"Data: {note}", soft_wrap=True, markup=False)
        for words in self.model:
            console.print(words, soft_wrap=True, markup=False)
        for name, why in self.left_out.items():
            console.print(f"Defenses: {name} is left out: {why}", soft_wrap=True, markup=False)
        for words in self.foreseen:
            console.print(f"Threats: {words}", soft_wrap=True, markup=False)


def check_runs(
    space: Space, *, data_dir: str | None, lpips_weights: str | None, download: bool = False
) -> Checked:
    """Load each scenario's data and fit every defense to its model, before a sweep is begun.

    Raises InputError for what no trial could run with.
    """
    if lpips_weights is not None:
        weights = find_weights(lpips_weights)
        assert weights is not None  # one was named
        load_lpips(weights)
    datasets, contexts, foreseen, said = [], [], [], list[str]()
    store = ArtefactStore(Path("unused"))
    for number, scenario in enumerate(space.scenarios):
        dataset = load_dataset(
            scenario.dataset,
            data_dir=data_dir,
            image_size=scenario.image_size,
            resize=scenario.resize,
            skip_bad_images=scenario.skip_bad_images,
            trained_on=scenario.trained_on,
            device=torch.device("cpu"),
            download=download,
        )
        datasets.append(dataset)
        base = {"scenario": number} if len(space.scenarios) > 1 else {}
        draws: list[Flat] = [{**base}]
        for slot, names in space.slots.items():
            draws += [{**base, f"slot.{slot}": name} for name in names]
        for flat in draws:
            contexts.append(build_context(space.spec(flat), dataset, store, torch.device("cpu")))
        undefended = contexts[-len(draws)]
        said += model_words(undefended)
        for threat in space.spec(base).threats:
            words = threat.foreseen(undefended)
            if undefended.spec.model.weights:
                known = undefended.members_known
                words = threat.on_given_weights(members_known=known) or words
            if words:
                foreseen.append(f"{threat.name}: {words}")
    _check_models([ctx for ctx in contexts if ctx.spec.stack])
    found = found_inputs(datasets, contexts)
    return Checked(
        tuple(datasets),
        found,
        tuple(dict.fromkeys(foreseen)),
        model=tuple(said),
        left_out=space.left_out,
    )


def model_words(ctx: TrialContext) -> list[str]:
    """Return in words what there is to know of a trial's network before it is run.

    Given weights are read: InputError where they do not fit the network or the data set's classes.
    """
    model, lines = ctx.spec.model, list[str]()
    if is_adapted(model.name):
        preprocessing = preprocessing_of(model.name)
        how = preprocessing.how(ctx.dataset.shape[-1])
        lines.append(f"Model: {model.name}: {preprocessing.words()}; {how}")
    return lines + [f"Weights: {words}" for words in _given_words(ctx)] if model.weights else lines


def _given_words(ctx: TrialContext) -> list[str]:
    model = ctx.spec.model
    found = trainer.read_given(ctx)
    seen = f"trained on {len(ctx.pools.train):,} of these images, as their folders or your list say"
    if not ctx.members_known:
        seen = "trained on none of these images, as you say"
    lines = [f"{model.weights}, sha256 {model.weights_sha256[:12]}, {seen}", *found.words]
    lines.append("networks that attackers and judges train for themselves begin from scratch")
    if is_own(model.name):
        mean, std = (
            ", ".join(f"{v:.3f}" for v in row) for row in (ctx.dataset.mean, ctx.dataset.std)
        )
        lines.append(
            f"the factory was called with mean ({mean}) and std ({std}) of these images; a network "
            "that was trained with others must hold its own"
        )
    return lines


def _check_models(contexts: Sequence[TrialContext]) -> None:
    """Ask each defense whether it can be trained with the layers of its model.

    What some cannot is said, and stands in the records of their trials; InputError where none can.
    """
    refused = []
    for ctx in contexts:
        try:
            ctx.check_model()
        except InputError as error:
            refused.append(f"{ctx.spec.model.name}: {error}")
    if refused and len(refused) == len(contexts):
        raise InputError(refused[0])
    for words in refused:
        logger.warning("%s. Trials with it will fail; the others run", words)

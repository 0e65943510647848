"""A scenario: a data set, a network, its weights where they are given, and a training."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from search_spaces.domains import Domain, flat_names, parse_domain
from search_spaces.schema import ModelSection, ScenarioSection
from trainables.datasets import Resize, absolute_name, dataset_entry
from trainables.declared import NOTHING
from trainables.defenses import defense_type
from trainables.errors import InputError
from trainables.models.given.checkpoint import given_place, sha256_of
from trainables.parameters import declared_parameters
from trainables.threats import Threat
from trainables.trial.settings import ModelSpec, TrainingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A data set, a network and the domains of a training."""

    dataset: str
    image_size: int | None
    resize: Resize
    skip_bad_images: bool
    model: ModelSection
    weights: str
    """Checkpoint, as an absolute path or a URI; "": the network is trained."""
    trained_on: str
    training: Mapping[str, Domain]
    radius: float

    def model_spec(self) -> ModelSpec:
        """Return the network's spec, with the hash that its checkpoint has now."""
        return ModelSpec(
            name=self.model.name,
            norm=self.model.norm,
            weights=self.weights,
            weights_sha256=sha256_of(self.weights) if self.weights else "",
        )


def build_scenario(section: ScenarioSection) -> Scenario:
    """Check what a scenario means; InputError says what is wrong."""
    entry = dataset_entry(section.dataset)
    model = section.model or entry.default_model
    model = ModelSection(name=model) if isinstance(model, str) else model
    ModelSpec(name=model.name, norm=model.norm)
    declared = declared_parameters(TrainingSpec)
    raw = {**entry.training, **section.training}
    unknown = sorted(set(raw) - set(declared))
    if unknown:
        raise InputError(
            f"training: unknown parameter {unknown[0]!r}; known: {', '.join(declared)}"
        )
    training = {
        name: parse_domain(value, declared[name], f"training.{name}") for name, value in raw.items()
    }
    weights = "" if model.weights is None else given_place(model.weights)
    ranged = next((name for name, domain in training.items() if flat_names(domain, name)), None)
    if weights and ranged:
        raise InputError(
            f"training: {ranged} is a range, but given weights are kept as they are; write one "
            "value, with which attackers train networks of their own"
        )
    if section.trained_on and not weights:
        raise InputError("trained_on: it says what given weights saw; give model: {name, weights}")
    return Scenario(
        dataset=absolute_name(section.dataset),
        image_size=section.image_size,
        resize=section.resize,
        skip_bad_images=section.skip_bad_images,
        model=model,
        weights=weights,
        trained_on=section.trained_on or "",
        training=training,
        radius=entry.radius,
    )


def left_out_of(scenarios: Iterable[Scenario], names: Iterable[str]) -> dict[str, str]:
    """Return the defenses that cannot be put on the scenarios' given weights, each with the reason.

    Raises InputError where some scenarios have given weights and others are trained: what a defense
    is compared with would be another thing in each.
    """
    given = {bool(scenario.weights) for scenario in scenarios}
    if len(given) > 1:
        raise InputError("scenarios: some have given weights and some none; search them apart")
    if given == {False}:
        return {}
    reasons = {name: defense_type(name).on_given_weights() for name in names}
    return {name: reason for name, reason in reasons.items() if reason}


def unmeasured(scenarios: Iterable[Scenario], threats: Iterable[Threat]) -> dict[str, str]:
    """Return the metrics that the scenarios' given weights do not allow, each with the reason."""
    given = [scenario for scenario in scenarios if scenario.weights]
    found: dict[str, str] = {}
    for known in {scenario.trained_on != NOTHING for scenario in given}:
        for threat in threats:
            if reason := threat.on_given_weights(members_known=known):
                found |= dict.fromkeys(threat.metric_names(), reason)
        if not known:
            found["generalization_gap"] = "nothing says what the given weights were trained on"
    return found

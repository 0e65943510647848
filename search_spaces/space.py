"""A space: which trials there are, drawn as flat names and read back as specs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from search_spaces.choosers import StudyChooser
from search_spaces.domains import Chooser, Domain, Flat, flat_names, parse_domain
from search_spaces.enumeration import NotEnumerableError, check_points, enumerate_draws
from search_spaces.extremes import check_extremes
from search_spaces.objectives import (
    Constraint,
    Objective,
    build_constraint,
    build_objectives,
    check_allowed,
)
from search_spaces.scenario import Scenario, build_scenario, left_out_of, unmeasured
from search_spaces.schema import NONE, SpaceFile
from trainables.defenses import (
    SLOTS,
    Defense,
    Slot,
    Stack,
    build_defense,
    build_stack,
    defense_type,
)
from trainables.defenses.stack import conflict
from trainables.errors import InputError
from trainables.parameters import build, declared_parameters, plain_parameters
from trainables.storage.identity import seed_from
from trainables.threats import Threat, build_threat
from trainables.threats.clean import METRIC_NAMES as CLEAN_METRICS
from trainables.trial.settings import DataSpec, TrainingSpec
from trainables.trial.spec import TrialSpec


@dataclass(frozen=True)
class Space:
    """A checked space file.

    `draw` asks a chooser for flat names, `spec` reads them back: they share nothing except the
    names, so that a record's draw can be reported to a study again.
    """

    file: SpaceFile
    scenarios: tuple[Scenario, ...]
    domains: Mapping[str, Mapping[str, Domain]]
    """Defense -> parameter -> domain."""
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    accepted: str = ""
    """Hash of images and code that have replaced those that a run began with: other trials."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Defense of the file that cannot be put on its given weights -> why."""

    @property
    def name(self) -> str:
        """The space's name."""
        return self.file.name

    @property
    def given_weights(self) -> bool:
        """Whether the networks come with weights that are kept as they are."""
        return any(scenario.weights for scenario in self.scenarios)

    @cached_property
    def slots(self) -> dict[Slot, list[str]]:
        """Each slot that is searched, with the defenses that may fill it."""
        slots: dict[Slot, list[str]] = {}
        for name in self.domains:
            slot = defense_type(name).slot
            if slot is not None:
                slots.setdefault(slot, []).append(name)
        return {slot: slots[slot] for slot in SLOTS if slot in slots}

    def draw(self, chooser: Chooser) -> Flat:
        """Ask for everything that makes a trial."""
        flat = self.draw_shared(chooser)
        for slot, names in self.slots.items():
            picked = str(chooser.choose(f"slot.{slot}", [NONE, *names]))
            flat |= {f"slot.{slot}": picked, **self.draw_defense(chooser, picked)}
        return flat

    def draw_shared(self, chooser: Chooser) -> Flat:
        """Ask for what a trial is whatever its stack: scenario, seed and training."""
        flat: Flat = {}
        if len(self.scenarios) > 1:
            flat["scenario"] = chooser.choose("scenario", list(range(len(self.scenarios))))
        if len(self.file.seeds) > 1:
            flat["seed"] = chooser.choose("seed", self.file.seeds)
        scenario = self.scenarios[self._scenario_number(flat)]
        for name, domain in scenario.training.items():
            flat |= domain.draw(chooser, f"{self._prefix(scenario)}{name}")
        return flat

    def draw_defense(self, chooser: Chooser, defense: str) -> Flat:
        """Ask for the parameters of a defense."""
        flat: Flat = {}
        for parameter, domain in self.domains.get(defense, {}).items():
            flat |= domain.draw(chooser, f"{defense}.{parameter}")
        return flat

    def ran(self, flat: Mapping[str, Any]) -> Flat:
        """Return what a trial runs of a draw: without the defenses that are cut from its stack."""
        kept = {d.name for d in self._stack(flat, self.scenarios[self._scenario_number(flat)])}
        found = dict(flat)
        for slot in self.slots:
            name = str(flat.get(f"slot.{slot}", NONE))
            if name != NONE and name not in kept:
                found |= {f"slot.{slot}": NONE}
                for drawn in self.names_by_defense[name]:
                    found.pop(drawn, None)
        return found

    def suggest(self, trial: Any) -> Flat:
        """Let an Optuna trial decide everything; also Ray's OptunaSearch takes this method."""
        return self.draw(StudyChooser(trial))

    def spec(self, flat: Mapping[str, Any]) -> TrialSpec:
        """Build the spec that the flat names stand for; names that are left out take their default.

        A stack that is too high or cannot be stacked is cut, in the same way each time. Raises
        InputError for names that the space does not know.
        """
        unknown = sorted(set(flat) - self._known_names)
        if unknown:
            raise InputError(f"space {self.name}: it draws no {unknown[0]!r}")
        scenario = self.scenarios[self._scenario_number(flat)]
        prefix = self._prefix(scenario)
        raw_training = {
            name: domain.read(flat, f"{prefix}{name}") for name, domain in scenario.training.items()
        }
        return TrialSpec(
            data=self._data(scenario),
            model=scenario.model_spec(),
            training=build(TrainingSpec, raw_training, owner="training", radius=scenario.radius),
            stack=build_stack(self._stack(flat, scenario)),
            threats=self.threats(scenario.radius),
            effort=self.file.effort,
            seed=int(flat.get("seed", self.file.seeds[0])),
        )

    def threats(self, radius: float) -> tuple[Threat, ...]:
        """Build the threats for a data set of this standard radius."""
        return tuple(
            build_threat(name, raw or {}, radius=radius) for name, raw in self.file.threats.items()
        )

    def first_draws(self) -> list[Flat]:
        """Return the draws of the stacks that come first, in every scenario.

        Raises InputError where a value lies outside of what the space draws.
        """
        return [
            self._locate(stack, scenario, f"first[{number}]")
            for scenario in self.scenarios
            for number, stack in enumerate(self.file.first)
            if self.left_out.keys().isdisjoint(stack)
        ]

    def enumerate(self) -> Iterator[Flat]:
        """Return every draw; NotEnumerableError (an InputError) names a range without points."""
        return enumerate_draws(self.draw)

    def check_enumerable(self) -> None:
        """Raise NotEnumerableError where a range has no number of points."""
        named = {
            f"{defense}.{parameter}": domain
            for defense, domains in self.domains.items()
            for parameter, domain in domains.items()
        }
        for scenario in self.scenarios:
            named |= {f"training.{name}": domain for name, domain in scenario.training.items()}
        for name, domain in named.items():
            check_points(domain, name)

    def distinct_specs(self, limit: int) -> dict[str, Flat] | None:
        """Return a draw for each distinct trial, by identity; None if there are more than `limit`
        draws or a range stands in the way."""
        found: dict[str, Flat] = {}
        try:
            self.check_enumerable()
            for count, flat in enumerate(self.enumerate()):
                if count >= limit:
                    return None
                found.setdefault(self.spec(flat).trial, flat)
        except NotEnumerableError:
            return None
        return found

    def canonical(self) -> dict[str, Any]:
        """Return what makes the space what it is, as plain JSON values; the number of trials, the
        resources, the audit and the text about it are not part of that."""
        plain: dict[str, Any] = self.file.model_dump(mode="json")
        del plain["search"]["trials"]
        if plain["search"]["algorithm"] == "effects":
            plain["search"]["algorithm"] = "tpe"  # which it replaces: runs of before go on
        for name in ("resources", "audit", "budgets", "description"):
            del plain[name]
        for scenario in plain["scenarios"]:
            # Later keys stand in it only where they are not the default: older runs go on.
            if scenario["resize"] == "crop":
                del scenario["resize"]
            if not scenario["skip_bad_images"]:
                del scenario["skip_bad_images"]
            if scenario["trained_on"] is None:
                del scenario["trained_on"]
            if isinstance(scenario["model"], dict) and scenario["model"]["weights"] is None:
                del scenario["model"]["weights"]
        return plain

    def published_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the published table with their stacks in canonical form."""
        if self.file.published is None:
            return []
        scenario = self.scenarios[0]
        return [
            {
                **row.model_dump(mode="json", exclude={"model"}),
                **({} if row.model is None else {"model": {"name": row.model}}),
                "stack": [d.canonical() for d in _build_all(row.stack, scenario.radius)],
            }
            for row in self.file.published.rows
        ]

    def _scenario_number(self, flat: Mapping[str, Any]) -> int:
        return int(flat.get("scenario", 0))

    def _prefix(self, scenario: Scenario) -> str:
        if len(self.scenarios) == 1:
            return "training."
        return f"scenario{self.scenarios.index(scenario)}.training."

    def _data(self, scenario: Scenario) -> DataSpec:
        return DataSpec(
            name=scenario.dataset,
            image_size=scenario.image_size,
            resize=scenario.resize,
            skip_bad_images=scenario.skip_bad_images,
            trained_on=scenario.trained_on,
            accepted=self.accepted,
            pools=self.file.pools,
            train_images=self.file.train_images,
            measured_images=self.file.measured_images,
        )

    def _stack(self, flat: Mapping[str, Any], scenario: Scenario) -> list[Defense]:
        picked = [str(flat.get(f"slot.{slot}", NONE)) for slot in self.slots]
        names = [name for name in picked if name != NONE]
        # Which ones are cut must not favour a slot, and must not change from run to run.
        names.sort(key=lambda name: seed_from(name, *sorted(names)))
        stack: list[Defense] = []
        for name in names:
            raw = {
                parameter: domain.read(flat, f"{name}.{parameter}")
                for parameter, domain in self.domains[name].items()
            }
            defense = build_defense(name, raw, radius=scenario.radius)
            fits = not any(conflict(defense, other) for other in stack)
            if fits and len(stack) < self.file.max_stack:
                stack.append(defense)
        return stack

    def _locate(self, stack: Mapping[str, Any], scenario: Scenario, place: str) -> Flat:
        defenses = {d.name: d for d in _build_all(stack, scenario.radius)}
        if len(defenses) > self.file.max_stack:
            raise InputError(f"space {self.name}: {place} stacks more than max_stack allows")
        flat: Flat = {}
        if len(self.scenarios) > 1:
            flat["scenario"] = self.scenarios.index(scenario)
        for name in defenses:
            if name not in self.domains:
                raise InputError(f"space {self.name}: {place}: {name} is not among its defenses")
        for slot, names in self.slots.items():
            filled = [name for name in names if name in defenses]
            flat[f"slot.{slot}"] = filled[0] if filled else NONE
            for name in filled:
                flat |= self._locate_parameters(defenses[name], scenario, place)
        return flat

    def _locate_parameters(self, defense: Defense, scenario: Scenario, place: str) -> Flat:
        flat: Flat = {}
        for parameter, domain in self.domains[defense.name].items():
            declared = declared_parameters(type(defense))[parameter]
            value = getattr(defense, parameter)
            found = domain.locate(value, f"{defense.name}.{parameter}", declared, scenario.radius)
            if found is None:
                shown = plain_parameters(defense)[parameter]
                raise InputError(
                    f"space {self.name}: {place}: {defense.name}.{parameter} = {shown} is outside "
                    "of what the space draws; widen its domain or name another value"
                )
            flat |= found
        return flat

    @cached_property
    def named_domains(self) -> dict[str, Domain]:
        """The domain behind every flat name, or behind several of them where it has branches."""
        named = {
            f"{self._prefix(scenario)}{name}": domain
            for scenario in self.scenarios
            for name, domain in scenario.training.items()
        }
        return named | {
            f"{defense}.{parameter}": domain
            for defense, domains in self.domains.items()
            for parameter, domain in domains.items()
        }

    @cached_property
    def names_by_defense(self) -> dict[str, set[str]]:
        """The flat names of each defense's parameters."""
        return {
            defense: {
                drawn
                for parameter, domain in domains.items()
                for drawn in flat_names(domain, f"{defense}.{parameter}")
            }
            for defense, domains in self.domains.items()
        }

    @cached_property
    def _known_names(self) -> set[str]:
        names = {f"slot.{slot}" for slot in self.slots}
        names |= {"scenario"} if len(self.scenarios) > 1 else set()
        names |= {"seed"} if len(self.file.seeds) > 1 else set()
        return names.union(*(flat_names(d, name) for name, d in self.named_domains.items()))


def build_space(file: SpaceFile) -> Space:
    """Check what a space file means; InputError says what is wrong, and where."""
    scenarios = tuple(build_scenario(section) for section in file.scenarios)
    domains = {
        name: _domains(name, raw or {}) for name, raw in file.defenses.items() if name != NONE
    }
    threats = [
        build_threat(name, raw or {}, radius=scenarios[0].radius)
        for name, raw in file.threats.items()
    ]
    left_out = left_out_of(scenarios, domains)
    domains = {name: own for name, own in domains.items() if name not in left_out}
    measured = {*CLEAN_METRICS, *(name for threat in threats for name in threat.metric_names())}
    check_allowed(file, unmeasured(scenarios, threats))
    space = Space(
        file=file,
        scenarios=scenarios,
        domains=domains,
        objectives=build_objectives(file.objectives, measured),
        constraints=tuple(build_constraint(text, measured) for text in file.constraints),
        left_out=left_out,
    )
    space.first_draws()
    space.published_rows()
    for scenario in scenarios:
        check_extremes(file.name, domains, scenario.radius)
    if file.search.algorithm == "grid":
        space.check_enumerable()
    return space


def _domains(name: str, raw: Mapping[str, Any]) -> dict[str, Domain]:
    declared = declared_parameters(defense_type(name))
    unknown = sorted(set(raw) - set(declared))
    if unknown:
        known = ", ".join(declared) or "none: it takes no parameters"
        raise InputError(f"{name}: unknown parameter {unknown[0]!r}; known: {known}")
    return {
        parameter: parse_domain(value, declared[parameter], f"{name}.{parameter}")
        for parameter, value in raw.items()
    }


def _build_all(stack: Mapping[str, Any], radius: float) -> Stack[Defense]:
    return build_stack(build_defense(name, raw or {}, radius=radius) for name, raw in stack.items())

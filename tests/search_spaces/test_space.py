from pathlib import Path
from typing import Any

import optuna
import pytest

from search_spaces import Space, available, load_space
from search_spaces.domains import AnyOf, Domain, Range
from search_spaces.enumeration import NotEnumerableError
from tests.search_spaces.writing import write_space
from trainables.defenses import Defense, Stack, defense_type
from trainables.errors import InputError
from trainables.parameters import declared_parameters, parse_value

PUBLISHED: dict[str, list[str | float]] = {
    "fgsm_adversarial_training.eps": ["4/255", "8/255", "12/255", "0.1 radius", "1.5 radius"],
    "spectral_signatures.removal_fraction": [0.01, 0.03, 0.05, 0.15],
    "gradient_regularization.lam": [0, 0.02, 0.05, 0.1, 1000],
    "temperature.T": [1, 1.5, 5, "fit"],
    "label_smoothing.alpha": [0.05, 0.1, 0.2],
    "pixeldp.placement": ["image", "layer1", "layer2"],
    "pixeldp.attack_bound": [0.1, 0.3, 0.5, 1.0],
    "pixeldp.sensitivity": ["normalized", "measured"],
    "randomized_smoothing.sigma": [0.12, 0.25, 0.5, 1.0],
}


def draw_many(space: Space, count: int) -> list[dict[str, object]]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("name", sorted(available()))
def test_every_space_that_comes_along_loads_and_draws_specs(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    for flat in draw_many(space, 50):
        spec = space.spec(flat)
        assert len(spec.stack) <= space.file.max_stack
        assert spec.trial == space.spec(flat).trial


@pytest.mark.parametrize("radius", [0.15, 0.3, 8 / 255])
@pytest.mark.parametrize("place", sorted(PUBLISHED))
def test_full_contains_every_published_value_on_every_data_set(place: str, radius: float) -> None:
    defense, parameter = place.split(".")
    domain = load_space("full").domains[defense][parameter]
    declared = declared_parameters(defense_type(defense))[parameter]
    for value in PUBLISHED[place]:
        built = parse_value(value, declared, place, radius)
        assert domain.locate(built, place, declared, radius) is not None, value


def test_full_starts_with_each_defense_alone_and_then_the_stack_of_document_a() -> None:
    space = load_space("full")
    stacks = [space.spec(flat).stack for flat in space.first_draws()]
    alone = {stack.defenses[0].name for stack in stacks if len(stack) == 1}
    assert stacks[0] == Stack()
    assert alone == set(space.domains)
    together = [defense.name for defense in stacks[-1]]
    assert together == [
        "spectral_signatures",
        "fgsm_adversarial_training",
        "label_smoothing",
        "gradient_regularization",
        "temperature",
    ]


def test_first_draws_read_back_as_the_stacks_that_were_written() -> None:
    space = load_space("full")
    written = space.spec(space.first_draws()[4]).stack
    assert written.defenses[0].canonical()["eps"] == pytest.approx(0.15)


def test_a_stack_that_is_too_high_is_cut_in_the_same_way_each_time(tmp_path: Path) -> None:
    space = load_space(str(write_space(tmp_path, max_stack=1)))
    flat = {
        "slot.labels": "label_smoothing",
        "label_smoothing.alpha": 0.1,
        "slot.deployment": "temperature",
        "temperature.T": 1.5,
    }
    stacks = {space.spec(flat).stack for _ in range(5)}
    assert len(stacks) == 1 and len(stacks.pop()) == 1


def test_the_plain_dict_is_the_undefended_model() -> None:
    assert load_space("full").spec({}).stack == Stack()


def test_a_name_that_the_space_does_not_draw_is_refused() -> None:
    with pytest.raises(InputError, match=r"slot\.nowhere"):
        load_space("full").spec({"slot.nowhere": "none"})


def test_enumeration_gives_every_combination_once(tmp_path: Path) -> None:
    defenses = {"label_smoothing": {"alpha": [0.1, 0.2]}, "temperature": {"T": [1.5, "fit"]}}
    space = load_space(str(write_space(tmp_path, defenses=defenses)))
    found = space.distinct_specs(limit=1000)
    assert found is not None
    assert len(found) == 3 * 3  # none or two values, in each of two slots
    assert space.distinct_specs(limit=3) is None


def test_a_range_without_points_cannot_be_enumerated(tmp_path: Path) -> None:
    space = load_space(str(write_space(tmp_path)))
    assert space.distinct_specs(limit=1000) is None
    with pytest.raises(NotEnumerableError, match="num: points"):
        list(space.enumerate())


def test_several_scenarios_and_seeds_are_drawn(tmp_path: Path) -> None:
    scenarios = [
        {"dataset": "digits", "training": {"epochs": [1, 2]}},
        {"dataset": "digits", "model": "lenet5"},
    ]
    path = write_space(tmp_path, scenarios=scenarios, seeds=[0, 1], defenses={})
    found = load_space(str(path)).distinct_specs(limit=1000)
    assert found is not None and len(found) == 3 * 2


def test_canonical_ignores_trials_and_resources_but_nothing_that_changes_a_trial(
    tmp_path: Path,
) -> None:
    plain = load_space(str(write_space(tmp_path))).canonical()
    more = load_space(str(write_space(tmp_path, search={"algorithm": "random", "trials": 99})))
    other = load_space(str(write_space(tmp_path, max_stack=1)))
    assert more.canonical() == plain
    assert other.canonical() != plain


def test_a_run_that_tpe_began_goes_on_with_the_search_that_replaced_it(tmp_path: Path) -> None:
    began, now, other = (
        load_space(str(write_space(tmp_path, search={"algorithm": algorithm, "trials": 6})))
        for algorithm in ("tpe", "effects", "random")
    )
    assert began.canonical() == now.canonical() != other.canonical()
    assert load_space(str(write_space(tmp_path, search={"trials": 6}))).file.search.algorithm == (
        "effects"
    )


def test_ranges_of_every_space_lie_within_what_the_parameters_allow() -> None:
    def ranges(domain: Domain) -> list[Range]:
        if isinstance(domain, AnyOf):
            return [r for branch in domain.branches for r in ranges(branch)]
        return [domain] if isinstance(domain, Range) else []

    for name in available():
        for defense, domains in load_space(name).domains.items():
            kind: type[Defense] = defense_type(defense)
            for parameter, domain in domains.items():
                declared = declared_parameters(kind)[parameter]
                for span in ranges(domain):
                    assert declared.low is None or span.low >= declared.low
                    assert declared.high is None or span.high <= declared.high or span.of_radius


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ({"draws": [10]}, "draws=10 is never settled at alpha=0.001"),
        ({"draws": [10, 300], "alpha": {"low": 0.0001, "high": 0.5}}, "alpha=0.0001"),
        ({"draws": {"low": 10, "high": 300}, "alpha": [0.5, 0.001]}, "must be at least 11"),
        ({"draws": {"any_of": [[300], {"low": 8, "high": 9}]}}, "draws=8"),
        ({"sigma": [0.25, 0.5], "n": [5, 1000]}, "n=5 draws certify nothing"),
    ],
)
def test_a_space_that_may_draw_what_a_defense_refuses_is_refused(
    drawn: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = write_space(tmp_path, defenses={"randomized_smoothing": drawn})
    with pytest.raises(InputError, match=r"it may draw randomized_smoothing\(") as caught:
        load_space(str(path))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_values_that_a_defense_takes_together_are_drawn(tmp_path: Path) -> None:
    alpha = {"low": 0.001, "high": 0.5, "log": True}
    drawn = {"draws": {"low": 11, "high": 300}, "alpha": alpha, "n": [10, 1000]}
    space = load_space(str(write_space(tmp_path, defenses={"randomized_smoothing": drawn})))
    specs = [space.spec(flat) for flat in draw_many(space, 50)]
    assert sum(len(spec.stack) for spec in specs) > 5

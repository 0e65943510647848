from pathlib import Path
from typing import Any

import pytest

from search_spaces import Overrides, load_space
from tests.search_spaces.writing import write_space
from trainables.errors import InputError


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threat": {}}, "threat: unknown key"),
        ({"defenses": {"fgsm": {}}}, "unknown defense 'fgsm'; known: none"),
        ({"defenses": {"temperature": {"t": 2}}}, "unknown parameter 't'; known: T"),
        ({"defenses": {"temperature": {"T": -1}}}, None),
        ({"objectives": ["clean"]}, "unknown metric 'clean'; known: clean_accuracy"),
        ({"objectives": ["robust_accuracy"]}, "none of the space's threats measures"),
        ({"objectives": ["nll"]}, "no worst value"),
        ({"objectives": ["mean_confidence"]}, "no better direction"),
        ({"objectives": ["clean_accuracy", "clean_accuracy"]}, "named twice"),
        ({"objectives": ["clean_accuracy"] * 5}, "at most 4"),
        ({"scenarios": [{"dataset": "imagenet"}]}, "imagenet"),
        ({"scenarios": [{"model": "vgg"}]}, "unknown model 'vgg'"),
        ({"scenarios": [{"training": {"epoch": 3}}]}, "unknown parameter 'epoch'"),
        ({"scenarios": [{"training": {"epochs": 0}}]}, "epochs"),
        ({"scenarios": []}, "at least 1 item"),
        ({"threats": {"evasion": {"attacks": ["deepfoool"]}}}, "unknown attack 'deepfoool'"),
        ({"threats": {"evil": None}}, "unknown threat 'evil'"),
        ({"search": {"algorithm": "genetic"}}, "algorithm"),
        ({"search": {"algorithm": "random", "trials": 0}}, "greater than or equal to 1"),
        ({"search": {"algorithm": "random", "trials": "ten"}}, "trials"),
        ({"search": {"algorithm": "grid"}}, "num: points"),
        ({"resources": {"trial_time_limit": "2 weeks"}}, "write 90s, 30m, 2h or 1d"),
        ({"resources": {"trial_memory_gib": 0}}, "greater than 0"),
        ({"resources": {"gpus_per_trial": "most"}}, "resources.gpus_per_trial"),
        ({"resources": {"gpus_per_trial": -1}}, "greater than or equal to 0"),
        ({"constraints": ["accuracy is high"]}, "write 'clean_accuracy >= 0.9'"),
        ({"first": [{"temperature": {"T": 7}}]}, "outside of what the space draws"),
        ({"first": [{"early_stopping": None}]}, "not among its defenses"),
        ({"max_stack": -1}, "max_stack"),
        ({"name": None}, "name: Field required"),
    ],
)
def test_a_wrong_space_file_is_one_line_with_file_and_place(
    changes: dict[str, Any], words: str | None, tmp_path: Path
) -> None:
    (tmp_path / "named").mkdir()
    path = tmp_path / "named" / "tiny.yaml"
    path.write_text(write_space(tmp_path, **{"name": "tiny", **changes}).read_text())
    if words is None:
        words = "temperature"
    with pytest.raises(InputError) as caught:
        space = load_space(str(path))
        space.spec({"slot.deployment": "temperature"})
    message = str(caught.value)
    assert words in message
    assert "\n" not in message


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\nname: b\n")
    with pytest.raises(InputError, match="line 2, column 1: the key 'name' appears twice"):
        load_space(str(path))


@pytest.mark.parametrize("text", ["- a\n", "name: [", "a: !!python/object/apply:os.getcwd []\n"])
def test_what_is_no_mapping_is_refused_and_runs_no_code(text: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"wrong\.yaml"):
        load_space(str(path))


def test_limits_of_a_trial_are_read(tmp_path: Path) -> None:
    resources = {"trial_time_limit": "2h", "trial_memory_gib": 8}
    path = write_space(tmp_path, resources=resources)
    found = load_space(str(path), Overrides(trials=3)).file.resources
    assert (found.trial_time_limit, found.trial_memory_gib) == (7200.0, 8.0)
    resources = {"trial_time_limit": 90}
    assert load_space(str(write_space(tmp_path, resources=resources))).file.resources == (
        found.model_copy(update={"trial_time_limit": 90.0, "trial_memory_gib": None})
    )


def test_an_unknown_space_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"known: .*full"):
        load_space("ful")
    with pytest.raises(InputError, match="no such space file"):
        load_space("missing.yaml")


def test_another_data_set_brings_its_own_network_and_training() -> None:
    space = load_space("full", Overrides(dataset="mnist"))
    assert space.spec({}).model.name == "pixeldp_cnn"
    assert space.spec({}).data.name == "mnist"
    assert space.scenarios[0].radius == 0.3


def test_a_budget_takes_its_declared_share() -> None:
    quick = load_space("A1_fgsm", Overrides(budget="quick"))
    whole = load_space("A1_fgsm", Overrides(budget="published"))
    assert quick.spec({}).data.train_images == 4000
    assert whole.spec({}).data.train_images is None
    with pytest.raises(InputError, match="known: published, quick"):
        load_space("A1_fgsm", Overrides(budget="slow"))
    with pytest.raises(InputError, match="only reproductions have budgets"):
        load_space("full", Overrides(budget="quick"))


def test_overrides_beat_the_file(tmp_path: Path) -> None:
    path = str(write_space(tmp_path))
    space = load_space(path, Overrides(model="lenet5", trials=3, seed=5))
    spec = space.spec({})
    assert (spec.model.name, space.file.search.trials, spec.seed) == ("lenet5", 3, 5)


@pytest.mark.parametrize("gpus", ["auto", 0.25, 2, None])
def test_a_space_may_say_what_a_trial_gets_of_a_gpu(gpus: Any, tmp_path: Path) -> None:
    path = write_space(tmp_path, resources={"gpus_per_trial": gpus})
    assert load_space(str(path)).file.resources.gpus_per_trial == gpus

import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from results.bundle import BundleError, load
from results.bundle.members import INDEX, PROGRAM, REQUIRED, SEAL
from results.bundle.reference import COUNT, differences
from results.bundle.writing import Facts
from tests.making import EPS
from tests.results.bundle_toys import HERE, FitsOpenly, FitsSecretly, TrainsSecretly
from tests.results.bundles import CARD_PLAIN, make_bundle
from trainables.defenses import DEFENSES, Defense, build_defense
from trainables.errors import InputError
from trainables.trial.settings import ModelSpec

SMALL: dict[str, dict[str, object]] = {
    "pgd_adversarial_training": {"steps": 2},
    "trades": {"steps": 2},
    "static_adversarial_finetuning": {"num_examples": 100, "epochs": 1},
    "fine_pruning": {"epochs": 1},
    "ft_sam": {"epochs": 1},
    "temperature": {"T": "fit"},
    "randomized_network": {"draws": 2},
    "pixeldp": {"draws": 5, "n": 20},
    "ensemble": {"size": 2},
    "input_transformation": {"kind": "median"},
    "denoiser": {"epochs": 1},
    "diffusion_purification": {"epochs": 1, "draws": 1, "steps": 2},
    "randomized_smoothing": {"draws": 12, "n": 50},
}
"""Settings with which a training and an answer take a moment."""
DOCUMENT_A = (
    "spectral_signatures", "fgsm_adversarial_training", "label_smoothing",
    "gradient_regularization", "temperature",
)  # fmt: skip


def _build(name: str) -> Defense:
    return build_defense(name, SMALL.get(name, {}), radius=EPS)


@pytest.mark.parametrize(
    "names", [*((name,) for name in DEFENSES), DOCUMENT_A], ids=lambda names: "+".join(names)
)
def test_every_defense_survives_the_round_trip(
    names: tuple[str, ...], tmp_path: Path, artefact_folder: Path
) -> None:
    made = make_bundle(tmp_path / "bundle", artefact_folder, *map(_build, names))
    bundle = load(made.folder)
    x = made.ctx.pools.test.images()[:50]
    torch.testing.assert_close(
        bundle.probabilities(x), made.predictor.probabilities(x), atol=1e-6, rtol=0
    )
    answer, expected = (
        predict(x, torch.Generator().manual_seed(3))
        for predict in (bundle.predict, made.predictor.predict)
    )
    assert torch.equal(answer.label, expected.label)
    assert max(differences(bundle.predictor, bundle.reference).values()) <= 1e-6
    own = bundle.predictor
    assert (own.stochastic, own.rejects) == (made.predictor.stochastic, made.predictor.rejects)
    assert len(own.surfaces()) == len(made.predictor.surfaces())
    assert len(bundle.reference.images) == COUNT


def test_a_bundle_certifies_what_the_predictor_did(tmp_path: Path, artefact_folder: Path) -> None:
    made = make_bundle(tmp_path / "bundle", artefact_folder, _build("randomized_smoothing"))
    bundle, x = load(made.folder), made.ctx.pools.test.images()[:8]
    found = bundle.certify(x, torch.Generator().manual_seed(1))
    expected = made.predictor.certify(x, torch.Generator().manual_seed(1))
    assert found is not None and expected is not None
    torch.testing.assert_close(found, expected)
    assert load(make_bundle(tmp_path / "plain", artefact_folder).folder).certify(x) is None


def test_three_lines_load_and_predict_without_data_ray_or_optuna(
    tmp_path: Path, artefact_folder: Path
) -> None:
    make_bundle(tmp_path / "bundle", artefact_folder, _build("mahalanobis_detector"))
    code = (
        "import sys, torch\n"
        "import trainables.datasets.registry as registry\n"
        "registry._load = None\n"  # whoever would load a data set fails
        "from results.bundle import load\n"
        f"model = load({str(tmp_path / 'bundle')!r})\n"
        "print(model.probabilities(torch.rand(2, 1, 8, 8)).sum(1).tolist())\n"
        "print([name for name in ('ray', 'optuna', 'orchestrator') if name in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sums, modules = found.stdout.splitlines()
    assert [round(float(part), 5) for part in sums.strip("[]").split(",")] == [1.0, 1.0]
    assert modules == "[]"


def test_the_program_gives_the_same_probabilities_and_holds_no_pickle(
    tmp_path: Path, artefact_folder: Path
) -> None:
    made = make_bundle(tmp_path / "bundle", artefact_folder, _build("temperature"), program=True)
    program = torch.export.load(made.folder / PROGRAM).module()
    for count in (1, 3, 50):
        x = made.ctx.pools.test.images()[:count]
        torch.testing.assert_close(program(x), made.predictor.probabilities(x), atol=1e-6, rtol=0)
    with zipfile.ZipFile(made.folder / PROGRAM) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    # torch pickles example inputs and odd tensors; neither is here.
    assert [len(content) for name, content in contents.items() if name.endswith(".pt")] == [0]
    configs = [content for name, content in contents.items() if name.endswith("config.json")]
    assert configs and not any(b'"use_pickle": true' in content for content in configs)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("randomized_network", "draws at random"), ("energy_detector", "rejects images")],
)
def test_where_there_is_no_program_the_card_is_told_why(
    name: str, reason: str, tmp_path: Path, artefact_folder: Path
) -> None:
    told: list[Facts] = []

    def card(facts: Facts) -> Mapping[str, Any]:
        told.append(facts)
        return CARD_PLAIN

    make_bundle(tmp_path / "bundle", artefact_folder, _build(name), program=True, card=card)
    assert told[0].program is None and reason in told[0].no_program
    assert not (tmp_path / "bundle" / PROGRAM).exists()


def test_a_bundle_holds_its_members_and_nothing_else(tmp_path: Path, artefact_folder: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", artefact_folder).folder
    assert {file.name for file in folder.iterdir()} == {*REQUIRED, INDEX, SEAL}
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"], "nothing is left beside it"


def test_a_folder_that_is_not_empty_is_left_as_it_is(tmp_path: Path, artefact_folder: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("mine")
    with pytest.raises(BundleError, match="not empty"):
        make_bundle(tmp_path / "bundle", artefact_folder)
    assert [file.name for file in (tmp_path / "bundle").iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path, artefact_folder: Path) -> None:
    (tmp_path / "bundle").mkdir()
    load(make_bundle(tmp_path / "bundle", artefact_folder).folder)


def test_a_bundle_that_cannot_be_finished_leaves_nothing(
    tmp_path: Path, artefact_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def otherwise(*_: object) -> dict[str, float]:
        return {"probabilities": 0.5}

    monkeypatch.setattr("results.bundle.writing.differences", otherwise)
    with pytest.raises(RuntimeError, match="answers otherwise"):
        make_bundle(tmp_path / "bundle", artefact_folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("own", [FitsSecretly, TrainsSecretly])
def test_a_defense_that_fits_behind_the_context_is_refused_by_name(
    own: type[Defense], tmp_path: Path, artefact_folder: Path
) -> None:
    with pytest.raises(InputError, match=rf"{own.__name__}.*outside of ctx\.fitted"):
        make_bundle(tmp_path / "bundle", artefact_folder, own())
    assert not (tmp_path / "bundle").exists()


def test_a_users_own_defense_is_loaded_if_that_is_allowed(
    tmp_path: Path, artefact_folder: Path
) -> None:
    made = make_bundle(tmp_path / "bundle", artefact_folder, FitsOpenly())
    with pytest.raises(BundleError, match="own_code=True"):
        load(made.folder)
    x = made.ctx.pools.test.images()[:9]
    found = load(made.folder, own_code=True).probabilities(x)
    torch.testing.assert_close(found, made.predictor.probabilities(x), atol=1e-6, rtol=0)


def test_a_users_own_network_is_loaded_if_that_is_allowed(
    tmp_path: Path, artefact_folder: Path
) -> None:
    own = ModelSpec(name=f"{HERE}:tiny")
    made = make_bundle(tmp_path / "bundle", artefact_folder, model=own)
    with pytest.raises(BundleError, match=f"the model '{HERE}:tiny'"):
        load(made.folder)
    x = made.ctx.pools.test.images()[:9]
    found = load(made.folder, own_code=True).probabilities(x)
    torch.testing.assert_close(found, made.predictor.probabilities(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.double(), "float32"),
        (lambda x: x[0], "float32"),
        (lambda x: x[:, :, :7], "float32"),
        (lambda x: x * 255, r"\[0, 1\]"),
        (lambda x: x * float("nan"), r"\[0, 1\]"),
    ],
)
def test_images_of_another_kind_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor],
    words: str,
    tmp_path: Path,
    artefact_folder: Path,
) -> None:
    made = make_bundle(tmp_path / "bundle", artefact_folder)
    with pytest.raises(ValueError, match=words):
        load(made.folder).probabilities(change(made.ctx.pools.test.images()[:4]))

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.models.making import dataset_of
from trainables.errors import InputError
from trainables.models import build_model, model_code_fingerprint

MODULE = "users_own_models"
CODE = """
import torch
from torch import nn

NUMBER = 3

class Lazy(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer
    def forward(self, x):
        return self.answer(x)

def good(*, channels, height, width, num_classes, mean, std):
    assert len(mean) == len(std) == channels
    pixels = channels * height * width
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(pixels, num_classes))

def no_keywords(channels):
    return nn.Flatten()

def raises(**arguments):
    raise RuntimeError("first line\\nsecond line")

def gives_none(**arguments):
    return None

def wrong_width(**arguments):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(7))

def not_finite(*, num_classes, **arguments):
    return Lazy(lambda x: torch.full((len(x), num_classes), float("nan")))

def whole_numbers(*, num_classes, **arguments):
    return Lazy(lambda x: torch.zeros(len(x), num_classes, dtype=torch.int64))

def a_tuple(*, num_classes, **arguments):
    return Lazy(lambda x: (torch.zeros(len(x), num_classes),))

def breaks_on_a_batch(**arguments):
    return nn.Linear(3, 3)
"""


@pytest.fixture(autouse=True)
def module_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a user's module, importable during the test."""
    file = tmp_path / f"{MODULE}.py"
    file.write_text(CODE)
    (tmp_path / "broken_module.py").write_text("this is no python")
    monkeypatch.syspath_prepend(tmp_path)
    yield file
    sys.modules.pop(MODULE, None)


def _error(name: str, **words: str) -> str:
    with pytest.raises(InputError) as caught:
        build_model(name, dataset=dataset_of(1, 8), **words)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    return str(caught.value)


def test_a_users_factory_builds_a_model_in_training_mode() -> None:
    model = build_model(f"{MODULE}:good", dataset=dataset_of(3, 8, num_classes=4))
    assert model.training
    assert model(torch.rand(5, 3, 8, 8)).shape == (5, 4)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_module:good", "cannot be imported (ModuleNotFoundError"),
        ("no_such.package.module:good", "cannot be imported (ModuleNotFoundError"),
        ("broken_module:good", "cannot be imported (SyntaxError"),
        (f"{MODULE}:absent", "has no 'absent'"),
        (f"{MODULE}:NUMBER", "is not callable"),
        (f"{MODULE}:", "is not an import path"),
        (":good", "is not an import path"),
        (".relative:good", "is not an import path"),
        (f"{MODULE}:no_keywords", "TypeError"),
        (f"{MODULE}:raises", "first line second line"),
        (f"{MODULE}:gives_none", "NoneType"),
        (f"{MODULE}:wrong_width", "float32 (2, 7)"),
        (f"{MODULE}:whole_numbers", "int64"),
        (f"{MODULE}:a_tuple", "a tuple"),
        (f"{MODULE}:not_finite", "not finite"),
        (f"{MODULE}:breaks_on_a_batch", "fails on a batch (2, 1, 8, 8)"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name: str, reason: str) -> None:
    assert reason in _error(name)


@pytest.mark.parametrize("words", [{"norm": "group"}, {"activation": "elu"}])
def test_norm_and_activation_of_a_users_factory_cannot_be_chosen(words: dict[str, str]) -> None:
    assert "leave them out" in _error(f"{MODULE}:good", **words)


def test_the_code_fingerprint_follows_the_file(module_file: Path) -> None:
    first = model_code_fingerprint(f"{MODULE}:good")
    assert first == hashlib.sha256(CODE.encode()).hexdigest()
    module_file.write_text(CODE + "# changed\n")
    assert model_code_fingerprint(f"{MODULE}:good") != first


def test_our_own_models_have_no_code_fingerprint() -> None:
    assert model_code_fingerprint("resnet18") == ""


@pytest.mark.parametrize("name", ["unknown", "no_such_module:good", "no_such.module:good", "sys:x"])
def test_a_fingerprint_of_no_file_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        model_code_fingerprint(name)

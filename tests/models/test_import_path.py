import copy
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.models.making import dataset_of
from trainables.errors import InputError
from trainables.models import build_model, model_code_fingerprint
from trainables.models.own_model import answers_randomly

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

class Changed(nn.Module):
    # A linear network whose answer is changed by a function of it and its logits.
    def __init__(self, channels, height, width, num_classes, change):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes))
        self.norm = nn.BatchNorm2d(channels, track_running_stats=False)
        self.change = change
    def forward(self, x):
        return self.change(self, x, self.layers(x))

def changed(change):
    return lambda *, mean, std, **sizes: Changed(change=change, **sizes)

not_finite = changed(lambda net, x, y: y * float("nan"))
not_finite_on_some = changed(lambda net, x, y: torch.where(x.amax() > 0.5, torch.inf, y))
whole_numbers = changed(lambda net, x, y: y.long())
a_tuple = changed(lambda net, x, y: (y,))
a_tuple_in_training = changed(lambda net, x, y: (y, y) if net.training else y)
squeezed = changed(lambda net, x, y: y.squeeze())
in_place = changed(lambda net, x, y: net.layers(x.mul_(2)))
in_place_in_training = changed(lambda net, x, y: net.layers(x.neg_()) if net.training else y)
by_its_batch = changed(lambda net, x, y: net.layers(net.norm(x)))
by_its_place = changed(lambda net, x, y: y + torch.arange(len(y))[:, None])
detached = changed(lambda net, x, y: y.detach())
halved = changed(lambda net, x, y: y.bfloat16())
doubled = changed(lambda net, x, y: y.double())
random = changed(lambda net, x, y: y + torch.randn_like(y))

def no_parameters(*, num_classes, **arguments):
    return Lazy(lambda x: x.flatten(1)[:, :num_classes])

def frozen(*, channels, height, width, num_classes, **arguments):
    net = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes))
    return net.requires_grad_(False)

def breaks_on_a_batch(**arguments):
    return nn.Linear(3, 3)

def with_batch_norm(*, channels, height, width, num_classes, **arguments):
    layers = (nn.BatchNorm2d(channels), nn.Flatten(), nn.LazyLinear(num_classes), nn.Dropout())
    return nn.Sequential(*layers)
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
        (f"{MODULE}:not_finite", "not finite for black images"),
        (f"{MODULE}:not_finite_on_some", "not finite for random images"),
        (f"{MODULE}:a_tuple_in_training", "a tuple for (2, 1, 8, 8) in training mode"),
        (f"{MODULE}:a_tuple_in_training", "leave out auxiliary outputs"),
        (f"{MODULE}:squeezed", "float32 (10,) for (1, 1, 8, 8) of one image"),
        (f"{MODULE}:squeezed", "keep the batch axis"),
        (f"{MODULE}:in_place", "changes its input in place; work on a copy"),
        (f"{MODULE}:in_place_in_training", "changes its input in place in training mode"),
        (f"{MODULE}:by_its_batch", "answers an image differently alone"),
        (f"{MODULE}:by_its_place", "independent of the batch"),
        (f"{MODULE}:detached", "carry no gradient"),
        (f"{MODULE}:no_parameters", "no parameters to train"),
        (f"{MODULE}:frozen", "no parameters to train"),
        (f"{MODULE}:breaks_on_a_batch", "fails on a batch (2, 1, 8, 8)"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name: str, reason: str) -> None:
    assert reason in _error(name)


@pytest.mark.parametrize("name", ["halved", "doubled"])
def test_logits_of_another_precision_are_cast(name: str) -> None:
    model = build_model(f"{MODULE}:{name}", dataset=dataset_of(1, 8))
    assert model(torch.rand(2, 1, 8, 8)).dtype == torch.float32
    assert copy.deepcopy(model)(torch.rand(2, 1, 8, 8)).dtype == torch.float32


def test_a_network_that_is_random_in_eval_mode_is_known_and_accepted() -> None:
    x = torch.rand(2, 1, 8, 8)
    for name, random in (("random", True), ("with_batch_norm", False), ("halved", False)):
        model = build_model(f"{MODULE}:{name}", dataset=dataset_of(1, 8)).train()
        state = torch.get_rng_state()
        assert answers_randomly(model, x) is random
        assert model.training and torch.equal(torch.get_rng_state(), state)


def test_the_trial_of_a_network_leaves_no_trace() -> None:
    """Its weights are drawn once: lazy layers at the first batch, and nothing else is drawn."""
    torch.manual_seed(7)
    model = build_model(f"{MODULE}:with_batch_norm", dataset=dataset_of(1, 8))
    after = torch.rand(())
    assert model.training and int(model.get_buffer("0.num_batches_tracked")) == 0
    assert model.get_buffer("0.running_mean").tolist() == [0]
    torch.manual_seed(7)
    layer = nn.LazyLinear(dataset_of(1, 8).num_classes)
    layer(torch.zeros(2, 64))
    assert torch.equal(layer.weight, model.get_parameter("2.weight"))
    assert torch.equal(after, torch.rand(()))


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

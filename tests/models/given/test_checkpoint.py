"""Checkpoint files: every format and wrapper, and every file that is none, refused in one line."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainables.errors import InputError
from trainables.models.given.checkpoint import Checkpoint, read_checkpoint, sha256_of
from trainables.models.given.fitting import Fitted, fill, fit


def network() -> nn.Sequential:
    """Return a small network with a batch norm, which holds buffers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def saved(content: object, path: Path) -> str:
    """Save as a user's program does."""
    torch.save(content, path)
    return str(path)


def fitted(place: str) -> Fitted:
    """Fit a file to the network's names."""
    return fit(read_checkpoint(place), network().state_dict())


def renamed(prefix: str) -> dict[str, Tensor]:
    """Return the network's state with a prefix before every name."""
    return {prefix + name: value for name, value in network().state_dict().items()}


def check_same(found: Fitted) -> None:
    """Assert that the tensors are the network's, bit by bit."""
    own = network().state_dict()
    assert found.state.keys() == own.keys()
    assert all(torch.equal(found.state[name], own[name]) for name in own)


def test_a_state_dict_is_read_as_it_was_saved(tmp_path: Path) -> None:
    found = fitted(saved(network().state_dict(), tmp_path / "plain.pt"))
    check_same(found)
    assert found.words == ()


def test_safetensors_are_read_whatever_their_name(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "weights.bin")
    check_same(fitted(str(tmp_path / "weights.bin")))


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_are_taken_off_and_named(prefix: str, tmp_path: Path) -> None:
    found = fitted(saved(renamed(prefix), tmp_path / "prefixed.pt"))
    check_same(found)
    assert found.words == (f"took the prefix {prefix!r} off the names",)


def test_a_prefix_that_is_the_networks_own_stays() -> None:
    own = nn.ModuleDict({"model": network()})
    assert all(name.startswith("model.") for name in own.state_dict())
    found = fit(Checkpoint("x", own.state_dict(), ()), own.state_dict())
    assert found.words == () and found.state.keys() == own.state_dict().keys()


@pytest.mark.parametrize(
    ("wrapped", "word"),
    [
        (lambda own, other: {"state_dict": own, "epoch": 3, "optimizer": {}}, "in 'state_dict'"),
        (lambda own, other: {"model": own, "args": "x"}, "in 'model'"),
        (lambda own, other: {"checkpoint": 1, "model": {"state_dict": own}}, "in 'state_dict'"),
        (
            lambda own, other: {"state_dict": other, "state_dict_ema": own},
            "averaged weights in 'state_dict_ema', not the plain ones in 'state_dict'",
        ),
        (lambda own, other: {"model": other, "ema": {"state_dict": own}}, "averaged weights"),
    ],
)
def test_wrappers_are_looked_through_and_averages_preferred(
    wrapped: Any, word: str, tmp_path: Path
) -> None:
    other = {name: -value for name, value in network().state_dict().items()}
    found = fitted(saved(wrapped(network().state_dict(), other), tmp_path / "wrapped.pt"))
    check_same(found)
    assert any(word in words for words in found.words)


def test_averages_of_torch_and_of_other_programs_are_recognised(tmp_path: Path) -> None:
    average = torch.optim.swa_utils.AveragedModel(network())
    found = fitted(saved(average.state_dict(), tmp_path / "swa.pt"))
    check_same(found)
    assert "counts of an average: n_averaged" in found.words[0]
    both = {name: -value for name, value in renamed("online_model.").items()}
    found = fitted(saved(both | renamed("ema_model.module."), tmp_path / "ema.pt"))
    check_same(found)
    assert "averaged weights, whose names begin with 'ema_model.'" in found.words[0]


def test_half_precision_is_read_and_named(tmp_path: Path) -> None:
    found = fitted(saved(network().half().state_dict(), tmp_path / "half.pt"))
    target = network()
    weight = target.state_dict()["0.weight"]
    weight.zero_()
    fill(target.state_dict(), found)
    assert weight.dtype == torch.float32
    assert torch.equal(weight, network().state_dict()["0.weight"].half().float())
    assert found.words == ("read float16 as the model's own precision",)


def test_old_batch_norms_without_a_count_are_read(tmp_path: Path) -> None:
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    found = fitted(saved(state, tmp_path / "old.pt"))
    check_same(found)
    assert "num_batches_tracked" in found.words[0]


def changed_names(state: dict[str, Tensor]) -> None:
    """Lose one key and gain two."""
    del state["0.bias"]
    state["3.weight"] = state["9.bias"] = torch.zeros(2)


def changed_shape(state: dict[str, Tensor]) -> None:
    """Answer one class more."""
    state["2.weight"] = torch.zeros(3, 4)


def changed_value(state: dict[str, Tensor]) -> None:
    """Hold what a training that diverged leaves."""
    state["0.weight"] = torch.full((4, 3), float("nan"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            changed_names,
            "1 of 9 keys are missing (0.bias), and 2 are not expected (3.weight, 9.bias)",
        ),
        (changed_shape, "2.weight (3, 4) instead of (2, 4)"),
        (changed_value, "0.weight holds values that are not finite"),
    ],
)
def test_what_does_not_fit_is_listed(change: Any, words: str, tmp_path: Path) -> None:
    state = network().state_dict()
    change(state)
    with pytest.raises(InputError) as refused:
        fitted(saved(state, tmp_path / "other.pt"))
    assert words in str(refused.value) and "\n" not in str(refused.value)


class Evil:
    """Runs a command wherever it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil-was-run",)


def refused(place: str) -> str:
    """Return the one line that a file is refused with."""
    with pytest.raises(InputError) as error:
        read_checkpoint(place)
    text = str(error.value)
    assert "\n" not in text and place in text and len(text) < 600
    return text


def test_code_in_a_checkpoint_is_named_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ".system" in refused(saved({"state_dict": {"a": Evil()}}, tmp_path / "evil.pt"))
    assert not (tmp_path / "evil-was-run").exists()
    whole = refused(saved(network(), tmp_path / "whole.pt"))
    assert "Sequential" in whole and "save model.state_dict()" in whole


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "torch"])
@pytest.mark.parametrize("kept", [0, 5, 40, 0.5, 0.95])
def test_truncated_files_are_refused(kept: float, safe: bool, tmp_path: Path) -> None:
    path = tmp_path / ("cut.safetensors" if safe else "cut.pt")
    if safe:
        save_file(network().state_dict(), path)
    else:
        torch.save(network().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    assert "truncated or corrupt" in refused(str(path))


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"state_dict": {"a": "b"}}, 7])
def test_files_without_tensors_by_name_are_refused(content: object, tmp_path: Path) -> None:
    assert "no tensors by name" in refused(saved(content, tmp_path / "none.pt"))


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refused(str(tmp_path / "absent.pt"))
    assert "is a folder" in refused(str(tmp_path))


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    place = saved(network().state_dict(), tmp_path / "weights.pt")
    before = sha256_of(place)
    assert before == sha256_of(place) and len(before) == 64
    negated = {name: -value for name, value in network().state_dict().items()}
    saved(negated, tmp_path / "weights.pt")
    assert sha256_of(place) != before

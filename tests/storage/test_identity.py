import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.storage.identity import canonical_json, identity_hash, seed_from

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(PLAIN)
def test_a_value_and_its_json_copy_are_one_identity(value: object) -> None:
    assert canonical_json(json.loads(json.dumps(value))) == canonical_json(value)


def test_the_order_of_keys_and_the_kind_of_sequence_do_not_matter() -> None:
    first = identity_hash({"a": 1, "b": (1, 2)})
    assert first == identity_hash({"b": [1, 2], "a": 1})
    assert first != identity_hash({"a": 1, "b": [2, 1]})


def test_one_number_is_one_identity() -> None:
    assert canonical_json([1.0, -0.0]) == canonical_json([1, 0])
    assert canonical_json([1.5]) != canonical_json([1])
    assert canonical_json([True]) != canonical_json([1])
    assert canonical_json([None]) != canonical_json(["None"])


@pytest.mark.parametrize("value", [object(), {1, 2}, torch.zeros(1), np.int64(3), b"x", lambda: 0])
def test_what_has_no_stable_text_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        identity_hash({"key": [value]})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError):
        identity_hash({"key": value})


def test_a_hash_is_the_same_in_another_process() -> None:
    identity = {"eps": 8 / 255, "name": "ä", "steps": [1, 2], "none": None}
    code = (
        "from trainables.storage.identity import identity_hash, seed_from;"
        f"print(identity_hash({identity!r}), seed_from('a', 1))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert found == [identity_hash(identity), str(seed_from("a", 1))]
    assert len(found[0]) == 16


def test_seeds_are_of_63_bits_and_differ_by_their_parts() -> None:
    seeds = {seed_from("trial", number) for number in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.Generator().manual_seed(max(seeds))
    assert seed_from("a", "b") != seed_from("b", "a")

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.making import counting, stored_bytes
from trainables.storage import artefacts
from trainables.storage.artefacts import Artefact, ArtefactStore, FileLease

IDENTITY = {"version": 1}


def _store(folder: Path, ttl: float = 30.0) -> ArtefactStore:
    return ArtefactStore(folder, FileLease(folder / "leases", ttl))


def _file(store: ArtefactStore) -> Path:
    return Path(store.folder.uri) / f"{store.key('model', IDENTITY)}.safetensors"


def _leases(folder: Path) -> list[str]:
    return [path.name for path in (folder / "leases").iterdir()]


def test_an_artefact_is_built_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    built: list[int] = []
    tensors = {
        "half": torch.rand(3, dtype=torch.bfloat16),
        "rows": torch.arange(5),
        "turned": torch.rand(4, 2).t(),
        "flag": torch.tensor(True),
        "empty": torch.zeros(0, 3),
    }
    values = {"curves": {"loss": [0.1, 1e-30]}, "text": "ä", "none": None}

    def build() -> Artefact:
        built.append(1)
        return Artefact(tensors, values)

    first = _store(tmp_path).get_or_build("model", IDENTITY, build)
    again = _store(tmp_path).get_or_build("model", IDENTITY, build)
    assert built == [1]
    for artefact in (first, again):
        assert artefact.values == values
        assert artefact.tensors.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert artefact.tensors[name].dtype == tensor.dtype
            assert torch.equal(artefact.tensors[name], tensor)
    assert _leases(tmp_path) == []


def test_kind_and_identity_name_an_artefact(tmp_path: Path) -> None:
    store = _store(tmp_path)
    keys = {store.key(*row) for row in (("a", {"x": 1}), ("a", {"x": 2}), ("b", {"x": 1}))}
    assert len(keys) == 3
    assert store.key("a", {"x": 1.0, "y": (1,)}) == store.key("a", {"y": [1], "x": 1})


def test_tensors_that_share_memory_are_kept(tmp_path: Path) -> None:
    weight = torch.rand(4, 3)
    tied = Artefact({"encoder": weight, "decoder": weight, "row": weight[1]})
    _store(tmp_path).get_or_build("model", IDENTITY, lambda: tied)
    found = _store(tmp_path).get_or_build("model", IDENTITY, lambda: pytest.fail("built again"))
    assert torch.equal(found.tensors["decoder"], weight)
    assert torch.equal(found.tensors["row"], weight[1])


def test_many_threads_build_one_artefact_once(tmp_path: Path) -> None:
    built: list[int] = []
    stores = [_store(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda store: store.get_or_build("model", IDENTITY, counting(built, 0.2)), stores
            )
        )
    assert built == [1]
    assert all(artefact.values == {"count": 1} for artefact in found)
    assert _leases(tmp_path) == []


def test_different_artefacts_are_built_at_the_same_time(tmp_path: Path) -> None:
    store, meeting = _store(tmp_path), threading.Barrier(2, timeout=10)

    def build() -> Artefact:
        meeting.wait()  # breaks unless both are being built
        return Artefact()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: store.get_or_build("model", {"n": n}, build), range(2)))


def _build_in_process(folder: str, meeting: "multiprocessing.synchronize.Barrier") -> None:
    def build() -> Artefact:
        with open(Path(folder) / "log", "a") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        return Artefact(values={"pid": os.getpid()})

    meeting.wait(timeout=60)
    found = _store(Path(folder)).get_or_build("model", IDENTITY, build)
    (Path(folder) / f"seen-{os.getpid()}").write_text(str(found.values["pid"]))


def test_two_processes_build_one_artefact_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    meeting = context.Barrier(2)
    processes = [
        context.Process(target=_build_in_process, args=(str(tmp_path), meeting)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    builders = (tmp_path / "log").read_text().split()
    assert len(builders) == 1
    assert [path.read_text() for path in tmp_path.glob("seen-*")] == builders * 2


def test_a_dead_lease_is_taken_over_after_its_time_to_live(tmp_path: Path) -> None:
    store, built = _store(tmp_path, ttl=0.4), list[int]()
    assert store.lease.acquire(store.key("model", IDENTITY), "killed")
    started = time.monotonic()
    store.get_or_build("model", IDENTITY, counting(built))
    assert built == [1]
    assert 0.3 < time.monotonic() - started < 10


def test_a_lease_is_renewed_while_the_builder_works(tmp_path: Path) -> None:
    built: list[int] = []
    stores = [_store(tmp_path, ttl=0.3) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda s: s.get_or_build("model", IDENTITY, counting(built, 1.2)), stores))
    assert built == [1]


BUILDER = """
import sys, time
from pathlib import Path
from trainables.storage.artefacts import Artefact, ArtefactStore, FileLease

def build():
    print("building", flush=True)
    time.sleep(600)
    return Artefact()

folder = Path(sys.argv[1])
store = ArtefactStore(folder, FileLease(folder / "leases", 1.0))
store.get_or_build("model", {"version": 1}, build)
"""


def test_a_builder_that_is_killed_frees_its_claim(tmp_path: Path) -> None:
    store, built = _store(tmp_path, ttl=1.0), list[int]()
    key = store.key("model", IDENTITY)
    with subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "building\n"
        alive_until = time.monotonic() + 2.5  # a claim that nobody renewed would be dead by then
        while time.monotonic() < alive_until:
            assert not store.lease.acquire(key, "heir")
            time.sleep(0.1)
        process.kill()
    killed = time.monotonic()
    store.get_or_build("model", IDENTITY, counting(built))
    assert built == [1] and time.monotonic() - killed < 10
    assert _leases(tmp_path) == []


def test_a_lease_has_one_holder(tmp_path: Path) -> None:
    lease = FileLease(tmp_path)
    assert lease.acquire("key", "one")
    assert not lease.acquire("key", "two")
    lease.release("key", "two")  # not its own
    assert not lease.acquire("key", "two")
    lease.release("key", "one")
    assert lease.acquire("key", "two")
    lease.release("other", "one")
    lease.renew("other", "one")


def test_a_lease_taken_over_is_not_touched_by_its_former_holder(tmp_path: Path) -> None:
    lease = FileLease(tmp_path, ttl=60)
    assert lease.acquire("key", "slow")
    os.utime(tmp_path / "key.lease", (0, 0))
    assert not lease.acquire("key", "heir")  # buries the dead
    assert lease.acquire("key", "heir")
    lease.release("key", "slow")
    assert not lease.acquire("key", "third")


def test_burying_late_gives_the_successor_its_lease_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two find the same dead lease; one buries it and a third takes a new one before the other acts.
    lease = FileLease(tmp_path, ttl=60)
    assert lease.acquire("key", "heir")
    seen_dead = iter([time.time() + 1000])
    late = SimpleNamespace(time=lambda: next(seen_dead, time.time()))
    monkeypatch.setattr(artefacts, "time", late)
    assert not lease.acquire("key", "late")
    assert not lease.acquire("key", "late")
    lease.release("key", "heir")
    assert list(tmp_path.iterdir()) == []


def test_a_builder_that_fails_leaves_nothing_and_lets_the_next_one_try(tmp_path: Path) -> None:
    store, built = _store(tmp_path), list[int]()
    with pytest.raises(ZeroDivisionError):
        store.get_or_build("model", IDENTITY, lambda: Artefact(values={"x": 1 // 0}))
    assert list(tmp_path.glob("*.safetensors")) == [] and _leases(tmp_path) == []
    store.get_or_build("model", IDENTITY, counting(built))
    assert built == [1]


def test_values_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    store = _store(tmp_path)
    with pytest.raises(ValueError):
        store.get_or_build("model", IDENTITY, lambda: Artefact(values={"x": float("nan")}))
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_write_that_fails_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    store, built = _store(tmp_path), list[int]()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "replace", fail)
        store.get_or_build("model", IDENTITY, counting(built))
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
    store.get_or_build("model", IDENTITY, counting(built))
    assert built == [1, 1]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_built_again(
    share: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, built = _store(tmp_path), list[int]()
    store.get_or_build("model", IDENTITY, counting(built))
    whole = _file(store).read_bytes()
    _file(store).write_bytes(whole[: int(share * len(whole))])
    found = store.get_or_build("model", IDENTITY, counting(built))
    assert built == [1, 1]
    assert torch.equal(found.tensors["weights"], torch.arange(6.0).view(2, 3))
    assert "built again" in caplog.text
    store.get_or_build("model", IDENTITY, counting(built))
    assert built == [1, 1]


@pytest.mark.parametrize("content", [b"\0" * 64, b"\xff" * 64, b"no artefact", b""])
def test_a_file_that_is_no_artefact_is_built_again(content: bytes, tmp_path: Path) -> None:
    store, built = _store(tmp_path), list[int]()
    _file(store).write_bytes(content)
    store.get_or_build("model", IDENTITY, counting(built))
    assert built == [1]


def _filled(store: ArtefactStore, ages: dict[str, float]) -> dict[str, str]:
    keys = {}
    for name, age in ages.items():
        store.get_or_build("model", {"name": name}, lambda: Artefact({"x": torch.zeros(1000)}))
        keys[name] = store.key("model", {"name": name})
        long_ago = time.time() - age
        os.utime(Path(store.folder.uri, f"{keys[name]}.safetensors"), (long_ago, long_ago))
    return keys


def test_eviction_drops_the_longest_unused_first_and_keeps_what_it_must(tmp_path: Path) -> None:
    store = _store(tmp_path)
    keys = _filled(store, {"a": 40, "b": 30, "c": 20, "d": 10})
    each = stored_bytes(store) // 4
    assert store.evict(keep=[], max_bytes=4 * each) == []
    assert store.evict(keep=[keys["a"]], max_bytes=2 * each) == [keys["b"], keys["c"]]
    assert stored_bytes(store) == 2 * each
    assert store.evict(keep=[keys["a"], keys["d"]], max_bytes=0) == []
    assert store.evict(keep=[], max_bytes=0) == [keys["a"], keys["d"]]
    assert stored_bytes(store) == 0


def test_using_an_artefact_makes_it_young_and_an_evicted_one_is_built_again(tmp_path: Path) -> None:
    store = _store(tmp_path)
    keys = _filled(store, {"a": 40, "b": 30})
    store.get_or_build("model", {"name": "a"}, lambda: pytest.fail("it is there"))
    assert store.evict(keep=[], max_bytes=stored_bytes(store) - 1) == [keys["b"]]
    built: list[int] = []
    store.get_or_build("model", {"name": "b"}, counting(built))
    assert built == [1]


def test_an_artefact_with_a_flipped_bit_is_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, built = _store(tmp_path), list[int]()
    store.get_or_build("model", IDENTITY, counting(built))
    whole = _file(store).read_bytes()
    for place in range(0, len(whole), 7):
        _file(store).write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        found = store.get_or_build("model", IDENTITY, counting(built))
        assert torch.equal(found.tensors["weights"], torch.arange(6.0).view(2, 3)), place
        assert found.values["count"] in (1, len(built)), place
        _file(store).write_bytes(whole)
    assert len(built) > len(whole) // 7 - 12  # a space in the header's padding changes nothing
    assert "is not what was written" in caplog.text


def test_progress_is_read_back_replaced_forgotten_and_never_evicted(tmp_path: Path) -> None:
    store = _store(tmp_path)
    key = store.key("model", IDENTITY)
    assert store.progress(key) is None
    for epoch in (1, 2):
        store.keep_progress(key, Artefact({"x": torch.zeros(100)}, {"epoch": epoch}))
        found = store.progress(key)
        assert found is not None and found.values == {"epoch": epoch}
    assert store.evict(keep=[], max_bytes=0) == []
    store.get_or_build("model", IDENTITY, Artefact)
    assert store.progress(key) is None

"""Artefacts in a real S3 server on loopback, seen by several nodes."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.making import counting, stored_bytes
from tests.object_store import Fault, ObjectStore, object_store
from trainables.errors import StorageError
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.storage.folders import open_folder

IDENTITY = {"version": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """Run one S3 server for the tests of the file that want one."""
    with object_store() as found:
        yield found


@pytest.fixture
def far(
    server: ObjectStore, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], ArtefactStore]:
    """Give, for a node by its cache, its view of one store of artefacts in a bucket."""
    server.faults.clear()
    server.requests.clear()
    uri = server.uri(request.node.originalname)

    def of_node(cache: Path) -> ArtefactStore:
        monkeypatch.setenv("DEFENSE_SWEEP_CACHE", str(cache))
        return ArtefactStore(open_folder(uri))

    return of_node


def test_an_artefact_in_a_store_is_built_once_and_read_once_by_each_node(
    far: Callable[[Path], ArtefactStore], server: ObjectStore, tmp_path: Path
) -> None:
    built: list[int] = []
    one, other = far(tmp_path / "one"), far(tmp_path / "other")
    for store in (one, other, other, one):
        found = store.get_or_build("model", IDENTITY, counting(built))
        assert torch.equal(found.tensors["weights"], torch.arange(6.0).view(2, 3))
    assert built == [1]
    assert server.count("GET", ".safetensors") == 1  # by the other node; the one wrote it
    assert not list((tmp_path / "one").rglob("*.lease"))


def test_the_threads_of_a_node_build_an_artefact_of_a_store_once(
    far: Callable[[Path], ArtefactStore], tmp_path: Path
) -> None:
    built: list[int] = []
    store = far(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda _: store.get_or_build("model", IDENTITY, counting(built, 0.3)), range(4)
            )
        )
    assert built == [1]


def test_an_artefact_damaged_in_the_store_is_deleted_there_and_built_again(
    far: Callable[[Path], ArtefactStore],
    server: ObjectStore,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    built, place = list[int](), request.node.name
    far(tmp_path / "one").get_or_build("model", IDENTITY, counting(built))
    ((name, whole),) = server.objects(place).items()
    for number, damaged in enumerate((whole[:100], b"", whole[:-1] + b"?", b"no artefact"), 2):
        server.put(f"{place}/{name}", damaged)
        node = far(tmp_path / f"node{number}")
        found = node.get_or_build("model", IDENTITY, counting(built))
        assert len(built) == number and found.values == {"count": number}
    assert server.objects(place).keys() == {name}


def test_a_store_that_fails_while_an_artefact_is_written_keeps_no_half_of_it(
    far: Callable[[Path], ArtefactStore], server: ObjectStore, tmp_path: Path
) -> None:
    built: list[int] = []
    store = far(tmp_path)
    server.faults.append(Fault("403", "PUT", times=1000))
    with pytest.raises(StorageError, match="access is refused"):
        store.get_or_build("model", IDENTITY, counting(built))
    server.faults.clear()
    server.faults.append(Fault("cut request", "PUT", times=3))
    store.get_or_build("model", IDENTITY, counting(built))
    assert built == [1, 1] and server.faults[0].times == 0


def test_eviction_in_a_store_goes_by_the_last_use_of_any_node(
    far: Callable[[Path], ArtefactStore], tmp_path: Path
) -> None:
    one, other = far(tmp_path / "one"), far(tmp_path / "other")
    keys = {name: one.key("model", {"name": name}) for name in "abc"}
    for name in "abc":
        one.get_or_build("model", {"name": name}, lambda: Artefact({"x": torch.zeros(1000)}))
    time.sleep(1.1)  # a store tells whole seconds
    other.get_or_build("model", {"name": "a"}, lambda: pytest.fail("it is there"))
    each = stored_bytes(one) // 3
    assert set(one.evict(keep=[keys["b"]], max_bytes=2 * each)) == {keys["c"]}
    assert one.evict(keep=[], max_bytes=each) == [keys["b"]]
    assert one.evict(keep=[], max_bytes=0) == [keys["a"]]
    assert stored_bytes(one) == 0


def test_progress_in_a_store_is_that_of_the_node_that_came_last(
    far: Callable[[Path], ArtefactStore], tmp_path: Path
) -> None:
    one, other = far(tmp_path / "one"), far(tmp_path / "other")
    key = one.key("model", IDENTITY)
    for epoch, (writer, reader) in enumerate(((one, other), (other, one), (one, other))):
        writer.keep_progress(key, Artefact(values={"epoch": epoch}))
        found = reader.progress(key)
        assert found is not None and found.values == {"epoch": epoch}
    other.forget_progress(key)
    assert one.progress(key) is None

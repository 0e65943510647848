"""Folders in a real S3 server on loopback that is made to fail, their cache, and staged data."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.object_store import Fault, ObjectStore, object_store
from trainables.errors import InputError, StorageError
from trainables.storage.folders import (
    CachedFolder,
    LocalFolder,
    RemoteFolder,
    open_folder,
    remote,
    staged_file,
    staged_folder,
)

BIG = bytes(range(256)) * 4096  # 1 MiB: more than fits into one packet


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """Run one server for all tests of the file."""
    with object_store() as store:
        yield store


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Return the server without faults and its requests forgotten; waits are short."""
    monkeypatch.setattr(remote, "_FIRST_WAIT", 0.01)
    server.faults.clear()
    server.requests.clear()
    return server


@pytest.fixture
def far(store: ObjectStore, request: pytest.FixtureRequest) -> RemoteFolder:
    """Return a folder of the bucket that no other test uses."""
    return _opened(store, request.node.name)


def _opened(store: ObjectStore, place: str, attempts: int = 5) -> RemoteFolder:
    found = open_folder(store.uri(place.replace("[", "-").rstrip("]")), attempts)
    assert isinstance(found, RemoteFolder)
    return found


def test_credentials_in_a_uri_are_used_and_never_told(store: ObjectStore) -> None:
    uri = store.uri("credentials").replace("s3://", "s3://us%2Fer:hun%2Fter2@")
    found = open_folder(uri, attempts=1)
    found.write("a", b"a")
    assert found.sub("x").uri == store.uri("credentials/x")
    store.faults.append(Fault("403", "PUT"))
    with pytest.raises(StorageError) as caught:
        found.write("a", b"b")
    assert "hun" not in f"{caught.value!r} {found!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("kind", ["500", "503", "cut answer"])
def test_a_read_is_tried_again_until_the_store_answers_whole(
    kind: str, far: RemoteFolder, store: ObjectStore
) -> None:
    far.write("a", BIG)
    store.faults.append(Fault(kind, "GET", times=4))  # type: ignore[arg-type]
    assert far.read("a") == BIG
    assert store.faults[0].times == 0


@pytest.mark.parametrize("kind", ["500", "503", "cut request"])
def test_a_write_is_tried_again_until_the_store_took_it_whole(
    kind: str, far: RemoteFolder, store: ObjectStore
) -> None:
    far.write("a", b"old")
    store.faults.append(Fault(kind, "PUT", times=4))  # type: ignore[arg-type]
    far.write("a", BIG)
    assert store.faults[0].times == 0
    assert far.read("a") == BIG


@pytest.mark.parametrize("kind", ["503", "cut request"])
def test_a_write_that_never_succeeds_ends_and_leaves_the_old_object(
    kind: str, store: ObjectStore
) -> None:
    far = _opened(store, f"never-{kind[:3]}", attempts=3)
    far.write("a", b"old")
    puts = store.count("PUT")
    store.faults.append(Fault(kind, "PUT", times=1000))  # type: ignore[arg-type]
    store.faults.append(Fault(kind, "POST", times=1000))  # type: ignore[arg-type]
    started = time.monotonic()
    for name in ("a", "b"):
        with pytest.raises(StorageError, match="did not do it in 3 tries") as caught:
            far.write(name, BIG)
        assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20
    assert store.count("PUT") - puts <= 2 * 2 * 3  # the client's own tries within each of ours
    store.faults.clear()
    assert far.read("a") == b"old" and [entry.name for entry in far.entries()] == ["a"]


def test_a_read_that_is_always_cut_off_gives_nothing_half(
    store: ObjectStore,
) -> None:
    far = _opened(store, "cut-off", attempts=2)
    far.write("a", BIG)
    store.faults.append(Fault("cut answer", "GET", times=1000))
    with pytest.raises(StorageError, match="did not do it in 2 tries"):
        far.read("a")


def test_a_slow_answer_is_waited_for_or_asked_for_again(
    far: RemoteFolder, store: ObjectStore
) -> None:
    far.write("a", BIG)
    store.faults.append(Fault("slow", "GET", seconds=1))
    store.faults.append(Fault("slow", "GET", seconds=5))
    assert far.read("a") == BIG
    far.write("a", b"new")
    store.faults.append(Fault("slow", "PUT", seconds=5))
    far.write("a", b"newer")
    assert far.read("a") == b"newer"


def test_refused_access_is_said_at_once_and_not_tried_again(
    far: RemoteFolder, store: ObjectStore
) -> None:
    far.write("a", b"a")
    for method in ("PUT", "GET", "HEAD"):
        store.faults.append(Fault("403", method, times=1000))
    store.requests.clear()
    for call in (lambda: far.write("a", b"b"), lambda: far.read("a"), far.entries):
        with pytest.raises(StorageError, match="access is refused") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert len(store.requests) <= 4


def test_a_bucket_that_is_not_there_is_said_at_once(store: ObjectStore) -> None:
    nowhere = open_folder(store.uri("runs", bucket="nowhere"), attempts=5)
    with pytest.raises(StorageError, match="no such bucket"):
        nowhere.write("a", b"a")
    assert nowhere.entries() == []
    assert len(store.requests) <= 4


def test_a_host_that_does_not_answer_ends_within_its_tries(store: ObjectStore) -> None:
    uri = "s3://bucket/runs?scheme=http&endpoint_override=127.0.0.1:9&region=us-east-1"
    started = time.monotonic()
    with pytest.raises(StorageError, match="in 2 tries"):
        open_folder(uri, attempts=2).write("a", b"a")
    assert time.monotonic() - started < 10


def test_what_was_read_once_comes_from_the_node_and_is_read_again_where_it_was_damaged(
    far: RemoteFolder, store: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    far.write("a", BIG)
    cached = CachedFolder(far, LocalFolder(tmp_path))
    store.requests.clear()
    assert cached.read("a") == cached.read("a") == BIG
    assert store.count("GET", "/a") == 1
    for content in (b"", BIG, (tmp_path / "a").read_bytes()[:-1] + b"?"):
        (tmp_path / "a").write_bytes(content)
        assert cached.read("a") == BIG
    assert store.count("GET", "/a") == 4 and "damaged" in caplog.text


def test_the_cache_of_a_node_keeps_what_was_used_last_and_does_without_room(
    far: RemoteFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached = CachedFolder(far, LocalFolder(tmp_path / "cache"), max_bytes=250)
    for name in ("a", "b", "c"):
        cached.write(name, bytes(60))  # 92 bytes with the digest
        time.sleep(0.02)
        cached.read("a")
    assert {entry.name for entry in cached.cache.entries()} == {"a", "c"}
    assert {entry.name for entry in cached.entries()} == {"a", "b", "c"}
    (tmp_path / "file").touch()
    without = CachedFolder(far, LocalFolder(tmp_path / "file"))
    assert without.read("b") == bytes(60)
    assert "cannot be used" in caplog.text
    cached.delete("a")
    with pytest.raises(FileNotFoundError):
        cached.read("a")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a node's empty cache."""
    monkeypatch.setenv("DEFENSE_SWEEP_CACHE", str(tmp_path / "cache"))
    staged_folder.cache_clear()
    staged_file.cache_clear()
    yield tmp_path / "cache" / "staged"
    staged_folder.cache_clear()
    staged_file.cache_clear()


def test_data_is_brought_to_a_node_once_and_anew_where_it_changed(
    store: ObjectStore, cache: Path
) -> None:
    names = ("MNIST/raw/a", "MNIST/raw/deep/b", "cifar/c")
    for name in names:
        store.put(f"data/{name}", name.encode() * 1000)
    uri = store.uri("data")
    with ThreadPoolExecutor(4) as pool:  # as many processes of a node would
        ask = staged_folder.__wrapped__
        found = set(pool.map(lambda _: ask(uri, "MNIST/raw"), range(4)))
    (folder,) = found
    assert store.count("GET", "/raw/a") == 1 and store.count("GET", "cifar/c") == 0
    assert (folder / "MNIST/raw/deep/b").read_bytes() == b"MNIST/raw/deep/b" * 1000
    assert not (folder / "cifar").exists()
    store.put("data/MNIST/raw/a", b"longer" * 10_000)
    other = staged_folder(uri, "MNIST/raw")
    assert other != folder and (other / "MNIST/raw/a").read_bytes() == b"longer" * 10_000
    assert staged_file(store.uri("data/cifar/c")).read_bytes() == b"cifar/c" * 1000
    assert [path.name for path in cache.iterdir() if path.name.startswith(".")] == []


def test_data_that_is_not_there_or_does_not_come_whole_leaves_nothing(
    store: ObjectStore, cache: Path
) -> None:
    with pytest.raises(InputError, match="nothing lies there"):
        staged_folder(store.uri("nothing"), "MNIST/raw")
    with pytest.raises(InputError, match="no such file"):
        staged_file(store.uri("nothing/weights.pth"))
    store.put("halves/a", BIG)
    store.put("halves/b", BIG)
    store.faults.append(Fault("403", "GET", "/halves/b", times=1000))
    with pytest.raises(StorageError, match="access is refused"):
        staged_folder(store.uri("halves"))
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []

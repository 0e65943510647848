"""What every folder must do, on a disk and in a real S3 server on loopback; URIs; full disks."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_store import KEY, SECRET, ObjectStore, object_store
from trainables.errors import InputError
from trainables.storage.folders import (
    Folder,
    LocalFolder,
    RemoteFolder,
    open_folder,
    read_all,
    redacted,
)

BIG = bytes(range(256)) * 4096  # 1 MiB: more than fits into one packet


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """Run one server for all tests of the file."""
    with object_store() as store:
        yield store


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Return an empty folder of each kind."""
    if request.param == "local":
        return LocalFolder(tmp_path / "folder")
    store: ObjectStore = request.getfixturevalue("server")
    return open_folder(store.uri(request.node.originalname))


def test_a_file_comes_back_as_it_was_written_and_is_replaced_whole(folder: Folder) -> None:
    for content in (b"first", b"", BIG, b"last"):
        folder.write("name.bin", content)
        assert folder.read("name.bin") == content
    assert [(entry.name, entry.size) for entry in folder.entries()] == [("name.bin", 4)]
    with pytest.raises(FileNotFoundError):
        folder.read("other.bin")


def test_a_list_is_of_the_visible_files_right_here_with_sizes_and_times(folder: Folder) -> None:
    started = time.time()
    assert folder.entries() == [] and folder.occupant() is None
    for name in ("b.json", "a.json", "c.txt", ".hidden.json"):
        folder.write(name, name.encode())
    folder.sub("deeper").write("d.json", b"d")
    assert [entry.name for entry in folder.entries()] == ["a.json", "b.json", "c.txt"]
    assert [entry.name for entry in folder.entries(".json")] == ["a.json", "b.json"]
    assert [entry.size for entry in folder.entries(".txt")] == [5]
    assert all(started - 2 <= entry.modified <= time.time() + 2 for entry in folder.entries())
    assert folder.occupant() == "a.json"
    assert folder.sub("deeper").read("d.json") == folder.read("deeper/d.json") == b"d"


def test_what_is_deleted_is_gone_and_deleting_what_is_not_there_is_no_error(
    folder: Folder,
) -> None:
    folder.write("a", b"a")
    folder.touch("a")
    folder.delete("a")
    folder.delete("a")
    assert folder.entries() == [] and folder.occupant() is None


def test_using_a_file_makes_it_young(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        folder.write(name, b"x")
        time.sleep(1.1)  # a store tells whole seconds
    folder.touch("a")
    young = {entry.name: entry.modified for entry in folder.entries()}
    assert young["a"] > young["b"]


def test_many_files_are_read_in_the_order_asked_for_and_those_gone_are_left_out(
    folder: Folder,
) -> None:
    names = [f"{number}.json" for number in range(40)]
    for name in names:
        folder.write(name, name.encode())
    asked = [*reversed(names), "gone.json"]
    assert list(read_all(folder, asked)) == [(name, name.encode()) for name in reversed(names)]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/../../up", "/etc/passwd", "a//b", "a/", "a\\b", "a\0b", "a\nb"],
)
def test_a_name_never_leaves_its_folder(name: str, tmp_path: Path) -> None:
    inner = LocalFolder(tmp_path / "inner")
    calls = (inner.read, inner.delete, inner.touch, inner.sub, lambda n: inner.write(n, b"x"))
    for call in calls:
        with pytest.raises(InputError, match="not a file name"):
            call(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("runs/first", "runs/first"),
        ("s3://bucket/runs", "s3://bucket/runs"),
        (f"s3://{KEY}:{SECRET.replace('/', '%2F')}@bucket/runs", "s3://bucket/runs"),
        (f"s3://{KEY}:{SECRET}@bucket/runs", "s3://bucket/runs"),
        (f"s3://{KEY}:{SECRET}", "s3://.."),
        ("s3://12:34/56@bucket", "s3://bucket"),
        ("s3://key@bucket/a@b/c", "s3://bucket/a@b/c"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("s3://b/r?region=eu-west-1&secret_key=x&session_token=y", "s3://b/r?region=eu-west-1"),
        ("s3://b/r?endpoint_override=u:p@host:9000", "s3://b/r"),
        (
            "launch --runs=s3://k:s@b/r 's3://k:s@c/?x=y' end",
            "launch --runs=s3://b/r 's3://c/' end",
        ),
        ("https://user:word@host:80/x", "https://host:80/x"),
    ],
)
def test_what_is_secret_in_a_uri_is_not_shown(given: str, shown: str) -> None:
    assert redacted(given) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://bucket/runs", "unknown scheme 'ftp'; write a path, s3://"),
        ("s3://", "names no bucket"),
        (f"s3://{KEY}:{SECRET}", "names no bucket"),
        (f"s3://{KEY}:{SECRET}@bucket/runs", "names no bucket"),
        ("s3://bucket/../other", "is empty, '.' or '..'"),
        ("s3://bucket/a//b", "is empty, '.' or '..'"),
        ("s3://bucket/r?secret_key=hunter2", "unknown parameter 'secret_key'; known: region"),
        ("s3://[bucket/r", "is not a URI"),
    ],
)
def test_a_uri_that_cannot_be_opened_is_refused_in_one_line_without_its_secret(
    uri: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        open_folder(uri)
    message = str(caught.value)
    assert words in message and "\n" not in message
    assert "secret/with" not in message and "hunter2" not in message


def test_each_scheme_opens_its_own_kind_of_folder(tmp_path: Path) -> None:
    for place in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        assert open_folder(place) == LocalFolder(tmp_path)
    google = open_folder("gs://anonymous@bucket/runs/first")
    assert isinstance(google, RemoteFolder)
    assert (google.uri, google.path) == ("gs://bucket/runs/first", "bucket/runs/first")
    with pytest.raises(InputError, match="credentials come from the environment"):
        open_folder("gs://key:word@bucket/runs")


# What a process does on a disk that is full: each write ends in one line, with nothing half done.
FULL = """
import sys
from pathlib import Path
import torch
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.errors import StorageError
from trainables.records.record import TrialRecord, write_record

root = Path(sys.argv[1])
record = lambda size: TrialRecord(
    trial="abc", spec={}, sampled={}, status="completed", notes={"text": "x" * size}
)
write_record(record(10), root / "records")
small = (root / "records" / "abc.json").read_bytes()
store = ArtefactStore(root / "artefacts")
build = lambda: Artefact({"weights": torch.zeros(1_000_000)})
for attempt in (
    lambda: write_record(record(4_000_000), root / "records"),
    lambda: store.get_or_build("model", {"version": 1}, build),
):
    try:
        attempt()
    except StorageError as error:
        print(error)
assert (root / "records" / "abc.json").read_bytes() == small
print(sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()))
"""


def test_a_full_disk_ends_in_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" -c "$3" "$1"'
    arguments = (str(tmp_path), sys.executable, FULL)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *arguments], capture_output=True, text=True
    )
    if "mount:" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    _check_full(done, "No space left on device")


def test_a_limit_on_the_size_of_files_ends_like_a_full_disk(tmp_path: Path) -> None:
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n{FULL}"
    done = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path)], capture_output=True, text=True
    )
    _check_full(done, "File too large")


def _check_full(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 0, done.stderr
    record, artefact, files = done.stdout.splitlines()
    assert words in record and "abc.json" in record
    assert words in artefact and "model-" in artefact
    assert files == "['records/abc.json']"

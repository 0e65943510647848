"""Whether another driver, on whatever machine, is at a run in an object store."""

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.errors import InputError, StorageError
from trainables.storage.folders import RemoteFolder, write_atomically

logger = logging.getLogger(__name__)

BEAT_SECONDS, DEAD_SECONDS, SETTLE_SECONDS = 15.0, 60.0, 1.0
_BEAT = ".driver.json"
_LOCK_ID = "lock-id"


@contextmanager
def beating(folder: RemoteFolder, state: Path) -> Iterator[None]:
    """Announce in the run's folder, again and again, that this driver is at it.

    Raises InputError where another said so within the last minute, by the store's own clock. The
    caller holds the lock in `state`, so a beat of a driver that held the same lock is of a dead
    one, and is taken over at once.

    What this can do: it refuses a second driver that comes while one is running, or at nearly the
    same moment. What it cannot: an object store has no lock, so of two drivers whose first writes
    take longer than a second both may begin, and a driver that was cut off from the store for a
    minute may be mistaken for dead. Such a one ends itself, as by Ctrl-C, at the first beat that it
    finds to be another's. Nothing is lost or mixed up meanwhile, since each record and artefact is
    whole and equal whoever writes it: some trials run twice, and more than were asked for may.
    """
    lock_id = _lock_id(state)
    _refuse_other(folder, lock_id)
    own = {"holder": uuid.uuid4().hex, "lock": lock_id, "host": socket.gethostname()}
    content = json.dumps({**own, "pid": os.getpid()}).encode()
    folder.write(_BEAT, content)
    time.sleep(SETTLE_SECONDS)
    if _holder(_beat(folder)) != own["holder"]:
        raise InputError(f"{folder.uri}: another launch began this sweep at the same moment")
    done = threading.Event()
    thread = threading.Thread(target=_beat_on, args=(folder, content, own["holder"], done))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _leave(folder, own["holder"])


def _refuse_other(folder: RemoteFolder, lock_id: str) -> None:
    found = _beat(folder)
    if found is None or found.get("lock") == lock_id:
        return
    try:
        silent = _now(folder) - folder.modified(_BEAT)
    except FileNotFoundError:
        return  # it has just ended
    if silent < DEAD_SECONDS:
        raise InputError(
            f"{folder.uri}: another launch is running this sweep on {found.get('host')} (last "
            f"heard of {max(silent, 0):.0f} s ago); wait for it or end it, or take another --name. "
            f"If it was killed, wait {DEAD_SECONDS - silent:.0f} s"
        )


def _beat_on(folder: RemoteFolder, content: bytes, holder: str, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        try:
            if _holder(_beat(folder)) not in (holder, None):
                logger.error("%s: another launch took this sweep over; this one ends", folder.uri)
                os.kill(os.getpid(), signal.SIGINT)
                return
            folder.write(_BEAT, content)
        except StorageError as error:
            logger.warning("this driver cannot say that it is there: %s", error)


def _leave(folder: RemoteFolder, holder: str) -> None:
    try:
        if _holder(_beat(folder)) == holder:
            folder.delete(_BEAT)
    except StorageError as error:
        logger.warning("this driver cannot say that it is gone: %s", error)


def _beat(folder: RemoteFolder) -> dict[str, Any] | None:
    try:
        found = json.loads(folder.read(_BEAT))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _holder(beat: dict[str, Any] | None) -> str | None:
    return None if beat is None else str(beat.get("holder"))


def _now(folder: RemoteFolder) -> float:
    """Ask the store for the time: clocks of two machines differ."""
    name = f".clock-{uuid.uuid4().hex}"
    folder.write(name, b"")
    try:
        return folder.modified(name)
    finally:
        folder.delete(name)


def _lock_id(state: Path) -> str:
    path = state / _LOCK_ID
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex.encode())
    return path.read_text()

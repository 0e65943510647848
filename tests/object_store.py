"""A real S3 server on loopback, and a proxy before it that can be told to fail."""

import http.client
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from moto.server import ThreadedMotoServer
from pyarrow import fs

KEY, SECRET = "test-key", "test-secret/with+signs"
Kind = Literal["500", "503", "403", "slow", "cut answer", "cut request"]
_ERRORS = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied"}


@dataclass(slots=True)
class Fault:
    """What goes wrong with the next requests of a method whose path holds some words."""

    kind: Kind
    method: str
    words: str = ""
    times: int = 1
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class ObjectStore:
    """A server with a bucket, reached by a proxy that notes the requests."""

    port: int
    behind: int
    bucket: str = "bucket"
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(method, path with query) of each request so far."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def uri(self, place: str, bucket: str | None = None) -> str:
        """Return the URI of a place in the bucket."""
        query = f"scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"
        return f"s3://{bucket or self.bucket}/{place}?{query}"

    def direct(self) -> fs.FileSystem:
        """Return a file system that goes past the proxy, for the test's own hands."""
        return fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{self.behind}", scheme="http", region="us-east-1",
            allow_bucket_creation=True,
        )  # fmt: skip

    def objects(self, place: str = "") -> dict[str, bytes]:
        """Return every object below a place of the bucket, by its name from there."""
        root = f"{self.bucket}/{place}".rstrip("/")
        filesystem = self.direct()
        selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
        found = {}
        for info in filesystem.get_file_info(selector):
            if info.is_file:
                with filesystem.open_input_file(info.path) as file:
                    found[info.path[len(root) + 1 :]] = file.read()
        return found

    def put(self, name: str, content: bytes) -> None:
        """Put an object, past the proxy."""
        with self.direct().open_output_stream(f"{self.bucket}/{name}") as stream:
            stream.write(content)

    def count(self, method: str, words: str = "") -> int:
        """Count the requests so far of a method whose path holds some words."""
        return sum(m == method and words in path for m, path in self.requests)

    def take(self, method: str, path: str) -> Fault | None:
        """Note a request and give what shall go wrong with it."""
        with self.lock:
            self.requests.append((method, path))
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.words in path:
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Run server and proxy, with credentials in the environment."""
    kept = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    behind = server.get_host_and_port()[1]
    store = ObjectStore(port=0, behind=behind)
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(store))
    proxy.daemon_threads = True
    store.port = proxy.server_address[1]
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        store.direct().create_dir(store.bucket)
        yield store
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
        server.stop()
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    # Else the client asks an address outside of this machine where a key is lacking.
    "AWS_EC2_METADATA_DISABLED": "true",
}


_OWN = ("connection", "content-length", "date", "expect", "server", "transfer-encoding")
"""Headers that the proxy makes itself."""


def _handler(store: ObjectStore) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing: the store notes the requests."""

        def _serve(self) -> None:
            fault = store.take(self.command, self.path)
            if fault is not None and fault.kind == "cut request":
                self.rfile.read(100)
                self.close_connection = True
                return
            body = self._body()
            if fault is not None and fault.kind in _ERRORS:
                self._refuse(fault.kind)
                return
            if fault is not None and fault.kind == "slow":
                time.sleep(fault.seconds)
            self._forward(body, cut=fault is not None and fault.kind == "cut answer")

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return b"".join(parts)

        def _refuse(self, status: str) -> None:
            code = _ERRORS[status]
            body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            self.send_response(int(status))
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _forward(self, body: bytes, *, cut: bool) -> None:
            behind = http.client.HTTPConnection("127.0.0.1", store.behind, timeout=30)
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _OWN:
                    behind.putheader(name, value)
            behind.putheader("Content-Length", str(len(body)))
            behind.endheaders(body)
            answer = behind.getresponse()
            content = answer.read()
            behind.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _OWN:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if cut:
                self.close_connection = True
                content = content[: len(content) // 2]
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    return Handler

"""Ray's own autoscaler over machines that are processes here: the fake multi-node provider."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

IDLE_MINUTES = 0.1
_START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class FakeCluster:
    """A head that runs no trials, and what its clients need."""

    address: str
    environment: dict[str, str]


@contextmanager
def autoscaling_cluster(
    folder: Path, *, most_workers: int, environment: Mapping[str, str]
) -> Iterator[FakeCluster]:
    """Start a head whose autoscaler may add nodes with one CPU and one GPU.

    `environment` is that of its processes, workers among them. Ends by ending the process group
    that everything of the cluster is in, by its id.
    """
    ip: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    port = _free_port()
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(_config(f"{ip}:{port}", most_workers)))
    environment = {
        **environment,
        # The console script beside this Python starts the nodes.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "0",
    }
    # Of its own, and short: the paths of sockets may have about a hundred letters.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch:
        command = [
            "ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=0", "--num-gpus=0",
            f"--autoscaling-config={config}", f"--temp-dir={scratch}",
            "--include-dashboard=false", "--object-store-memory=100000000",
        ]  # fmt: skip
        with (folder / "head.log").open("w") as log:
            head = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            _wait_until_it_answers(ip, port, head)
            yield FakeCluster(f"{ip}:{port}", environment)
        finally:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def _config(address: str, most_workers: int) -> dict[str, Any]:
    lists = (
        "initialization_commands", "setup_commands", "head_setup_commands",
        "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
        "cluster_synced_files", "rsync_exclude", "rsync_filter",
    )  # fmt: skip
    return {
        "cluster_name": "fake",
        "max_workers": most_workers,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu.worker": {
                "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 100_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most_workers,
            },
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in lists},
    }


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_until_it_answers(ip: str, port: int, head: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and head.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((ip, port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"the head does not answer on port {port}, or has ended")

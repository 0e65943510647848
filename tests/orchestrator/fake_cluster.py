"""A Ray cluster on this machine that does what its standard input says: a head without CPUs, nodes.

Answers on its standard output: the address first, then once for each order.
"""

import os
import signal
import sys
from typing import Any

from ray.cluster_utils import Cluster

from tests.orchestrator.processes import descendants, title_of

_MIB = 2**20


def main(count: int) -> None:
    """Start the nodes and follow the orders until there are no more."""
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * _MIB}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * _MIB) for _ in range(count)]
    cluster.wait_for_nodes()
    _answer(cluster.address)
    for line in sys.stdin:
        _answer(_follow(line.strip(), cluster, nodes))


def _follow(order: str, cluster: Cluster, nodes: list[Any]) -> str:
    if order == "kill worker":
        raylet = _raylet(nodes[0])
        busy = [child for child in descendants(raylet) if "ImplicitFunc" in title_of(child)]
        if not busy:
            return "no worker is busy"
        os.kill(busy[0], signal.SIGKILL)
        return "killed"
    if order == "kill node":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        return "killed"
    if order == "end node":
        os.kill(_raylet(nodes.pop()), signal.SIGTERM)
        return "ended"
    return f"unknown order {order!r}"


def _raylet(node: Any) -> int:
    (info,) = node.all_processes["raylet"]
    return int(info.process.pid)


def _answer(text: str) -> None:
    print(f"answer: {text}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

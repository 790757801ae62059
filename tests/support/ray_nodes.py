"""A Ray cluster of several nodes on this machine, all of it on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_QUICK_NOTICE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
}
"""Ray's own values notice a lost node after 15 seconds and more."""
_NODE = {
    "num_cpus": 1,
    "object_store_memory": 80_000_000,
    "node_ip_address": "127.0.0.1",
    "include_dashboard": False,
}
WORKER = "ray::RemoteAnnotator"
"""Ray names a worker's process after its actor."""


class Nodes:
    """A head that holds no clip, and nodes that hold one each."""

    def __init__(self, n_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        head = _NODE | {"num_cpus": 0, "_system_config": _QUICK_NOTICE}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = str(self._cluster.address)
        self.nodes = [self.add() for _ in range(n_nodes)]

    def add(self, environment: dict[str, str] | None = None) -> Any:
        return self._cluster.add_node(**_NODE, env_vars=environment or {})

    def kill(self, node: Any) -> None:
        """Kills a node with all of its processes, as a power cut does."""
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes = [each for each in self.nodes if each is not node]

    def close(self) -> None:
        self._cluster.shutdown()


@contextmanager
def started_nodes(n_nodes: int) -> Iterator[Nodes]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = Nodes(n_nodes)
    try:
        yield nodes
    finally:
        nodes.close()


def workers() -> dict[int, str]:
    """The processes that annotate clips, and the videos that each has open."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(WORKER.encode()):
                found[int(folder.name)] = " ".join(_open_files(folder))
    return found


def _open_files(folder: Path) -> Iterator[str]:
    for link in (folder / "fd").iterdir():
        with suppress(OSError):
            yield os.readlink(link)

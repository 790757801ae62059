"""Connects to a Ray cluster, and finds out whether its nodes can do the work."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from stream_cam._version import __version__
from stream_cam.cluster import storage
from stream_cam.config import ClusterConfig
from stream_cam.errors import ClusterError, UsageError
from stream_cam.uri import scheme_of

logger = logging.getLogger(__name__)

_INSTALL: Final = "pip install 'stream-cam[cluster]'"
_STORE_BYTES: Final = 100_000_000
"""Only outcomes travel through Ray's object store; its default is a third of the memory."""
_PROBE_SECONDS: Final = 120.0
_LOOPBACK: Final = "127.0.0.1"


def import_ray() -> Any:
    """Ray, with its usage statistics switched off.

    Raises:
        UsageError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns of its future
    try:
        import ray
    except ImportError as exc:
        raise UsageError(f"--cluster needs Ray, which is not installed: {_INSTALL}") from exc
    return ray


@contextmanager
def connected(config: ClusterConfig) -> Iterator[Any]:
    """A connection to the cluster, or a cluster of this machine alone, for as long as it lasts.

    Yields:
        Ray.

    Raises:
        UsageError: Ray, or its client, is not installed.
        ClusterError: there is no such cluster.
    """
    ray = import_ray()
    _keep_stdout()
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with _own_handlers(), _loopback_kept():
            if config.n_local is None:
                ray.init(config.cluster, **quiet)
            else:
                ray.init(
                    "local",
                    num_cpus=math.ceil(config.n_local * config.task_cpus),
                    include_dashboard=False,
                    object_store_memory=_STORE_BYTES,
                    _node_ip_address=_LOOPBACK,
                    **quiet,
                )
    except ImportError as exc:
        raise UsageError(f"{config.cluster} needs Ray's client: {_INSTALL}") from exc
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as exc:
        reason = " ".join(str(exc).split())
        raise ClusterError(
            f"no Ray cluster at {config.cluster}: {reason}; start one with "
            "`ray start --head`, or give --cluster local:2"
        ) from exc
    try:
        yield ray
    finally:
        ray.shutdown()


def _keep_stdout() -> None:
    """Ray prints news of nodes to stdout, between our lines; they go to the log instead."""
    from ray._private import worker

    def log(news: dict[str, Any], ignore_prefix: bool = False) -> None:
        logger.info("%s", " ".join(" ".join(news["lines"]).split()))

    worker.print_to_stdstream = log


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Ray sets a handler for SIGTERM that ends the process; ours ends the run in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _loopback_kept() -> Iterator[None]:
    """Let 127.0.0.1 stay 127.0.0.1: Ray replaces it with the machine's address in its network.

    Ray's servers listen on all interfaces then. (services.py in Ray 2.60)
    """
    from ray._private import services

    before = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = before


def node_name(hostname: str, node_id: str) -> str:
    """A node as people see it: several may run on one machine."""
    return f"{hostname}-{node_id[:6]}"


def living_nodes(ray: Any) -> dict[str, dict[str, Any]]:
    """The nodes that live, by their identity."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def capacity(nodes: Sequence[dict[str, Any]], config: ClusterConfig) -> int:
    """The number of clips that fit on the nodes at once."""
    return sum(_fitting(node["Resources"], config) for node in nodes)


def _fitting(resources: dict[str, float], config: ClusterConfig) -> int:
    count = int(resources.get("CPU", 0) // config.task_cpus)
    if config.task_gpus:
        count = min(count, int(resources.get("GPU", 0) // config.task_gpus))
    return count


def check_capacity(ray: Any, config: ClusterConfig) -> None:
    """Finds out whether a clip fits on any node.

    Raises:
        ClusterError: it does not.
    """
    nodes = list(living_nodes(ray).values())
    if capacity(nodes, config) or config.max_workers is not None:
        return
    most_cpus = max((node["Resources"].get("CPU", 0) for node in nodes), default=0)
    most_gpus = max((node["Resources"].get("GPU", 0) for node in nodes), default=0)
    raise ClusterError(
        f"no node holds a clip of {config.task_cpus:g} CPUs and {config.task_gpus:g} GPUs; the "
        f"largest have {most_cpus:g} and {most_gpus:g}: give --task-cpus and --task-gpus to fit"
    )


def check_nodes(ray: Any, places: Sequence[str], files: Sequence[str]) -> None:
    """Finds out whether each node has stream-cam, the packages, the folders and the files.

    Args:
        places: folders and stores of clips and results.
        files: weights and labels, at absolute paths.

    Raises:
        ClusterError: a node lacks something; all of them are named.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folders = [str(storage.as_path(place)) for place in places if storage.is_local(place)]
    schemes = sorted({scheme_of(place) for place in places if not storage.is_local(place)})
    probe = ray.remote(num_cpus=0, max_retries=0)(_probe_by_value())
    asked = {}
    for node_id, node in living_nodes(ray).items():
        on_node = probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, False))
        answer = on_node.remote(__version__, schemes, folders, list(files))
        asked[node_id] = node_name(node["NodeManagerHostname"], node_id), answer
    problems = []
    for node_id, (name, answer) in asked.items():
        try:
            problems += [f"node {name} {said}" for said in ray.get(answer, timeout=_PROBE_SECONDS)]
        except ray.exceptions.RayError as error:  # noqa: PERF203
            if node_id in living_nodes(ray):  # else it is lost, which is no problem of this run
                problems.append(f"node {name} does not answer ({type(error).__name__})")
    if problems:
        raise ClusterError("; ".join(problems))


def _probe_by_value() -> Any:
    """The probe; a function inside a function travels whole, so that no node needs stream-cam."""

    def probe(version: str, schemes: list[str], folders: list[str], files: list[str]) -> list[str]:
        import importlib
        import os

        lacking = []
        try:
            theirs = importlib.import_module("stream_cam._version").__version__
            if theirs != version:
                lacking.append(f"has stream-cam {theirs}, the driver has {version}: install one")
        except ImportError:
            lacking.append(f"has no stream-cam: pip install 'stream-cam[cluster]=={version}' there")
        try:
            registry = importlib.import_module("fsspec")
        except ImportError:
            lacking.append("lacks the extra: pip install 'stream-cam[cluster]' there")
        else:
            for scheme in schemes:
                try:
                    registry.get_filesystem_class(scheme)
                except (ImportError, ValueError) as error:  # noqa: PERF203
                    lacking.append(f"cannot open {scheme}:// ({error})")
        lacking += [
            f"does not see the folder {folder}: mount it there, or use an object store"
            for folder in folders
            if not os.path.isdir(folder)
        ]
        lacking += [
            f"has no file {file}: copy it there" for file in files if not os.path.isfile(file)
        ]
        return lacking

    return probe

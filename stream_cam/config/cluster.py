"""How the videos of a batch are spread over a cluster; the options of `batch --cluster`."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final

_ADDRESS: Final = re.compile(r"auto|local:[1-9]\d*|ray://\S+:\d+")


@dataclass(frozen=True)
class ClusterConfig:
    """Where a batch runs on a Ray cluster, and how much of it one clip takes."""

    cluster: str | None = None
    """Run on a Ray cluster; needs `pip install 'stream-cam[cluster]'`.
    auto: the cluster of this machine. ray://HEAD:10001: another one, from outside.
    local:4: up to four clips at a time on this machine."""
    task_cpus: float = 2.0
    """With --cluster: the CPUs that one clip takes; fractions are allowed."""
    task_gpus: float = 0.0
    """With --cluster: the GPUs that one clip takes; fractions share a GPU."""
    max_workers: int | None = None
    """With --cluster: the most clips at a time.
    A number above today's nodes lets an autoscaler add some. Default: as many as nodes hold."""
    retry_poison: bool = False
    """With --cluster: try clips again that have killed their worker twice."""
    json: bool = False
    """With --cluster: print a line of JSON for each clip, and one for the run."""

    def __post_init__(self) -> None:
        if self.cluster is not None and not _ADDRESS.fullmatch(self.cluster):
            raise ValueError(
                f"--cluster is auto, local:N or ray://HEAD:10001, got {self.cluster!r}"
            )
        if self.task_cpus <= 0:
            raise ValueError(f"--task-cpus is a number above 0, got {self.task_cpus:g}")
        if self.task_gpus < 0 or (self.task_gpus > 1 and self.task_gpus % 1):
            raise ValueError(
                f"--task-gpus is a whole number, or a part of one GPU, got {self.task_gpus:g}"
            )
        if self.max_workers is not None and self.max_workers < 1:
            raise ValueError(f"--max-workers is a number of clips from 1, got {self.max_workers}")
        given = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        if self.cluster is None and given:
            name = given[0].replace("_", "-")
            raise ValueError(f"--{name} is for --cluster: give both, or neither")

    @property
    def n_local(self) -> int | None:
        """N of local:N; None for a cluster that is there already."""
        _, local, count = (self.cluster or "").partition("local:")
        return int(count) if local else None

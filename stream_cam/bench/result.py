"""Figures as values, and as JSON that `--compare` and others read. docs/bench.md has the schema."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stream_cam.atomic_files import write_atomic
from stream_cam.bench.timing import Measurement
from stream_cam.engine.manifest import Figures
from stream_cam.errors import BenchError
from stream_cam.uri import json_text, printable

FORMAT = "stream-cam bench"
VERSION = 2
"""Raised when a field is removed or changes its meaning."""
_OLDER_VERSIONS = (1,)
"""Older versions that can be read; figures are computed from their samples."""
_MAX_BYTES = 256 << 20
MIN_SAMPLES = {50: 5, 90: 20, 99: 200}
"""Calls that each percentile needs. With fewer, a single call decides it."""
NOT_HERE = "not here"
"""The `kind` of a gap that exists because the machine or the engine has no such feature."""

Group = Literal["engine", "stage", "kernel", "peer"]
GROUPS: tuple[Group, ...] = ("engine", "stage", "kernel", "peer")
GROUP_TITLES: Mapping[str, str] = {
    "engine": "the network alone",
    "stage": "the stages of one frame",
    "kernel": "kernels on the GPU, beside a copy and plain torch",
    "peer": "whole frames beside peers, in turns",
}


@dataclass(frozen=True)
class Subject:
    """The identity of a row. Rows of two files with equal subjects can be compared."""

    group: Group
    name: str
    """"network", a stage, a kernel with its frame's size, or a peer."""
    engine: str
    """openvino, eager, …; empty for rows without an engine."""
    device: str
    """Where it runs: cpu, cuda, cuda:0, …"""
    precision: str
    """fp32, bf16, fp16, int8; empty for rows without an engine."""
    batch: int
    """Images a call."""
    input_hw: tuple[int, int] | None
    """The network's input in pixels; None for rows without it."""
    frame_hw: tuple[int, int] | None
    """The frame in pixels; None for rows without it."""
    mode: str
    """launch: the engine's own call; graph: the replay of its CUDA graph; 2 streams: two calls at
    the same time, as `run` makes them for files."""

    def __str__(self) -> str:
        parts = [self.name, f"{self.engine}:{self.precision}".strip(":"), self.device]
        if self.batch > 1:
            parts.append(f"batch {self.batch}")
        parts += [size_text(self.input_hw), self.mode.removeprefix("launch")]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Row:
    """One subject's figures."""

    subject: Subject
    region: str
    """The work between the start and the end of the time, and the timer's name."""
    n: int
    p50_ms: float | None
    """None with fewer calls than `MIN_SAMPLES`."""
    p90_ms: float | None
    p99_ms: float | None
    min_ms: float
    max_ms: float
    mean_ms: float
    spread: float | None
    """(p90 − p10) / p50; None where p90 is."""
    drift: float | None
    """Difference between the medians of the earlier and the later half of the samples, as a share
    of p50. None where a half has too few samples for a median."""
    images_per_second: float
    """Throughput of calls one after the other, without waiting where they can be queued. Concurrent
    calls are counted together."""
    verification: Figures | None
    """Differences between the timed engine and its network; None for rows without an engine."""
    samples_ms: tuple[float, ...]
    """In the order of time."""

    @classmethod
    def of(
        cls, subject: Subject, region: str, timed: Measurement, verification: Figures | None = None
    ) -> Row:
        samples = tuple(round(value, 6) for value in timed.samples_ms)
        values = np.array(samples)
        p50, p90, p99 = (percentile(values, share) for share in MIN_SAMPLES)
        spread = drift = None
        if p90 is not None and p50:
            spread = (p90 - float(np.percentile(values, 10))) / p50
        if values.size >= 2 * MIN_SAMPLES[50] and p50:
            early, late = np.array_split(values, 2)
            drift = abs(float(np.median(late) - np.median(early))) / p50
        return cls(
            subject=subject,
            region=region,
            n=values.size,
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            min_ms=float(values.min()),
            max_ms=float(values.max()),
            mean_ms=float(values.mean()),
            spread=spread,
            drift=drift,
            images_per_second=timed.calls_per_second * subject.batch,
            verification=verification,
            samples_ms=samples,
        )


def percentile(values: np.ndarray[tuple[int], np.dtype[np.float64]], share: int) -> float | None:
    """A percentile of samples; None if there are too few."""
    if values.size < MIN_SAMPLES[share]:
        return None
    return float(np.percentile(values, share))


@dataclass
class BenchResult:
    """All figures of one benchmark."""

    command: str
    machine: dict[str, Any]
    """`stream_cam.bench.machine.examined`."""
    network: dict[str, Any]
    """model, weights, weights_sha256, n_classes."""
    source: str
    """Where the frames came from."""
    rows: list[Row] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    """`what` was not measured, and `why`; `kind` is "not here" where the machine lacks the
    feature."""
    files: list[dict[str, Any]] = field(default_factory=list)
    """Throughput of whole files (`stream_cam.bench.throughput`)."""
    method: dict[str, Any] = field(default_factory=dict)
    """The method: calls, warm-up, turns, threads."""
    seconds: float = 0.0

    def leave_out(self, what: str, why: str, *, not_here: bool = False) -> None:
        kind = {"kind": NOT_HERE} if not_here else {}
        self.left_out.append({"what": what, "why": why, **kind})

    def cut_short(self, why: str) -> None:
        """Records that the benchmark ended early."""
        self.leave_out("the part in progress, and all after it", why)

    def to_json(self) -> str:
        said = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json_text(said, indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Writes JSON atomically.

        Raises:
            BenchError: it cannot be written.
        """
        write_text(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> BenchResult:
        """Reads a file of `write`.

        Raises:
            BenchError: the file cannot be read, or holds no benchmark.
        """
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise BenchError(f"{path} has more than {_MAX_BYTES >> 20} MiB; no benchmark does")
            said = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BenchError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise _no_bench_file(path, "it is not JSON") from error
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise _no_bench_file(path, f'it does not say "format": "{FORMAT}"')
        if said.get("version") not in (VERSION, *_OLDER_VERSIONS):
            raise _no_bench_file(path, f"its version is {said.get('version')}, here {VERSION}")
        try:
            return cls._of(said)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _no_bench_file(path, f"a field is missing or wrong: {error}") from error

    @classmethod
    def _of(cls, said: Mapping[str, Any]) -> BenchResult:
        return cls(
            command=str(said["command"]),
            machine={**said["machine"], "gpus": [dict(gpu) for gpu in said["machine"]["gpus"]]},
            network=dict(said["network"]),
            source=str(said["source"]),
            rows=[_row(row) for row in said["rows"]],
            left_out=[{**one, "what": one["what"], "why": one["why"]} for one in said["left_out"]],
            files=[dict(file) for file in said["files"]],
            method=dict(said.get("method", {})),
            seconds=_number(said["seconds"]),
        )


def write_text(path: Path, text: str) -> None:
    """Writes a file atomically.

    Raises:
        BenchError: it cannot be written.
    """
    try:
        write_atomic(path, printable(text).encode())
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}") from error


def size_text(size_hw: Sequence[int] | None) -> str:
    """Width × height, such as 384×224; empty for None."""
    return "" if size_hw is None else "×".join(str(side) for side in reversed(size_hw))


def _row(said: Mapping[str, Any]) -> Row:
    """Computes the figures from the samples; other figures in the file are ignored."""
    subject = {name: said["subject"][name] for name in Subject.__dataclass_fields__}
    for name in ("input_hw", "frame_hw"):
        subject[name] = None if subject[name] is None else tuple(map(int, subject[name]))
    if subject["group"] not in GROUPS:
        raise ValueError(f"group {subject['group']!r}")
    samples_ms = tuple(_number(value) for value in said["samples_ms"])
    if not samples_ms or not all(samples_ms):
        raise ValueError(f"no samples of {subject['name']}")
    verification = said["verification"]
    return Row.of(
        Subject(**subject),
        str(said["region"]),
        Measurement(samples_ms, _number(said["images_per_second"]) / subject["batch"]),
        None if verification is None else Figures(**verification),
    )


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise TypeError(f"{value!r} is no measured number")
    return float(value)


def _no_bench_file(path: Path, why: str) -> BenchError:
    return BenchError(
        f"{path} is no file of `stream-cam bench --json` that this version reads ({why})"
    )

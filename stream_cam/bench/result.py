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
from stream_cam.bench.timing import Timed
from stream_cam.engine.manifest import Figures
from stream_cam.errors import BenchError
from stream_cam.uri import json_text, printable

FORMAT = "stream-cam bench"
VERSION = 2
"""Raised when a field changes its meaning or goes."""
_READ_TOO = (1,)
"""Older versions; figures are computed from their samples."""
_MAX_BYTES = 256 << 20
LEAST_SAMPLES = {50: 5, 90: 20, 99: 200}
"""Calls from which on a percentile says something: fewer, and one call decides it."""
NOT_HERE = "not here"
"""The `kind` of what is left out because the machine or the engine has no such thing."""

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
    """What a row is about: rows of two files with equal subjects can be compared."""

    group: Group
    name: str
    """network; a stage; a kernel and its frame's size; a peer."""
    engine: str
    """openvino, eager, …; empty where no engine has a part."""
    device: str
    """cpu, cuda, cuda:0, …: where it runs."""
    precision: str
    """fp32, bf16, fp16, int8; empty where no engine has a part."""
    batch: int
    """Images a call."""
    input_hw: tuple[int, int] | None
    """The network's input in pixels; None where it has no part."""
    frame_hw: tuple[int, int] | None
    """The frame in pixels; None where it has no part."""
    mode: str
    """launch: the engine's own call; graph: the replay of a CUDA graph of it; 2 streams: two calls
    at the same time, as `run` has them for files."""

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
    """What lies between the start and the end of the time, and whose clock it is."""
    n: int
    p50_ms: float | None
    """None: too few calls (`LEAST_SAMPLES`)."""
    p90_ms: float | None
    p99_ms: float | None
    min_ms: float
    max_ms: float
    mean_ms: float
    spread: float | None
    """(p90 − p10) / p50; None: as p90."""
    drift: float | None
    """Between the medians of the earlier and the later half of the samples, as a share of p50;
    None: one half has too few for a median."""
    images_per_second: float
    """One call after the other; where calls can be queued, without waiting for each; of several at
    the same time all together."""
    verification: Figures | None
    """How far the engine that was timed is from its network; None where there is none."""
    samples_ms: tuple[float, ...]
    """In the order of time."""

    @classmethod
    def of(
        cls, subject: Subject, region: str, timed: Timed, verification: Figures | None = None
    ) -> Row:
        samples = tuple(round(value, 6) for value in timed.samples_ms)
        values = np.array(samples)
        p50, p90, p99 = (percentile(values, share) for share in LEAST_SAMPLES)
        spread = drift = None
        if p90 is not None and p50:
            spread = (p90 - float(np.percentile(values, 10))) / p50
        if values.size >= 2 * LEAST_SAMPLES[50] and p50:
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
    """A percentile of samples; None if they are too few for it."""
    if values.size < LEAST_SAMPLES[share]:
        return None
    return float(np.percentile(values, share))


@dataclass
class BenchResult:
    """Everything one benchmark found out."""

    command: str
    machine: dict[str, Any]
    """`stream_cam.bench.machine.examined`."""
    network: dict[str, Any]
    """model, weights, weights_sha256, n_classes."""
    source: str
    """Where the frames came from."""
    rows: list[Row] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    """`what` was not measured, and `why`; `kind` "not here" if there is no such thing here."""
    files: list[dict[str, Any]] = field(default_factory=list)
    """Throughput of whole files (`stream_cam.bench.throughput`)."""
    method: dict[str, Any] = field(default_factory=dict)
    """How it was measured: calls, warm-up, turns, threads."""
    seconds: float = 0.0

    def leave_out(self, what: str, why: str, *, not_here: bool = False) -> None:
        kind = {"kind": NOT_HERE} if not_here else {}
        self.left_out.append({"what": what, "why": why, **kind})

    def cut_short(self, why: str) -> None:
        """Says that not everything was measured which could have been."""
        self.leave_out("what was being done, and all after it", why)

    def to_json(self) -> str:
        said = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json_text(said, indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Writes JSON, whole or not at all.

        Raises:
            BenchError: it cannot be written.
        """
        write_text(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> BenchResult:
        """What `write` wrote.

        Raises:
            BenchError: it cannot be read, or is no such file.
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
        if said.get("version") not in (VERSION, *_READ_TOO):
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
    """Writes a file whole or not at all.

    Raises:
        BenchError: it cannot be written.
    """
    try:
        write_atomic(path, printable(text).encode())
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}") from error


def size_text(size_hw: Sequence[int] | None) -> str:
    """As 384×224, width × height as everywhere on the command line; empty for None."""
    return "" if size_hw is None else "×".join(str(side) for side in reversed(size_hw))


def _row(said: Mapping[str, Any]) -> Row:
    """The figures are those of the samples, whatever else the file says of them."""
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
        Timed(samples_ms, _number(said["images_per_second"]) / subject["batch"]),
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

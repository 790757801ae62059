"""A benchmark's figures, made up, and engines that are wrong in one way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stream_cam.bench.result import BenchResult, Row, Subject
from stream_cam.bench.timing import Measurement
from stream_cam.engine.base import Engine, EngineInfo, Session
from stream_cam.engine.manifest import Figures

NETWORK = Subject("engine", "network", "eager", "cpu", "fp32", 1, (64, 64), None, "launch")
DECODE = Subject("stage", "decode", "", "cpu", "", 1, None, (64, 96), "launch")
PEER = Subject("peer", "torch-cam", "", "cpu", "fp32", 1, None, (64, 96), "launch")
FIGURES = Figures(1e-6, 2e-6, 1.0, 1e-5, 1.0)


def row(subject: Subject = NETWORK, *samples_ms: float) -> Row:
    """A row with these samples; default: 20 of about 10 ms."""
    samples = samples_ms or (10.0, 10.1, 10.0, 9.9) * 5
    timed = Measurement(samples, 1e3 * len(samples) / sum(samples))
    return Row.of(subject, "one call; host clock", timed, FIGURES)


def result(*rows: Row, **changes: Any) -> BenchResult:
    machine = {
        "time_utc": "2026-11-22T00:00:00+00:00",
        "cpu": "toy cpu",
        "cpu_cores": 2,
        "cpu_mhz": None,
        "cpu_governor": None,
        "load": 0.1,
        "torch_threads": 2,
        "system": "toy",
        "gpus": [],
        "cuda": None,
        "versions": {"torch": "2.0"},
    }
    network = {"model": "toy", "weights": "w", "weights_sha256": "0123", "n_classes": 7}
    made = BenchResult("stream-cam bench", machine, network, "drawn scenes, 96x64", list(rows))
    return replace(made, **changes)


class CorruptingEngine:
    """An engine whose outputs are changed in place after every call."""

    def __init__(self, engine: Engine, corrupt: Any) -> None:
        self._engine, self._spoil = engine, corrupt

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    def session(self) -> Session:
        session = self._engine.session()

        def run(batch: Tensor, logits: Tensor, features: Tensor) -> None:
            # On the CPU they may be arrays.
            batch, logits, features = map(torch.as_tensor, (batch, logits, features))
            before = logits.clone(), features.clone()
            session(batch, logits, features)
            self._spoil(before, logits, features)

        return run


def scale_features(before: tuple[Tensor, Tensor], logits: Tensor, features: Tensor) -> None:
    """Maps that are wrong by 1 %."""
    features.mul_(1.01)


def swap_images(before: tuple[Tensor, Tensor], logits: Tensor, features: Tensor) -> None:
    """The last image's results in the first one's place."""
    logits[0], features[0] = logits[-1].clone(), features[-1].clone()


def skip_last_image(before: tuple[Tensor, Tensor], logits: Tensor, features: Tensor) -> None:
    """The last image's old results stay in place."""
    logits[-1], features[-1] = before[0][-1], before[1][-1]


def keep_old_outputs(before: tuple[Tensor, Tensor], logits: Tensor, features: Tensor) -> None:
    """Nothing is written."""
    logits.copy_(before[0])
    features.copy_(before[1])

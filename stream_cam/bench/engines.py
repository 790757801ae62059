"""Every engine that this machine can run: opened and verified, before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from stream_cam.bench.graph_capture import capture_graph
from stream_cam.bench.plan import PlannedRow
from stream_cam.bench.timing import CudaTimer, HostTimer, TimedCall, Timer
from stream_cam.config import Device, EngineName, Precision
from stream_cam.engine import Batch, Engine, EngineInfo, EngineOptions, Session, load_engine
from stream_cam.engine.backends import BACKENDS
from stream_cam.engine.manifest import Figures
from stream_cam.engine.verify import N_DRAWN, N_RANDOM, Comparison, verify
from stream_cam.errors import EngineError, UsageError, unknown_name, why_not_captured
from stream_cam.model.camnet import CamNet

Mode = Literal["launch", "graph"]
"""A plain call, or the replay of a CUDA graph."""
Capture = Callable[[Callable[[], None], str], Callable[[], None]]
"""Captures a call on a device; returns its replay."""

ENGINES: tuple[EngineName, ...] = tuple(
    # The engine without a build comes first: there are figures even if the time runs out.
    sorted((backend.name for backend in BACKENDS), key=lambda name: name != "eager")
)
PRECISIONS: tuple[Precision, ...] = tuple(
    # The usual precision on GPUs comes first, for the same reason.
    sorted((name for name in get_args(Precision) if name != "auto"), key=lambda n: n != "fp16")
)


@dataclass(frozen=True)
class EngineVariant:
    """One engine in one precision."""

    engine: EngineName
    precision: Precision

    def __str__(self) -> str:
        return f"{self.engine}:{self.precision}"


def parse_variants(names: Sequence[str]) -> list[EngineVariant]:
    """The variants that `--engines` names; without names all that could exist.

    Raises:
        UsageError: an unknown engine or precision.
    """
    specs = []
    for name in names or ENGINES:
        engine, _, precision = name.partition(":")
        if engine not in ENGINES:
            raise unknown_name("engine", engine, ENGINES)
        if precision and precision not in PRECISIONS:
            raise unknown_name("precision", precision, PRECISIONS)
        # `openvino` alone: all precisions; those that fail are left out.
        specs += [EngineVariant(engine, one) for one in PRECISIONS if precision in ("", one)]
    return list(dict.fromkeys(specs))


def open_engine(
    net: CamNet,
    fingerprint: str,
    spec: EngineVariant,
    input_hw: tuple[int, int],
    batch: int = 1,
    device: Device = "auto",
    *,
    parallel: int = 1,
) -> Engine:
    """Opens this engine, never another in its place.

    Args:
        parallel: images that it works on at once, in one call each.

    Raises:
        EngineError: the engine does not work on this machine, or not with this batch.
    """
    try:
        return load_engine(
            *(net, fingerprint, input_hw),
            EngineOptions(
                spec.engine, device, spec.precision, parallel, Batch(batch, batch, batch)
            ),
        )
    except UsageError as error:  # an engine that takes one image at a time
        raise EngineError(str(error)) from error


class BoundSession:
    """An engine's session on fixed buffers, so that the timed call is the verified one.

    Args:
        engine: for a batch of N images.
        capture: makes a replay of the call; None: the call itself is timed.
    """

    def __init__(self, engine: Engine, capture: Capture | None = None) -> None:
        info = engine.info
        self.info = info
        self.batch = torch.zeros(info.input_shape, device=info.device)
        self.logits = torch.zeros(info.logits_shape, device=info.device)
        self.features = torch.zeros(info.features_shape, device=info.device)
        self._session = engine.session()
        self.call: Callable[[], None] = self._launch
        if capture is not None:
            try:
                self.call = capture(self._launch, info.device)
            except Exception as error:  # an engine or a kernel compiler may raise anything
                reason = why_not_captured(error)
                raise EngineError(f"it cannot be captured in a graph ({reason})") from error

    @property
    def timer(self) -> Timer:
        return HostTimer() if self.info.device == "cpu" else CudaTimer()

    def verify(self, net: CamNet, comparison: Comparison | None = None) -> Figures:
        """Compares with the network, each image of the batch in its place.

        Args:
            comparison: the network's outputs at this input shape; default: computed here.

        Raises:
            EngineError: they differ by more than the precision explains, with the figures.
        """
        # Verification may run on another stream, which does not wait for this one.
        self.wait()
        figures = verify(_SingleImageEngine(self), net, comparison=comparison)
        self.wait()
        return figures

    def fill(self, images: Tensor) -> None:
        """Sets the input.

        Args:
            images: (M, 3, H, W) normalised, on the CPU; repeated or cut to the batch.
        """
        n = self.info.input_shape[0]
        self.batch.copy_(images.repeat(-(-n // len(images)), 1, 1, 1)[:n])

    def wait(self) -> None:
        """Waits until the device is idle."""
        if self.info.device != "cpu":
            torch.cuda.synchronize(self.info.device)

    def _launch(self) -> None:
        self._session(self.batch, self.logits, self.features)


class _SingleImageEngine:
    """A batch's engine as one for a single image, which verification needs. The image is in other
    places at every call, between random ones, and the outputs are NaN before it. So an engine that
    mixes images up, leaves one out or keeps an older result cannot pass.
    """

    def __init__(self, bound: BoundSession) -> None:
        self._bound = bound
        info = bound.info
        self._n = info.input_shape[0]
        self._step = min(self._n, N_DRAWN + N_RANDOM)
        self._calls = 0
        self._random = torch.Generator().manual_seed(1)
        self.info: EngineInfo = replace(
            info,
            input_shape=(1, *info.input_shape[1:]),
            logits_shape=(1, *info.logits_shape[1:]),
            features_shape=(1, *info.features_shape[1:]),
            batch=Batch(),
        )

    def session(self) -> Session:
        return self._run

    def _run(self, batch: Tensor, logits: Tensor, features: Tensor) -> None:
        bound = self._bound
        images = torch.randn(bound.info.input_shape, generator=self._random)
        places = list(range(self._calls % self._step, self._n, self._step))
        images[places] = batch.cpu()
        bound.batch.copy_(images)
        for output in (bound.logits, bound.features):
            output.fill_(torch.nan)
        bound.call()
        worst = _farthest(bound.logits[places])
        logits.copy_(bound.logits[[places[worst]]])
        features.copy_(bound.features[[places[worst]]])
        self._calls += 1


def _farthest(logits: Tensor) -> int:
    """The row of (M, n_classes) that is farthest from the first; a row with NaN counts as
    farthest."""
    distance = (logits - logits[0]).abs().amax(1)
    return int(distance.nan_to_num(torch.inf).argmax())


def call_modes(device: str) -> Iterable[tuple[Mode, Capture | None]]:
    """The modes in which an engine on a device can be called."""
    yield "launch", None
    if device != "cpu":
        yield "graph", capture_graph


Check = Callable[[BoundSession], Figures]


def plan_call(
    engine: Engine, mode: Mode, capture: Capture | None, check: Check, images: Tensor
) -> PlannedRow:
    """An engine's verified call, or one call for each of its streams at the same time.

    Args:
        check: verifies each call.
        images: as `Bound.fill` takes them.

    Raises:
        EngineError, RuntimeError: its outputs are wrong, or it cannot be called.
    """
    n_streams = engine.info.parallel
    bounds = [BoundSession(engine, capture) for _ in range(n_streams)]
    for bound in bounds:
        figures = check(bound)
        bound.fill(images)
    first, *others = bounds
    timed_call = TimedCall(
        first.call, first.timer, concurrent=tuple(other.call for other in others)
    )
    what = "one replay" if mode == "graph" else "one call"
    if others:
        what = f"one of {n_streams} calls at once, an image each"
    return PlannedRow(timed_call, f"{what}: batch → logits, features", figures)

"""Sources, sinks and networks under a test's control, on the real pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from types import TracebackType

import numpy as np
import torch
from torch import nn

from stream_cam.draw.hud import HudStatus
from stream_cam.draw.renderer import Renderer
from stream_cam.errors import SinkError
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, Explanation, Frame
from stream_cam.pipeline.pipeline import Pipeline
from stream_cam.pipeline.report import Report
from stream_cam.settings import SettingsSnapshot
from stream_cam.sinks.base import Picture, Sink, StreamInfo
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.targets import Target

DEADLINE_SECONDS = 20.0
"""Nothing here takes a second on a quiet machine; the deadline finds hangs."""

STREAM = StreamInfo(fps=Fraction(25), still=False, live=False)


class TinyExplainer(Explainer):
    """A small untrained network; `before` runs ahead of each frame's explanation."""

    before: Callable[[Frame], None] | None = None

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.explained: list[int] = []
        self._lock_explained = threading.Lock()

    def explain(
        self,
        frame: BgrImage | Frame,
        target: Target | Sequence[Target] | None = None,
        *,
        n_maps: int | None = None,
        keep_features: bool = False,
        against: Target | Sequence[Target] | None = None,
        against_weight: float = 1.0,
    ) -> Explanation:
        assert isinstance(frame, Frame)
        if self.before is not None:
            self.before(frame)
        explanation = super().explain(
            frame,
            target,
            n_maps=n_maps,
            keep_features=keep_features,
            against=against,
            against_weight=against_weight,
        )
        with self._lock_explained:
            self.explained.append(frame.index)
        return explanation


WITHOUT_END = 10**12
"""Frames that come as fast as they can be drawn are a million in a few seconds."""


class Frames(Source):
    """A source that yields numbered frames, and does `before` ahead of each of them."""

    def __init__(
        self,
        count: int,
        *,
        live: bool = False,
        size_hw: tuple[int, int] = (48, 64),
        before: Callable[[int], None] | None = None,
        sizes: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._count, self._before, self._sizes = count, before, sizes
        self.yielded = 0
        self._info = SourceInfo("frames", size_hw, Fraction(25), count, live)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            if self._before is not None:
                self._before(index)
            size_hw = self._sizes[index] if self._sizes else self.info.size_hw
            image = np.full((*size_hw, 3), index % 256, np.uint8)
            self.yielded += 1
            yield Frame(image, index, index, Fraction(1, 25), time.monotonic_ns())


class Kept(Sink):
    """A sink that keeps its pictures, and runs the test's code at each."""

    name = "kept"

    def __init__(
        self,
        *,
        on_enter: Callable[[], None] | None = None,
        on_write: Callable[[Picture], bool | None] | None = None,
        on_exit: Callable[[], None] | None = None,
        on_poll: Callable[[], bool] | None = None,
        main_thread: bool = False,
    ) -> None:
        self._on_enter, self._on_write, self._on_exit = on_enter, on_write, on_exit
        self._on_poll = on_poll
        self.main_thread = main_thread
        self.pictures: list[Picture] = []
        self.threads: set[int] = set()
        self.exits: list[BaseException | None] = []
        self.ended = False
        """The source has, by itself."""

    def source_ended(self) -> None:
        self.ended = True

    def __enter__(self) -> Kept:
        if self._on_enter is not None:
            self._on_enter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.exits.append(exc)
        if self._on_exit is not None:
            self._on_exit()

    def write(self, picture: Picture) -> bool:
        self.threads.add(threading.get_ident())
        answer = self._on_write(picture) if self._on_write is not None else None
        self.pictures.append(picture)
        return answer is not False

    def poll(self) -> bool:
        return self._on_poll is None or self._on_poll()

    @property
    def indices(self) -> list[int]:
        return [picture.frame.index for picture in self.pictures]


class Watched(Renderer):
    """A renderer that remembers its pictures; `before` runs ahead of each frame."""

    before: Callable[[Frame], None] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[int] = []

    def render(
        self,
        frame: BgrImage | Frame,
        explanation: Explanation | None,
        settings: SettingsSnapshot,
        status: HudStatus | None = None,
    ) -> BgrImage:
        assert isinstance(frame, Frame)
        if self.before is not None:
            self.before(frame)
        picture = super().render(frame, explanation, settings, status)
        self.drawn.append(frame.index)
        return picture


class Failing(Watched):
    """A renderer that breaks at a frame and stays broken."""

    fail_at = 3

    def render(
        self,
        frame: BgrImage | Frame,
        explanation: Explanation | None,
        settings: SettingsSnapshot,
        status: HudStatus | None = None,
    ) -> BgrImage:
        assert isinstance(frame, Frame)
        if frame.index >= self.fail_at:
            raise ValueError("the renderer broke")
        return super().render(frame, explanation, settings, status)


def tiny_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()


def make_explainer(network: nn.Module, parallel: int = 1) -> TinyExplainer:
    made = TinyExplainer.from_module(network, engine="eager", input_size=32, parallel=parallel)
    assert isinstance(made, TinyExplainer)
    return made


def make_pipeline(
    source: Source, sinks: Sequence[Sink], explainer: Explainer, **options: object
) -> Pipeline:
    return Pipeline(source, sinks, explainer, **options)  # type: ignore[arg-type]


def run(pipeline: Pipeline) -> Report:
    """`pipeline.run()` in a thread of its own, so that a hang fails the test."""
    outcome: list[Report | BaseException] = []

    def work() -> None:
        try:
            outcome.append(pipeline.run())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive(), "the pipeline hangs"
    left = [t.name for t in threading.enumerate() if t.name.startswith(("sink", "render", "expl"))]
    assert not left
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


def boom() -> None:
    raise SinkError("the disk is full")


def wait(event: threading.Event) -> None:
    assert event.wait(DEADLINE_SECONDS)


def assert_adds_up(report: Report, source: Frames, explainer: TinyExplainer) -> None:
    """Every frame is accounted for, counted here independently of the pipeline where it can be."""
    assert report.captured <= source.yielded <= report.captured + 1
    assert report.explained == len(explainer.explained) == len(set(explainer.explained))
    assert report.captured == report.explained + report.superseded + report.discarded
    assert report.captured == report.rendered + report.skipped
    assert report.superseded >= 0
    assert report.discarded >= 0
    assert report.skipped >= 0
    for sink in report.sinks:
        assert report.rendered == sink.offered == sink.written + sink.unwanted + sink.dropped
        assert sink.written >= 0
        assert sink.dropped >= 0

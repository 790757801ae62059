"""The way of a frame, whole: source → capture → explainer → renderer → sinks.

Every frame counts (files); frames keep their order because the queue holds them with a promise of
their explanation:

    capture thread ──▶ queue of (frame, promised explanation) ──▶ render thread ──▶ queue ──▶ sink
         └──▶ explain pool ──▶ keeps the promise ──────┘                             (one each)

The newest frame wins (live):

    capture thread ──▶ slot ──▶ explain thread ──▶ newest explanation ┐
         └───────────▶ slot ──────────────────────────────────▶ render thread ──▶ slot ──▶ sink

This module owns every thread and the shutdown. The first failure of any stage is kept and raised
by `run`. Whatever ends a run, what was captured is finished where that is still possible and every
sink is closed, so that what was recorded can be played.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from stream_cam.cam.steady import SteadyMaps
from stream_cam.capture import EndOfStream, Handoff
from stream_cam.explain import Explainer, Target
from stream_cam.frame import BgrImage, Explanation, Frame
from stream_cam.render import HudStatus, Renderer, away_picture
from stream_cam.report import Report, SinkCount, StageClock, versions
from stream_cam.sinks.base import Picture, Sink
from stream_cam.sources.base import Heals, Source
from stream_cam.uri import hide

logger = logging.getLogger(__name__)

MAX_AGE_SECONDS = 0.5
"""Live: an older explanation is not drawn on a newer frame."""

_TICK_SECONDS = 0.1
_STOP_SECONDS = 2.0
"""After a stop, how long a source may take to return before it is left behind."""
_AWAY_SECONDS = 0.25
"""How often the picture of a source that is away changes."""
_RATE_SECONDS = 0.5
"""How often the rate on the HUD changes."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    rendered: int
    fps: float
    last: Explanation | None


class Pipeline:
    """One run of one source through the explainer into sinks.

    Args:
        source: open; read by the capture thread, closed by the caller, unless `source_hangs`.
        sinks: not yet open; each is opened, fed and closed by a thread of its own, windows by the
            thread that calls `run`.
        explainer: shared.
        renderer: used by the render thread alone.
        targets: classes whose maps are shown; none: the best class of each frame.
        live: newest frame wins, or every frame counts; default: as the source is.
        limit: stop after this many captured frames.
        queue_frames: how many frames may wait between two stages when every frame counts.
        steady: filters what is drawn, in the frames' order; used by the render thread alone.
    """

    def __init__(
        self,
        source: Source,
        sinks: Sequence[Sink],
        explainer: Explainer,
        renderer: Renderer,
        *,
        targets: Sequence[Target] = (),
        live: bool | None = None,
        limit: int | None = None,
        queue_frames: int = 4,
        steady: SteadyMaps | None = None,
    ) -> None:
        self._source = source
        self._healing = source if isinstance(source, Heals) else None
        self._explainer = explainer
        self._renderer = renderer
        self._steady = steady or SteadyMaps()
        self._targets = list(targets) or None
        self._live = source.info.live if live is None else live
        self._limit = limit
        self._to_explain: Handoff[Frame] = Handoff(1, drop_oldest=True)
        self._to_render: Handoff[tuple[Frame, Future[Explanation] | None]] = Handoff(
            1 if self._live else queue_frames + explainer.parallel, drop_oldest=self._live
        )
        self._outlets = [_Outlet(sink, self._live, queue_frames) for sink in sinks]
        self._pool = ThreadPoolExecutor(explainer.parallel, thread_name_prefix="explain")
        self._newest: Explanation | None = None
        self._fps = 0.0
        self._stopping = threading.Event()
        self._stopped_at: float | None = None
        self._reading = False
        self.source_hangs = False
        """After `run`: a read never returned. Closing the source under it could crash or hang."""
        self._failure: BaseException | None = None
        self._failure_lock = threading.Lock()
        self._read_clock = StageClock()
        self._explain_clock = StageClock()
        self._render_clock = StageClock()
        self._age_clock = StageClock()
        self.report = Report(
            source=source.info.name,
            live=self._live,
            model=explainer.model_name,
            weights=explainer.weights.name,
            weights_sha256=explainer.weights.sha256,
            sinks=[outlet.count for outlet in self._outlets],
            versions=versions(),
        )

    def run(self, on_tick: Callable[[Progress], None] | None = None) -> Report:
        """Runs to the source's end, the limit, a stop or a failure; returns what was done.

        Args:
            on_tick: called about ten times a second on this thread.

        Raises:
            BaseException: the first failure of any stage, after every sink was closed.
        """
        started_ns = time.monotonic_ns()
        capture = _start("capture", self._capture)
        stages = [_start("render", self._render)]
        if self._live:
            stages.append(_start("explain", self._explain_newest))
        windows = [outlet for outlet in self._outlets if outlet.sink.main_thread]
        stages += [
            _start(f"sink {outlet.sink.name}", self._feed, outlet)
            for outlet in self._outlets
            if outlet not in windows
        ]
        try:
            with ExitStack() as closing:
                for window in windows:
                    closing.callback(window.waiting.abort)
                    closing.enter_context(window.sink)
                try:
                    self._attend(capture, stages, windows, on_tick)
                except BaseException as error:
                    # Before the windows close, which may fail as well: this is the cause.
                    self._fail(error)
                    raise
        except BaseException as error:
            self._fail(error)
        finally:
            for thread in stages:
                thread.join()
            # The caller closes the source next, and may not do so under a read.
            capture.join(self._patience())
            self.source_hangs = capture.is_alive()
            self._pool.shutdown(cancel_futures=True)
            self._finish_report(time.monotonic_ns() - started_ns)
        if self._failure is not None:
            raise self._failure
        return self.report

    def stop(self, reason: str = "stopped") -> None:
        """Asks for the end; what was captured is finished. Any thread, any time, at once."""
        if not self._stopping.is_set():
            self.report.ended_by = reason
            self._stopped_at = time.monotonic()
            self._stopping.set()
            if self._healing is not None:
                self._healing.stop()

    # Stages, each the whole life of a thread.

    def _capture(self) -> None:
        try:
            frames = iter(self._source)
            while not self._stopping.is_set():
                frame = self._read(frames)
                if frame is None or self._stopping.is_set() or not self._hand_on(frame):
                    break
                if self._limit is not None and self.report.captured >= self._limit:
                    self.stop("limit")
        except BaseException as error:
            # No abort: what came before the failure is still explained and written.
            self._keep(error)
        finally:
            self._to_explain.close()
            self._to_render.close()

    def _read(self, frames: Iterator[Frame]) -> Frame | None:
        asked_ns = time.monotonic_ns()
        self._reading = True
        try:
            frame = next(frames, None)
        finally:
            self._reading = False
        if frame is not None:
            self._read_clock.add(time.monotonic_ns() - asked_ns)
        return frame

    def _hand_on(self, frame: Frame) -> bool:
        self.report.captured += 1
        if self._live:
            return self._to_explain.put(frame) and self._to_render.put((frame, None))
        return self._to_render.put((frame, self._pool.submit(self._explain, frame)))

    def _explain(self, frame: Frame) -> Explanation:
        started_ns = time.monotonic_ns()
        explanation = self._explainer.explain(
            frame,
            self._targets,
            n_maps=self._renderer.n_maps,
            keep_features=self._steady.needs_features,
        )
        self._explain_clock.add(time.monotonic_ns() - started_ns)
        self._age_clock.add(explanation.explained_ns - frame.captured_ns)
        return explanation

    def _explain_newest(self) -> None:
        try:
            while True:
                self._newest = self._explain(self._to_explain.take())
        except EndOfStream:
            pass
        except BaseException as error:
            self._fail(error)

    def _render(self) -> None:
        rate = _Rate()
        picture: Picture | None = None
        patience = _AWAY_SECONDS if self._live and self._healing is not None else None
        try:
            while True:
                try:
                    frame, promise = self._to_render.take(patience)
                except TimeoutError:
                    self._show_away(picture)
                    continue
                explanation = self._fresh(frame) if promise is None else promise.result()
                started_ns = time.monotonic_ns()
                if explanation is not None:
                    explanation = self._steady.update(explanation)
                image = self._draw(frame, explanation)
                self._render_clock.add(time.monotonic_ns() - started_ns)
                self.report.rendered += 1
                self._fps = rate.count()
                picture = Picture(image, frame, explanation)
                for outlet in self._outlets:
                    outlet.waiting.put(picture)
        except EndOfStream:
            pass
        except BaseException as error:
            self._fail(error)
        finally:
            for outlet in self._outlets:
                outlet.waiting.close()

    def _show_away(self, last: Picture | None) -> None:
        """While a live source gives nothing: its last picture, marked, to those who watch."""
        away = self._healing.status() if self._healing is not None else None
        watching = [outlet for outlet in self._outlets if outlet.takes_repeats]
        if away is None or last is None or not watching:
            return
        what = "RECONNECTING" if away.reconnecting else "NO PICTURE"
        text = f"{what}, last frame {away.last_frame_age_seconds:.1f} s ago"
        picture = Picture(away_picture(last.image_bgr, text), last.frame, None, repeated=True)
        for outlet in watching:
            outlet.waiting.put(picture)

    def _fresh(self, frame: Frame) -> Explanation | None:
        """Live: the newest explanation, unless it is too old to be shown as if it were new."""
        explanation = self._newest
        if explanation is None:
            return None
        if frame.captured_ns - explanation.captured_ns > MAX_AGE_SECONDS * 1e9:
            self.report.stale += 1
            return None
        return explanation

    def _draw(self, frame: Frame, explanation: Explanation | None) -> BgrImage:
        if explanation is None:
            return self._renderer.render(frame, None)
        info = self._explainer.engine_info
        status = HudStatus(
            engine=f"{info.name} {info.precision}" if info else "",
            fps=self._fps or None,
            latency_ms=(explanation.explained_ns - explanation.captured_ns) / 1e6
            if self._live
            else None,
        )
        if not self._live:
            self._newest = explanation
        return self._renderer.render(frame, explanation, status)

    def _feed(self, outlet: _Outlet) -> None:
        try:
            with outlet.sink:
                try:
                    if not outlet.write_all():
                        self.stop("a sink was closed")
                except BaseException as error:
                    # Before the sink closes, which may fail as well: this is the cause.
                    self._fail(error)
                    raise
        except BaseException as error:
            self._fail(error)
        finally:
            # The render thread does not wait for a sink that takes no more.
            outlet.waiting.abort()

    # The calling thread.

    def _attend(
        self,
        capture: threading.Thread,
        stages: list[threading.Thread],
        windows: list[_Outlet],
        on_tick: Callable[[Progress], None] | None,
    ) -> None:
        """Feeds windows and reports progress until all is done."""
        open_windows = list(windows)
        left = False
        while open_windows or any(thread.is_alive() for thread in stages):
            open_windows = [window for window in open_windows if self._feed_window(window)]
            if not open_windows:
                next((t for t in stages if t.is_alive()), capture).join(_TICK_SECONDS)
            if on_tick is not None:
                on_tick(Progress(self.report.rendered, self._fps, self._newest))
            if self._reading and not left and not self._patience():
                left = True
                logger.warning("the source does not return; it is left behind")
                self._to_explain.close()
                self._to_render.close()

    def _feed_window(self, window: _Outlet) -> bool:
        """Shows the next picture if there is one soon; False when there will be no more."""
        try:
            if window.write_next(_TICK_SECONDS):
                return True
            self.stop("the window was closed")
        except TimeoutError:
            return True
        except EndOfStream:
            pass
        # The render thread does not wait for a window that shows no more.
        window.waiting.abort()
        return False

    def _patience(self) -> float:
        """How many seconds a read that began before the run was stopped may still take."""
        if self._stopped_at is None:
            return _STOP_SECONDS
        return max(0.0, self._stopped_at + _STOP_SECONDS - time.monotonic())

    # Endings.

    def _keep(self, error: BaseException) -> None:
        with self._failure_lock:
            if self._failure is None:
                self._failure = error
                self.report.ended_by = hide(f"{type(error).__name__}: {error}")
            if self._stopped_at is None:
                self._stopped_at = time.monotonic()
        self._stopping.set()
        if self._healing is not None:
            self._healing.stop()

    def _fail(self, error: BaseException) -> None:
        """A stage after the source broke: nothing more can be finished before it."""
        self._keep(error)
        self._to_explain.abort()
        self._to_render.abort()

    def _finish_report(self, duration_ns: int) -> None:
        report = self.report
        report.seconds = duration_ns / 1e9
        report.explained = self._explain_clock.count
        report.superseded = self._to_explain.dropped
        report.discarded = report.captured - report.explained - report.superseded
        report.corrupt = getattr(self._source, "corrupt_frames", 0)
        report.connection = asdict(self._healing.health) if self._healing is not None else {}
        info = self._explainer.engine_info
        report.engine = asdict(info) if info else {}
        clocks = {
            "read": self._read_clock,
            "explain": self._explain_clock,
            "render": self._render_clock,
            "capture_to_explanation": self._age_clock,
        }
        for number, outlet in enumerate(self._outlets):
            outlet.count.dropped = outlet.waiting.dropped
            clocks[f"write {number}"] = outlet.clock
            clocks[f"capture_to_sink {number}"] = outlet.age_clock
        found = {name: clock.percentiles() for name, clock in clocks.items()}
        report.latency = {name: value for name, value in found.items() if value is not None}


class _Outlet:
    """A sink and the pictures that wait for it."""

    def __init__(self, sink: Sink, live: bool, queue_frames: int) -> None:
        self.sink = sink
        self.takes_repeats = bool(getattr(sink, "takes_repeats", False))
        self.waiting: Handoff[Picture] = Handoff(1 if live else queue_frames, drop_oldest=live)
        self.clock = StageClock()
        self.age_clock = StageClock()
        self.count = SinkCount(sink.name)

    def write_next(self, timeout: float | None) -> bool:
        """Waits for a picture and writes it; False if the sink wants the run to end."""
        picture = self.waiting.take(timeout)
        started_ns = time.monotonic_ns()
        go_on = self.sink.write(picture)
        if picture.repeated:
            self.count.repeated += 1
            return go_on
        done_ns = time.monotonic_ns()
        self.clock.add(done_ns - started_ns)
        self.age_clock.add(done_ns - picture.frame.captured_ns)
        self.count.written += 1
        return go_on

    def write_all(self) -> bool:
        """Writes pictures until no more come; False if the sink wants the run to end."""
        try:
            while self.write_next(None):
                pass
        except EndOfStream:
            return True
        return False


class _Rate:
    """Events a second, over windows of half a second."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._events = 0
        self._per_second = 0.0

    def count(self) -> float:
        self._events += 1
        elapsed = time.monotonic() - self._since
        if elapsed >= _RATE_SECONDS:
            self._per_second = self._events / elapsed
            self._since += elapsed
            self._events = 0
        return self._per_second


def _start(name: str, work: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, args=args, daemon=True)
    thread.start()
    return thread

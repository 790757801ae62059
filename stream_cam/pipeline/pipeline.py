"""The way of a frame, whole: source → capture → explainer → renderer → sinks.

Every frame counts (files); frames keep their order because the queue holds them with a promise of
their explanation:

    capture thread ──▶ queue of (frame, promised explanation) ──▶ render thread ──▶ queue ──▶ sink
         └──▶ explain pool ──▶ keeps the promise ──────┘                             (one each)

The newest frame wins (live):

    capture thread ──▶ slot ──▶ explain thread ──▶ explanations ┐
         └───────────▶ slot ────────────────────────────▶ render thread ──▶ slot ──▶ sink
                                                          (sync.py: which picture is due)

How a live picture meets its map is `--sync`: it waits for its own map, or for those before and
after it, or takes the newest one at once.

The settings are taken once, when a frame is captured, and travel with it (captured.py): it is
explained, filtered and drawn by the same snapshot.

This module owns every thread and the shutdown. Queues and slots are in queues.py, pictures in
presenter.py, a sink with its queue in sink_queue.py, counters in counters.py.

How a run ends:
- At the source's end or the limit, all captured frames are finished.
- After a stop they have two seconds more. Then waiting frames are discarded, and a source that does
  not return is left behind.
- A sink that fails is dropped, and the others go on. With `strict`, or after the last sink, its
  failure ends the run. Any other failure ends the run at once.

In every case all sinks are closed, so that recordings stay playable. `run` raises the failure that
ended the run, or else the first of the sinks' failures.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict

from stream_cam.cam.steady import SteadyMaps
from stream_cam.config import LookConfig
from stream_cam.draw.layouts import count_maps
from stream_cam.draw.renderer import Renderer
from stream_cam.errors import StreamCamError
from stream_cam.explain.frame_explainer import FrameExplainer
from stream_cam.frame import Explanation, Frame
from stream_cam.pipeline.captured import CapturedFrame
from stream_cam.pipeline.counters import Progress, RunCounters
from stream_cam.pipeline.presenter import Presenter
from stream_cam.pipeline.report import Report
from stream_cam.pipeline.sink_queue import SinkQueue
from stream_cam.pipeline.sync import LiveSync
from stream_cam.queues import EndOfStream, Handoff, OrderedGate, Ticket
from stream_cam.settings import Settings, SettingsSnapshot
from stream_cam.sinks.base import Sink
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.uri import hide

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.1
_STOP_SECONDS = 2.0
"""After a stop, how long a source may take to return, and waiting frames to be finished."""
_OWN_MAP_SECONDS = 0.02
"""`--sync newest`: how long a frame waits for its own explanation; less than from frame to frame at
30/s."""


class Pipeline:
    """One run of one source through the explainer into sinks.

    Args:
        source: open; read by the capture thread, closed by the caller, unless `source_hangs`.
        sinks: not yet open; each is opened, fed and closed by a thread of its own, windows by the
            thread that calls `run`.
        explainer: shared.
        settings: how frames are drawn, and which classes' maps are shown. They may be changed
            meanwhile; the next captured frame is drawn by them. Default: `LookConfig()`, and the
            best class of each frame.
        renderer: used by the render thread alone; default: `Renderer`.
        live: newest frame wins, or every frame counts; default: as the source is.
        limit: stop after this many captured frames.
        queue_frames: how many frames may wait between two stages when every frame counts.
        strict: a sink that fails ends the run, also if there are others.
    """

    def __init__(
        self,
        source: Source,
        sinks: Sequence[Sink],
        explainer: FrameExplainer,
        *,
        settings: Settings | None = None,
        renderer: Renderer | None = None,
        live: bool | None = None,
        limit: int | None = None,
        queue_frames: int = 4,
        strict: bool = False,
    ) -> None:
        self._source = source
        self._explainer = explainer
        self._steady = SteadyMaps()
        self.settings = settings or Settings(LookConfig(), explainer.labels)
        """Any thread may change them while it runs."""
        self._live = live = source.info.live if live is None else live
        self._limit = limit
        self._strict = strict
        self._to_explain: Handoff[CapturedFrame] = Handoff(1, drop_oldest=True)
        self._to_render: Handoff[CapturedFrame] = Handoff(
            1 if live else queue_frames + explainer.parallel, drop_oldest=live
        )
        self._sink_queues = [SinkQueue(sink, live, queue_frames) for sink in sinks]
        self._presenter = Presenter(
            explainer,
            renderer or Renderer(len(explainer.labels)),
            live,
            any(sink.labels_are_optional for sink in sinks),
        )
        self._pool = ThreadPoolExecutor(explainer.parallel, thread_name_prefix="explain")
        self._gate = OrderedGate()
        self._newest: Explanation | None = None
        self._repeat_due: float | None = None
        """When the last picture is due again, for the sinks that take repeats."""
        self._drawn_ns: int | None = None
        """Live: when the frame was captured that was drawn last."""
        self._sync = LiveSync()
        self._new_explanations: deque[tuple[CapturedFrame, Explanation]] = deque()
        self._explained = threading.Condition()
        self._explains = True
        """Live: more explanations may come."""
        self._stopping = threading.Event()
        self._stopped_at: float | None = None
        self._reading = False
        self._all_read = False
        """The source has ended by itself."""
        self.source_hangs = False
        """After `run`: a read never returned. Closing the source under it could crash or hang."""
        self._failure: BaseException | None = None
        self._sink_failure: BaseException | None = None
        self._failure_lock = threading.Lock()
        self._counters = RunCounters(
            source,
            explainer,
            self._presenter,
            self._sink_queues,
            self._to_explain,
            self._to_render,
            self._sync if live else None,
        )
        self.report = self._counters.report
        for sink in sinks:
            sink.attach_stats(self.stats)

    @property
    def info(self) -> SourceInfo:
        """Of the source."""
        return self._source.info

    @property
    def urls(self) -> list[str]:
        """The links of its pages, tokens included."""
        return [sink_queue.sink.url for sink_queue in self._sink_queues if sink_queue.sink.url]

    def run(self, on_tick: Callable[[Progress], None] | None = None) -> Report:
        """Runs to the source's end, the limit, a stop or a failure; returns the report.

        Args:
            on_tick: called about ten times a second on this thread.

        Raises:
            BaseException: the failure of a stage, or of a sink, after every sink was closed.
        """
        started_ns = time.monotonic_ns()
        capture = _start("capture", self._capture)
        stages = [_start("render", self._render)]
        if self._live:
            stages.append(_start("explain", self._explain_newest))
        windows = [sink_queue for sink_queue in self._sink_queues if sink_queue.sink.main_thread]
        stages += [
            _start(f"sink {sink_queue.sink.name}", self._run_sink, sink_queue)
            for sink_queue in self._sink_queues
            if sink_queue not in windows
        ]
        feeds = [self._feed(window, _TICK_SECONDS) for window in windows]
        try:
            self._wait_for_stages(capture, stages, feeds, on_tick)
        except BaseException as error:
            self._fail(error)
        finally:
            for window, feed in zip(windows, feeds, strict=True):
                feed.close()
                window.waiting.abort()  # a feed that had not begun did not
            for thread in stages:
                thread.join()
            # The caller closes the source next, and may not do so under a read.
            capture.join(self._seconds_left())
            self.source_hangs = capture.is_alive()
            self._pool.shutdown(cancel_futures=True)
            self._counters.close(time.monotonic_ns() - started_ns)
        failure = self._failure or self._sink_failure
        if failure is not None:
            raise failure
        return self.report

    def stats(self) -> dict[str, object]:
        """How far the run is, as plain values; any thread, any time."""
        progress = asdict(self._counters.progress(None))
        progress.pop("last")
        newest = self._newest
        best = [] if newest is None else [asdict(one) for one in newest.predictions]
        return {
            **progress,
            "predictions": best,
            "source": self.info.name,
            "live": self._live,
            "sync": self._sync_stats() if self._live else None,
        }

    def _sync_stats(self) -> dict[str, object]:
        sync = self._sync
        return {
            "asked": self.settings.now.look.sync,
            "mode": sync.mode,
            "delay_seconds": self._presenter.delay_seconds,
            "too_slow": sync.too_slow,
        }

    def stop(self, reason: str = "stopped") -> None:
        """Asks for the end and returns at once; any thread, any time. Captured frames have two
        seconds to be finished.
        """
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
            if self._failure is None:
                self.report.ended_by = reason
            self._stop_reading()

    # Stages, each the whole life of a thread.

    def _capture(self) -> None:
        try:
            frames = iter(self._source)
            while not self._stopping.is_set():
                if not self._live and self._wait_while_paused():
                    break
                frame = self._read(frames)
                if frame is not None and self._live and self.settings.now.paused:
                    self.report.paused += 1
                    continue
                if frame is None or self._stopping.is_set() or not self._submit(frame):
                    self._all_read = frame is None and not self._stopping.is_set()
                    break
                if self._limit is not None and self.report.captured >= self._limit:
                    self.report.ended_by = "limit"
                    break
        except BaseException as error:
            # No abort: frames from before the failure are still explained and written.
            self._record_failure(error)
        finally:
            self._to_explain.close()
            self._to_render.close()

    def _wait_while_paused(self) -> bool:
        """A file's next frame is read when the pause is over; True if the run is over before."""
        while self.settings.now.paused:
            if self._stopping.wait(_TICK_SECONDS):
                return True
        return False

    def _read(self, frames: Iterator[Frame]) -> Frame | None:
        asked_ns = time.monotonic_ns()
        self._reading = True
        try:
            frame = next(frames, None)
        finally:
            self._reading = False
        if frame is not None:
            self._counters.read.add(time.monotonic_ns() - asked_ns)
        return frame

    def _submit(self, frame: Frame) -> bool:
        self.report.captured += 1
        settings = self.settings.now
        if self._live:
            # Both, so that both count it, whatever they say.
            captured = CapturedFrame(frame, settings)
            wanted = [self._to_explain.put(captured), self._to_render.put(captured)]
            return all(wanted)
        self._counters.submitted += 1
        promise = self._pool.submit(self._explain, frame, settings, self._gate.join())
        return self._to_render.put(CapturedFrame(frame, settings, promise))

    def _explain(
        self, frame: Frame, settings: SettingsSnapshot, ticket: Ticket | None = None
    ) -> Explanation:
        started_ns = time.monotonic_ns()
        try:
            explanation = self._explain_or_draw(frame, settings, ticket)
        finally:
            if ticket is not None:
                ticket.pass_on()
        self._count_explained(frame, explanation, started_ns)
        return explanation

    def _explain_or_draw(
        self, frame: Frame, settings: SettingsSnapshot, ticket: Ticket | None
    ) -> Explanation:
        if self.info.still:  # pictures of many sizes: none is worth a graph
            return self._explain_only(frame, settings)
        return self._explainer.explain_drawn(frame, settings, ticket=ticket)

    def _explain_only(self, frame: Frame, settings: SettingsSnapshot) -> Explanation:
        n_maps = count_maps(settings, len(self._explainer.labels))
        return self._explainer.explain(
            frame,
            settings.targets or None,
            n_maps=n_maps,
            against=settings.against,
            against_weight=settings.look.against_weight,
        )

    def _explain_newest(self) -> None:
        try:
            while True:
                captured, newest = self._explain_waiting()
                with self._explained:
                    self._newest = newest
                    self._new_explanations.append((captured, newest))
                    self._explained.notify_all()
                self._to_render.wake()
        except EndOfStream:
            pass
        except BaseException as error:
            self._fail(error)
        finally:
            with self._explained:
                self._explains = False
                self._explained.notify_all()
            self._to_render.wake()

    def _explain_waiting(self) -> tuple[CapturedFrame, Explanation]:
        """Explains the frame that is the newest when the network is free, not when it asks.

        Raises:
            EndOfStream: no more frames come.
        """
        self._to_explain.wait()
        if self.info.still:
            captured = self._to_explain.take()
            return captured, self._explain(captured.frame, captured.settings)
        started_ns, taken = 0, None

        def take() -> tuple[Frame, SettingsSnapshot]:
            nonlocal started_ns, taken
            taken = self._to_explain.take()
            started_ns = time.monotonic_ns()
            return taken.frame, taken.settings

        explanation = self._explainer.explain_newest(take)
        assert taken is not None
        self._count_explained(taken.frame, explanation, started_ns)
        return taken, explanation

    def _count_explained(self, frame: Frame, explanation: Explanation, started_ns: int) -> None:
        self._counters.explain.add(time.monotonic_ns() - started_ns)
        self._counters.to_explanation.add(explanation.explained_ns - frame.captured_ns)

    def _render(self) -> None:
        try:
            if self._live:
                self._render_live()
            else:
                self._render_all()
        except EndOfStream:
            pass
        except BaseException as error:
            self._fail(error)
        finally:
            for sink_queue in self._sink_queues:
                sink_queue.waiting.close()

    def _present(
        self, captured: CapturedFrame, shown: Explanation | None, mode: str | None = None
    ) -> None:
        """Draws a picture and hands it to the sinks."""
        started_ns = time.monotonic_ns()
        picture = self._presenter.present(captured.frame, shown, captured.settings, mode)
        self._counters.render.add(time.monotonic_ns() - started_ns)
        self.report.rendered += 1
        for sink_queue in self._sink_queues:
            sink_queue.waiting.put(picture)

    def _render_all(self) -> None:
        """Draws every frame with its own map.

        Raises:
            EndOfStream: all are drawn.
        """
        while True:
            with suppress(TimeoutError):
                captured = self._take()
                assert captured.explanation is not None
                self._newest = newest = captured.explanation.result()
                self._present(captured, self._filter(newest, captured.settings.look))

    def _render_live(self) -> None:
        """Draws each picture when it is due, until no more frames and explanations come."""
        sync = self._sync
        while True:
            try:
                captured = self._take(self._seconds_to_next_picture)
            except TimeoutError:
                pass
            except EndOfStream:
                break
            else:
                if captured.settings.look.sync == "newest":
                    self._wait_for_own_map(captured)
                sync.add_frame(captured)
            self._show_due()
        while not self._to_render.is_aborted:
            with self._explained:
                self._explained.wait_for(lambda: bool(self._new_explanations) or not self._explains)
                ended = not self._explains
            if ended:
                sync.end()
            while self._show_due():
                pass
            if ended and not self._new_explanations:
                break

    def _show_due(self) -> bool:
        """Draws the next picture, if one is due; the explanations that came are taken before."""
        sync = self._sync
        while self._new_explanations:
            captured, newest = self._new_explanations.popleft()
            shown = self._filter(newest, self.settings.now.look)
            sync.add_explanation(shown, captured, time.monotonic_ns())
        if self.settings.now.paused:
            sync.clear()  # the picture that stands is not overtaken
        due = sync.take(time.monotonic_ns())
        if due is None:
            return False
        self._present(due.captured, due.explanation, due.mode)
        return True

    def _seconds_to_next_picture(self) -> float | None:
        wake_ns = self._sync.wake_ns()
        return None if wake_ns is None else max(0.0, (wake_ns - time.monotonic_ns()) / 1e9)

    def _wait_for_own_map(self, captured: CapturedFrame) -> None:
        """`--sync newest`: lets a frame wait a moment for its own map, where that comes so soon.

        It does where a GPU draws frames as it explains them. A frame of a slow camera waits as
        well: it holds up no other frame, and the last map is too old to be shown. The last frame of
        `limit` waits for the first explanation, so that a run of one frame shows a map.
        """
        frame = captured.frame
        last, before_ns = self._newest, self._drawn_ns
        self._drawn_ns = frame.captured_ns
        if last is None and self._limit is not None and self.report.captured >= self._limit:
            with self._explained:
                self._explained.wait_for(lambda: self._newest is not None or not self._explains)
        seconds, max_age = _OWN_MAP_SECONDS, captured.settings.look.max_age
        if before_ns is not None and frame.captured_ns - before_ns > max_age * 1e9:
            seconds = max_age
        elif last is None or not last.drawn or last.explained_ns > last.captured_ns + seconds * 1e9:
            return
        with self._explained:
            self._explained.wait_for(
                lambda: (
                    not self._explains
                    or (self._newest is not None and self._newest.captured_ns >= frame.captured_ns)
                ),
                seconds,
            )

    def _filter(self, newest: Explanation, look: LookConfig) -> Explanation:
        if newest.drawn is not None:
            return newest  # the GPU has done so
        if self.info.still:
            return newest  # pictures have nothing to do with each other
        if look.hold > 0.0 and newest.features is None:
            return newest  # explained before a hold was asked for
        return self._steady.update(newest, look)

    def _take(self, seconds_to_next: Callable[[], float | None] = lambda: None) -> CapturedFrame:
        """The next frame. While none comes, the sinks that take repeats get the last picture again,
        marked with the reason, at the rate that they ask for.

        Raises:
            TimeoutError: a picture is due without a new frame, or an explanation came.
        """
        repeating = [
            sink_queue for sink_queue in self._sink_queues if sink_queue.sink.takes_repeats
        ]
        if not repeating:
            return self._to_render.take(seconds_to_next())
        every = min(sink_queue.sink.repeat_seconds for sink_queue in repeating)
        if self._repeat_due is None:
            self._repeat_due = time.monotonic() + every
        to_repeat = max(0.0, self._repeat_due - time.monotonic())
        to_picture = seconds_to_next()
        try:
            captured = self._to_render.take(
                to_repeat if to_picture is None else min(to_repeat, to_picture)
            )
        except TimeoutError:
            now = time.monotonic()
            if now >= self._repeat_due:
                self._repeat_due = max(self._repeat_due + every, now)
                self._repeat(repeating)
            raise
        self._repeat_due = None
        return captured

    def _repeat(self, sink_queues: Sequence[SinkQueue]) -> None:
        settings = self.settings.now
        if settings.paused:
            instead = self._explain_again(settings)
            picture = self._presenter.present_paused(settings, instead)
            sink_queues = [sink_queue for sink_queue in sink_queues if sink_queue.sink.watched]
        else:
            away = self._source.outage() if self._live else None
            picture = self._presenter.present_outage(away) if away is not None else None
        if picture is not None:
            for sink_queue in sink_queues:
                sink_queue.waiting.put(picture)

    def _explain_again(self, settings: SettingsSnapshot) -> Explanation | None:
        """An explanation of the frame at the pause: its own, and of the maps wanted by now."""
        drawn = self._presenter.drawn
        if drawn is None:
            return None
        frame, explanation = drawn
        n_maps = count_maps(settings, len(self._explainer.labels))
        if (
            explanation is not None
            and explanation.between_frames is None
            and explanation.captured_ns == frame.captured_ns
            and len(explanation.cams) == n_maps
        ):
            locked = explanation.targets[: explanation.n_locked]
            same_contrast = explanation.contrast == settings.contrast
            if same_contrast and tuple(one.index for one in locked) == settings.targets:
                return None
        # The counters have counted this frame: `_explain` would count it again.
        return self._explain_only(frame, settings)

    def _run_sink(self, sink_queue: SinkQueue) -> None:
        try:
            for _ in self._feed(sink_queue, sink_queue.sink.poll_seconds):
                pass
        except BaseException as error:
            self._fail(error)

    def _feed(
        self, sink_queue: SinkQueue, poll_seconds: float | None
    ) -> Generator[None, None, None]:
        """Opens, feeds and closes a sink; pauses after each picture, and when none comes."""
        try:
            with sink_queue.sink:
                try:
                    yield from sink_queue.write_all(poll_seconds)
                except Exception as error:
                    # Before the sink closes, which may fail as well: this is the cause.
                    self._drop_sink(sink_queue, error)
                    raise
                cut_short = (
                    self._failure is not None or self._stopping.is_set() or sink_queue.closed
                )
                if self._all_read and not cut_short:
                    sink_queue.sink.source_ended()
                if sink_queue.closed:
                    self.stop(f"{sink_queue.sink.name} was closed")
        except Exception as error:
            self._drop_sink(sink_queue, error)
        finally:
            # The render thread does not wait for a sink that takes no more.
            sink_queue.waiting.abort()

    # The calling thread.

    def _wait_for_stages(
        self,
        capture: threading.Thread,
        stages: Sequence[threading.Thread],
        feeds: Sequence[Iterator[None]],
        on_tick: Callable[[Progress], None] | None,
    ) -> None:
        """Feeds windows and reports progress until all is done."""
        in_time = True
        while feeds or any(thread.is_alive() for thread in stages):
            feeds = [feed for feed in feeds if next(feed, "over") is None]
            if not feeds:
                next((t for t in stages if t.is_alive()), capture).join(_TICK_SECONDS)
            if on_tick is not None:
                on_tick(self._counters.progress(self._newest))
            if in_time and not self._seconds_left():
                in_time = False
                self._discard_waiting()

    def _seconds_left(self) -> float:
        """How many seconds the frames captured before a stop may still take."""
        if self._stopped_at is None:
            return _STOP_SECONDS
        return max(0.0, self._stopped_at + _STOP_SECONDS - time.monotonic())

    # Endings.

    def _discard_waiting(self) -> None:
        """Ends the time after a stop: waiting frames are discarded, sinks finish theirs."""
        if self._reading:
            logger.warning("the source does not return; it is left behind")
        self._abort()
        for sink_queue in self._sink_queues:
            sink_queue.waiting.abort()
            sink_queue.sink.interrupt()

    def _drop_sink(self, sink_queue: SinkQueue, error: Exception) -> None:
        """A sink failed: the others go on, unless there are none or the user wants it strict."""
        if sink_queue.failed:
            return  # it could not be closed either
        said = hide(str(error)) if isinstance(error, StreamCamError) else _describe(error)
        sink_queue.failed = said or type(error).__name__
        if self._strict or all(each.failed or each.sink.on_demand for each in self._sink_queues):
            self._fail(error)
            return
        with self._failure_lock:
            self._sink_failure = self._sink_failure or error
        logger.error("%s; the other outputs go on", sink_queue.failed)

    def _record_failure(self, error: BaseException) -> None:
        with self._failure_lock:
            if self._failure is None:
                self._failure = error
                self.report.ended_by = _describe(error)
        self._stop_reading()

    def _stop_reading(self) -> None:
        self._stopping.set()
        self._source.stop()

    def _fail(self, error: BaseException) -> None:
        """A stage after the source broke: nothing more can be finished before it."""
        self._record_failure(error)
        self._stopped_at = self._stopped_at or time.monotonic()
        self._abort()

    def _abort(self) -> None:
        self._to_explain.abort()
        self._to_render.abort()


def _describe(error: BaseException) -> str:
    return hide(f"{type(error).__name__}: {error}")


def _start(name: str, work: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, args=args, daemon=True)
    thread.start()
    return thread

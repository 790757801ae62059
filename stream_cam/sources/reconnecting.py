"""Cameras and network streams that reconnect: always the newest frame, over all outages.

A reader (reader.py) holds one connection. When it fails, or gives no frame for a while, it is
abandoned, and another one is started after a jittered, growing wait (backoff.py). How long "a
while" is depends on the protocol and on the measured interval between frames (frame_interval.py).
The reaction depends on the kind of error:

    kind of error                               first connection        later
    refused, timeout, unreachable, lost, other  waits and tries again   tries again
    not found, codec, tls, permission, busy     ends the run at once    tries again, says so
    authentication                              ends the run at once    tries again every 10 s

`--give-up-after` limits all of them, and with it the first connection is tried so long as well.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from stream_cam.config import CaptureConfig
from stream_cam.errors import SourceError, SourceErrorKind
from stream_cam.frame import NANOSECOND, Frame
from stream_cam.queues import EndOfStream
from stream_cam.sources.backoff import LONGEST_WAIT_SECONDS, Backoff
from stream_cam.sources.base import Health, Outage, Source
from stream_cam.sources.frame_interval import FrameInterval
from stream_cam.sources.outage_log import OutageLog
from stream_cam.sources.reader import Reader
from stream_cam.uri import redact_uri

logger = logging.getLogger(__name__)

LOOKS_PERMANENT: Final[frozenset[SourceErrorKind]] = frozenset(
    {"not found", "authentication", "codec", "tls", "permission", "busy"}
)
"""Kinds of errors that somebody has to do something about."""

_SHORT_ATTEMPT_SECONDS: Final = 4.0
"""Time limit of the first attempt to reconnect. It doubles up to the limits that were asked for,
and is at least twice the time of the last successful attempt. A server that comes back may leave a
connection hanging that was made too early."""
_MOST_ABANDONED: Final = 3
"""The most readers that may hang at a time; no further one is started then."""
_CLOSING_SECONDS: Final = 0.5
"""How long a connection may take to close in order."""
_FRESH_SECONDS: Final = 1.0
"""A first frame that waited longer for the models is dropped as old."""
_KEY_FRAME_SECONDS: Final = 60.0
"""A stream that is joined between two key frames may show nothing for so long."""


class MonotonicClock:
    """The real clock; tests give one that they move."""

    def now(self) -> float:
        """Monotonic, in seconds."""
        return time.monotonic()

    def wait_for(
        self, changed: threading.Condition, ready: Callable[[], bool], timeout: float | None
    ) -> bool:
        """`changed.wait_for(ready, timeout)` by this clock."""
        return changed.wait_for(ready, timeout)


class ReconnectingSource(Source):
    """A live source that reconnects; frames count on and their times are the capture clock's.

    Entering waits for the first frame. Iterating gives the newest frame, and waits through
    outages; `outage` tells about them. A recorded source (a file on a web server) is
    passed through: every frame, with its own time, and its first failure is the end.

    Args:
        uri: for messages; it is shown redacted.
        open_source: makes the source anew for each connection; called in a reader's thread.
        config: time limits.
        clock, jitter: for tests.
    """

    def __init__(
        self,
        uri: str,
        open_source: Callable[[], Source],
        config: CaptureConfig | None = None,
        *,
        clock: MonotonicClock | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self._name = redact_uri(uri)
        self._open_source = open_source
        self._config = config or CaptureConfig()
        self._clock = clock or MonotonicClock()
        self._backoff = Backoff(jitter or random.Random())
        self._interval = FrameInterval()
        self._log = OutageLog(self._name)
        self._changed = threading.Condition()  # reentrant: a signal may call `stop` at any time
        self._stopping = False
        self._reader: Reader | None = None
        self._abandoned: list[Reader] = []
        self._first: Frame | None = None
        self._latest: Frame | None = None
        """As the source gave it. The same one again means that it is there and has nothing new."""
        self._given = 0
        self._origin_ns = self._last_ns = 0
        self._failure: SourceError | None = None
        self._attempt = 0
        self._next_try_at = self._last_frame_at = self._alive_at = self._clock.now()
        """Times in s: next attempt, last frame, last sign that a frame may still come."""
        self._opened_at = self._last_frame_at
        self._corrupt_before = 0
        self._connecting_took = 0.0
        self._warned_of_full = False
        self._overtaken_before = 0
        self._health = Health()

    @property
    def corrupt_frames(self) -> int:
        """Packets and frames that could not be decoded, so far, over all connections."""
        reader = self._reader
        return self._corrupt_before + (reader.corrupt_frames if reader is not None else 0)

    @property
    def health(self) -> Health:
        return self._health

    @property
    def patient_config(self) -> CaptureConfig:
        """The next connection's time limits, from the intervals measured on earlier ones."""
        seconds = self._interval.patience_seconds(self._config.read_timeout_seconds)
        return replace(self._config, read_timeout_seconds=seconds)

    def __enter__(self) -> ReconnectingSource:
        self._last_frame_at = self._clock.now()
        try:
            self._first = self._next()
        except BaseException:
            self.close()
            raise
        if self._info is None:
            raise SourceError(f"{self._name} was stopped before its first picture", kind="lost")
        return self

    def __iter__(self) -> Iterator[Frame]:
        first, self._first = self._first, None
        self._alive_at = self._clock.now()
        if first is not None:
            if (
                self._is_recorded()
                or self._clock.now() - self._last_frame_at < self._fresh_seconds()
            ):
                yield first
            else:
                # It has become old while the models were loaded.
                self._given, self._latest = 0, None
                self._interval.interrupted()
                if (frame := self._next()) is None:
                    return
                self._interval.interrupted()  # this one has waited for them too
                yield frame
        while (frame := self._next()) is not None:
            yield frame

    def _fresh_seconds(self) -> float:
        fps = self.info.fps
        return max(_FRESH_SECONDS, float(1 / fps) if fps else 0.0)

    def stop(self) -> None:
        """Ends the iteration at once, whatever the reader does; from any thread or signal."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            reader = self._reader
        if reader is not None:
            reader.abandon()

    def outage(self) -> Outage | None:
        failure, age = self._failure, self._clock.now() - self._last_frame_at
        quiet = self._interval.quiet_seconds(self._config.read_timeout_seconds)
        if failure is None and (age < quiet or self._is_recorded()):
            return None
        reader = self._reader
        awaits_key_frame = reader is not None and reader.stream_state.awaits_key_frame
        if awaits_key_frame:
            reason = f"{self._name} sends video; waiting for a key frame"
        else:
            reason = str(failure or f"{self._name} gives no picture")
        return Outage(
            reconnecting=failure is not None and not awaits_key_frame,
            last_frame_age_seconds=age,
            attempt=self._attempt,
            next_try_seconds=max(0.0, self._next_try_at - self._clock.now()),
            kind=failure.kind if failure is not None else "timeout",
            reason=reason,
            awaits_key_frame=awaits_key_frame,
        )

    def _next(self) -> Frame | None:
        """The next frame, over as many connections as it takes; None at the end."""
        while True:
            reader = self._reader or self._connect()
            if reader is None or self._stopping:
                return None
            try:
                frame = reader.frames.take(self._patience(reader))
                self._received(reader, frame)
                if frame is self._latest:
                    continue
                self._latest = frame
                return frame if reader.recorded else self._numbered(frame)
            except TimeoutError:
                if self._may_still_come(reader):
                    continue
                failure: BaseException = self._opencv_silenced(reader)
                self._abandon(reader)
            except EndOfStream:
                if self._stopping or (reader.recorded and reader.error is None):
                    return None
                failure = reader.error or SourceError(
                    f"{self._name} has ended; check the camera or server", kind="lost"
                )
            self._corrupt_before, self._reader = self.corrupt_frames, None
            self._overtaken_before += reader.frames.dropped
            if not isinstance(failure, SourceError) or reader.recorded:
                raise failure
            self._interval.interrupted(silent=failure.kind == "timeout")
            self._lost(failure)

    def _connect(self) -> Reader | None:
        """A new reader when its time has come; None if the source was stopped before."""
        with self._changed:
            if not self._wait_for_next_try():
                return None
            self._attempt += 1
            self._opened_at = self._alive_at = self._clock.now()
            self._reader = Reader(
                self._open_source,
                self._notify,
                self._clock.wait_for,
                name=f"reader {self._health.connections + self._attempt}",
                always_live=self._info is not None,
            )
            self._reader.start()
            return self._reader

    def _wait_for_next_try(self) -> bool:
        """Waits for the planned time, and for room if too many readers hang; False if stopped."""
        while not self._stopping:
            self._abandoned = [reader for reader in self._abandoned if reader.alive]
            full = len(self._abandoned) >= _MOST_ABANDONED
            wait = self._next_try_at - self._clock.now()
            if wait <= 0 and not full:
                return True
            if full and not self._warned_of_full:
                self._warned_of_full = True
                logger.warning(
                    "%s: %d reads hang; no further one is begun before one of them returns",
                    self._name,
                    len(self._abandoned),
                )
            self._give_up_if_due()
            limits = [wait] if wait > 0 else [LONGEST_WAIT_SECONDS]
            self._clock.wait_for(
                self._changed, self._is_disturbed, min(limits + self._until_giving_up())
            )
        return False

    def _is_disturbed(self) -> bool:
        """Whether a wait is over before its time."""
        return self._stopping or not all(reader.alive for reader in self._abandoned)

    def _patience(self, reader: Reader) -> float | None:
        """How long the next frame may still take."""
        if reader.recorded:
            return None
        config = self.patient_config
        wait = max(config.read_timeout_seconds, reader.stream_state.read_timeout_seconds)
        if reader.info is None:
            wait = config.open_timeout_seconds + self._config.read_timeout_seconds
            if self._info is not None:
                short = max(_SHORT_ATTEMPT_SECONDS, 2.0 * self._connecting_took)
                wait = min(wait, short * 2.0 ** min(self._backoff.failures - 1, 9))
        wait += max(self._alive_at, self._last_frame_at) - self._clock.now()
        return max(0.0, min([wait, *self._until_giving_up()]))

    def _may_still_come(self, reader: Reader) -> bool:
        """Whether the wait for a frame goes on although its time was over."""
        now = self._clock.now()
        if self._until_giving_up() == [0.0]:
            return False
        if self._patience(reader):
            return True  # it has connected meanwhile, and has more time than an attempt has
        waited = now - max(self._opened_at, self._last_frame_at)
        if (
            not reader.has_new_packets()
            or not reader.stream_state.awaits_key_frame
            or waited >= _KEY_FRAME_SECONDS
        ):
            return False
        self._alive_at = now
        self._log.awaits_key_frame()
        return True

    def _received(self, reader: Reader, frame: Frame) -> None:
        """Takes note of a frame, or of the same one again, that the source is there."""
        now = self._clock.now()
        self._health.overtaken = self._overtaken_before + reader.frames.dropped
        if self._info is None or self._failure is not None:
            self._warned_of_full = False
            self._connecting_took = now - self._opened_at
        if self._info is None:
            self._info = reader.info
            self._health.connections += 1
            self._origin_ns = frame.captured_ns
            self._log.connected(self._attempt)
        elif self._failure is not None:
            away_seconds = now - self._last_frame_at
            self._health.connections += 1
            self._health.recoveries += 1
            slowest = self._health.slowest_recovery_seconds
            self._health.slowest_recovery_seconds = max(slowest, away_seconds)
            self._log.recovered(away_seconds)
        self._last_frame_at, self._failure = now, None
        self._attempt = 0
        self._interval.received(now)
        self._backoff.received(now)
        if not self._backoff.failures:
            self._log.proved()

    def _numbered(self, frame: Frame) -> Frame:
        self._last_ns = max(self._last_ns + bool(self._given), frame.captured_ns - self._origin_ns)
        self._given += 1
        return replace(frame, index=self._given - 1, pts=self._last_ns, time_base=NANOSECOND)

    def _lost(self, failure: SourceError) -> None:
        """Plans the next attempt, or raises if there is to be none."""
        self._failure = failure
        permanent = failure.kind in LOOKS_PERMANENT
        if self._info is None and permanent and self._config.give_up_after is None:
            raise failure
        wait = self._backoff.failed(failure.kind)
        self._next_try_at = self._clock.now() + wait
        self._give_up_if_due()
        self._log.failed(failure, wait, self._backoff.short_connections)

    def _opencv_silenced(self, reader: Reader) -> SourceError:
        if self._failure is not None and self._until_giving_up() == [0.0]:
            return self._failure  # an attempt that was cut short says less
        seconds = self._clock.now() - max(self._last_frame_at, self._opened_at)
        if reader.stream_state.awaits_key_frame and seconds >= _KEY_FRAME_SECONDS:
            return SourceError(
                f"{self._name} sends video, but no key frame for {seconds:.1f} s; "
                f"set the camera to send one every 2 s",
                kind="timeout",
            )
        return SourceError(f"{self._name} gives no picture for {seconds:.1f} s", kind="timeout")

    def _abandon(self, reader: Reader) -> None:
        reader.abandon()
        self._health.abandoned_readers += 1
        self._abandoned.append(reader)

    def _until_giving_up(self) -> list[float]:
        """No or one limit, in seconds from now."""
        limit = self._config.give_up_after
        return [] if limit is None else [max(0.0, self._last_frame_at + limit - self._clock.now())]

    def _give_up_if_due(self) -> None:
        if self._failure is not None and self._until_giving_up() == [0.0]:
            limit = self._config.give_up_after
            raise SourceError(
                f"{self._failure}; gave up after {limit:g} s (--give-up-after)",
                kind=self._failure.kind,
            )

    def _is_recorded(self) -> bool:
        return self._info is not None and not self._info.live

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        self.stop()
        if self._reader is not None:
            self._reader.join(_CLOSING_SECONDS)

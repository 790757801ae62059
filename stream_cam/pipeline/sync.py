"""Which live picture is shown when, and with which maps: `--sync`.

    newest        every picture at once, with the newest map there is
    own           a picture waits for its own map, because the network keeps up with the camera
    interpolated  a picture waits for the maps before and after it
    matched       pictures that were not explained are not shown

`auto` is own, interpolated or matched. The delay of `interpolated` is the longest time after which
the map behind a picture was known of late, G + L: the gap between two explained frames, and the
time from the capture of the second to its explanation.

Nothing here reads a clock, waits or draws: the render thread asks (pipeline.py).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from stream_cam.cam.interpolation import interpolate
from stream_cam.config import LookConfig
from stream_cam.frame import Explanation
from stream_cam.pipeline.captured import CapturedFrame

Mode = Literal["newest", "own", "interpolated", "matched"]

_KEEPS_UP, _FALLS_BEHIND = 1.1, 1.3
"""Camera intervals from one explained frame to the next: below the first the network keeps up, from
the second it does not."""
_RECENT = 9
"""Explanations by which the mode is chosen."""
_MORE_INTERVALS = 2
"""Frames that may wait beyond those of `--max-delay`."""
_SHRINK = 0.1
"""Share by which a delay that is too long is shortened at each explanation."""
_SILENT_SECONDS = 2.0
"""`auto`: without a new map for this long, pictures go on with the old one, faded."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture to be drawn now."""

    captured: CapturedFrame
    explanation: Explanation | None
    mode: Mode


@dataclass(slots=True)
class SyncCounts:
    """`Report.sync`."""

    shown: dict[str, int]
    """Pictures by mode."""
    late: int = 0
    """Interpolated pictures whose next map did not come in time, drawn with the last one."""
    most_waiting: int = 0
    """Frames that waited at once, at most."""
    most_waiting_bytes: int = 0
    """Size of their pixels."""


class LiveSync:
    """Live frames that wait for their maps; for one thread.

    Frames and explanations come in the order of their capture.
    """

    def __init__(self) -> None:
        self._frames: deque[CapturedFrame] = deque()
        self._maps: deque[Explanation] = deque()
        self._explained: tuple[CapturedFrame, Explanation] | None = None
        """The newest frame that has its own map and was not shown."""
        self._shown_ns: int | None = None
        self._intervals_ns: deque[int] = deque(maxlen=30)
        self._gaps_ns: deque[int] = deque(maxlen=_RECENT)
        self._latencies_ns: deque[int] = deque(maxlen=_RECENT)
        self._newest_frame: CapturedFrame | None = None
        self._last_map: Explanation | None = None
        self._silent_since_ns: int | None = None
        self._delay_ns = 0
        self._keeps_up = True
        self._hangs = False
        self._waiting_bytes = 0
        self._ended = False
        self.mode: Mode = "own"
        self.counts = SyncCounts({})

    @property
    def too_slow(self) -> bool:
        """The network explains fewer frames than the camera gives, and no delay makes up for it."""
        return self._hangs or (self.mode in ("matched", "newest") and not self._keeps_up)

    def add_frame(self, captured: CapturedFrame) -> None:
        frame = captured.frame
        last = self._newest_frame
        if last is not None and frame.captured_ns > last.frame.captured_ns:
            self._intervals_ns.append(frame.captured_ns - last.frame.captured_ns)
        self._newest_frame = captured
        self._frames.append(captured)
        self._waiting_bytes += frame.image_bgr.nbytes
        interval_ns = max(self._intervals_ns, default=0)
        oldest_ns = frame.captured_ns - self._most_delay_ns() - _MORE_INTERVALS * interval_ns
        while self._frames[0].frame.captured_ns < oldest_ns:
            self._drop()
        counts = self.counts
        counts.most_waiting = max(counts.most_waiting, len(self._frames))
        counts.most_waiting_bytes = max(counts.most_waiting_bytes, self._waiting_bytes)

    def add_explanation(
        self, explanation: Explanation, captured: CapturedFrame, now_ns: int
    ) -> None:
        last = self._last_map
        if last is not None and explanation.captured_ns > last.captured_ns:
            self._gaps_ns.append(self._gap_ns(explanation.captured_ns - last.captured_ns))
            self._latencies_ns.append(now_ns - explanation.captured_ns)
            self._measure()
        self._last_map = explanation
        self._silent_since_ns = None
        self._hangs = False
        self._explained = captured, explanation
        self._maps.append(explanation)

    def end(self) -> None:
        """No more explanations come: the frames that wait are shown with those that are there."""
        self._ended = True

    def clear(self) -> None:
        """Forgets the frames that wait, for a pause."""
        self._frames.clear()
        self._explained = None
        self._waiting_bytes = 0

    def take(self, now_ns: int) -> Shown | None:
        """The next picture that is due; frames that it overtakes are not shown."""
        if not self._frames and self._explained is None:
            return None
        if self._silent_since_ns is None:
            self._silent_since_ns = now_ns
        self.mode = self._choose()
        shown = {
            "newest": self._take_newest,
            "own": self._take_own,
            "matched": self._take_own,
            "interpolated": self._take_interpolated,
        }[self.mode](now_ns)
        if shown is not None:
            self.counts.shown[shown.mode] = self.counts.shown.get(shown.mode, 0) + 1
            self._shown_ns = shown.captured.frame.captured_ns
            self._forget_maps(self._shown_ns)
        return shown

    def wake_ns(self) -> int | None:
        """When to ask again if nothing comes; None: there is nothing to wait for."""
        if not self._frames:
            return None
        first = self._frames[0].frame.captured_ns
        if self.mode == "interpolated":
            after = self._map_after(first)
            return first + (self._delay_ns if after is not None else self._most_delay_ns())
        if self._sync == "auto" and self._silent_since_ns is not None:
            return self._silent_since_ns + round(_SILENT_SECONDS * 1e9)
        return None

    # Choosing.

    @property
    def _look(self) -> LookConfig:
        """The newest frame's."""
        assert self._newest_frame is not None
        return self._newest_frame.settings.look

    @property
    def _sync(self) -> str:
        return self._look.sync

    def _most_delay_ns(self) -> int:
        return round(self._look.max_delay * 1e9)

    def _choose(self) -> Mode:
        sync = self._sync
        if sync == "newest":
            return "newest"
        if sync == "matched":
            return "matched"
        if self._keeps_up or not self._gaps_ns:
            return "own"
        needed = sorted(map(sum, zip(self._gaps_ns, self._latencies_ns, strict=True)))
        typical = needed[-1 - len(needed) // 5]  # one hiccup in five changes nothing
        return "interpolated" if typical <= self._most_delay_ns() else "matched"

    def _gap_ns(self, gap_ns: int) -> int:
        """The gap that the network made, without a pause or an outage of the camera in it."""
        if not (self._latencies_ns and self._intervals_ns):
            return gap_ns
        # The next frame is taken when the last one is explained, and is a new one.
        return min(gap_ns, self._latencies_ns[-1] + round(median(self._intervals_ns)))

    def _measure(self) -> None:
        needed = max(map(sum, zip(self._gaps_ns, self._latencies_ns, strict=True)))
        if needed >= self._delay_ns:
            self._delay_ns = needed
        else:
            self._delay_ns -= round(_SHRINK * (self._delay_ns - needed))
        if self._intervals_ns:
            per_map = fmean(self._gaps_ns) / median(self._intervals_ns)
            self._keeps_up = per_map < (_FALLS_BEHIND if self._keeps_up else _KEEPS_UP)

    def _is_silent(self, now_ns: int) -> bool:
        since_ns = self._silent_since_ns
        return since_ns is not None and now_ns - since_ns >= _SILENT_SECONDS * 1e9

    # Taking.

    def _take_newest(self, now_ns: int) -> Shown | None:
        if not self._frames:
            return None
        while len(self._frames) > 1:
            self._drop()
        return Shown(self._pop(), self._last_map, "newest")

    def _take_own(self, now_ns: int) -> Shown | None:
        """The newest frame whose explanation is there."""
        if self._explained is not None:
            captured, explanation = self._explained
            self._explained = None
            own_ns = captured.frame.captured_ns
            while self._frames and self._frames[0].frame.captured_ns <= own_ns:
                self._drop()
            if self._shown_ns is None or own_ns > self._shown_ns:
                return Shown(captured, explanation, self.mode)
        if self._ended:
            self.clear()
        elif self._frames and self._sync == "auto" and self._is_silent(now_ns):
            self._hangs = True
            return self._take_newest(now_ns)
        return None

    def _take_interpolated(self, now_ns: int) -> Shown | None:
        delay, most = self._delay_ns, self._most_delay_ns()
        if self._ended:
            delay = most = 0
        if not self._frames:
            return None
        # A picture whose successor is due as well is overtaken by it.
        while len(self._frames) > 1 and self._is_ready(1, now_ns, delay, most) and not self._ended:
            self._drop()
        if not self._is_ready(0, now_ns, delay, most):
            return None
        captured = self._pop()
        frame = captured.frame
        before, after = self._map_before(frame.captured_ns), self._map_after(frame.captured_ns)
        if before is None or after is None:
            self.counts.late += after is None
            return Shown(captured, before or after, "interpolated")
        return Shown(captured, interpolate(before, after, frame), "interpolated")

    def _is_ready(self, place: int, now_ns: int, delay_ns: int, most_ns: int) -> bool:
        captured_ns = self._frames[place].frame.captured_ns
        if now_ns < captured_ns + min(delay_ns, most_ns):
            return False
        return self._map_after(captured_ns) is not None or now_ns >= captured_ns + most_ns

    def _map_before(self, captured_ns: int) -> Explanation | None:
        """The last map of this frame or an earlier one."""
        return next((one for one in reversed(self._maps) if one.captured_ns <= captured_ns), None)

    def _map_after(self, captured_ns: int) -> Explanation | None:
        """The first map of this frame or a later one."""
        return next((one for one in self._maps if one.captured_ns >= captured_ns), None)

    def _pop(self) -> CapturedFrame:
        captured = self._frames.popleft()
        self._waiting_bytes -= captured.frame.image_bgr.nbytes
        return captured

    def _drop(self) -> None:
        self._pop()

    def _forget_maps(self, shown_ns: int) -> None:
        """Keeps the last map before the shown picture, and all later ones."""
        while len(self._maps) > 1 and self._maps[1].captured_ns <= shown_ns:
            self._maps.popleft()

"""From a frame and the newest explanation to a picture that does not look fresher than it is."""

from __future__ import annotations

import time
from dataclasses import replace

from stream_cam.draw.hud import HudStatus, away_picture, paused_picture
from stream_cam.draw.renderer import Renderer
from stream_cam.explain.frame_explainer import FrameExplainer
from stream_cam.frame import Explanation, Frame
from stream_cam.pipeline.report import StageClock
from stream_cam.settings import SettingsSnapshot
from stream_cam.sinks.base import Picture
from stream_cam.sources.base import Outage

_RATE_SECONDS = 0.5
"""How often the rate on the HUD changes."""


def map_opacity(age_seconds: float, max_age_seconds: float) -> float:
    """1 up to the greatest age, from there falling evenly to 0 at twice that age."""
    return min(1.0, max(0.0, 2.0 - age_seconds / max_age_seconds))


class Presenter:
    """Makes the pictures of one run; used by the render thread alone.

    Args:
        explainer: its engine is named on the HUD.
        renderer: used by the presenter alone.
        live: explanations may be older than the frames that they are drawn on.
        labels_are_optional: of some sink; labels are then drawn when a sink asks for them.
    """

    def __init__(
        self,
        explainer: FrameExplainer,
        renderer: Renderer,
        live: bool,
        labels_are_optional: bool = False,
    ) -> None:
        self._explainer = explainer
        self._renderer = renderer
        self._live = live
        self._labels_are_optional = labels_are_optional
        self._rate = _Rate()
        self._last: Picture | None = None
        self._drawn: tuple[Frame, Explanation | None] | None = None
        self.fps = 0.0
        """Pictures a second of late; 0 in the first half second."""
        self.age_seconds: float | None = None
        """Live: how much older than the last frame the explanation was that was drawn on it."""
        self.ages = StageClock()
        """All of these."""
        self.delay_seconds: float | None = None
        """Live: from the last frame's capture to the drawing of its picture."""
        self.delays = StageClock()
        """All of these."""
        self.stale = 0
        """Pictures whose explanation was older than it may be."""

    def present(
        self,
        frame: Frame,
        explanation: Explanation | None,
        settings: SettingsSnapshot,
        mode: str | None = None,
    ) -> Picture:
        """The finished picture; an explanation whose map has faded away does not come with it.

        Args:
            mode: live: how picture and map met, for the HUD.
        """
        if self._live:
            self.delay_seconds = max(0, time.monotonic_ns() - frame.captured_ns) / 1e9
            self.delays.add(round(self.delay_seconds * 1e9))
        status, shown = None, None
        if explanation is not None:
            status = self._status(frame, explanation, settings.look.max_age)
            if mode is not None and mode != "newest":
                status = replace(status, mode=mode, delay_seconds=self.delay_seconds)
            shown = explanation if status.map_opacity > 0.0 else None
            self.stale += status.map_opacity < 1.0
        self.fps = self._rate.count()
        self._last = self._draw(frame, explanation, settings, status, shown)
        self._drawn = frame, explanation
        return self._last

    @property
    def drawn(self) -> tuple[Frame, Explanation | None] | None:
        """The frame and the explanation of the last picture."""
        return self._drawn

    def present_paused(
        self, settings: SettingsSnapshot, instead: Explanation | None = None
    ) -> Picture | None:
        """The last picture by the present settings, marked as paused; None before the first one.

        Args:
            instead: another explanation of the same frame, from now on.
        """
        if self._drawn is None:
            return None
        frame, explanation = self._drawn
        if instead is not None:
            explanation = instead
            self._drawn = frame, instead
        # The map is of this very frame, and a picture that stands has no rate and no delay.
        status = replace(self._own_status(), fps=None)
        still = self._draw(frame, explanation, settings, status, explanation)
        return Picture(
            lambda: paused_picture(still.image_bgr),
            frame,
            explanation,
            repeated=True,
            drawing=still.drawing,
        )

    def present_outage(self, away: Outage) -> Picture | None:
        """The last picture, dimmed, with the source's state, at the present time; None before the
        first picture.
        """
        if self._last is None:
            return None
        text = f"{away.state.upper()}, last frame {away.last_frame_age_seconds:.1f} s ago"
        shown = self._last
        last, age = shown.frame, away.last_frame_age_seconds
        frame = replace(
            last,
            pts=last.pts + round(age / last.time_base),
            captured_ns=last.captured_ns + round(age * 1e9),
        )
        return Picture(
            lambda: away_picture(shown.image_bgr, text),
            frame,
            None,
            repeated=True,
            drawing=shown.drawing,
        )

    def _draw(
        self,
        frame: Frame,
        explanation: Explanation | None,
        settings: SettingsSnapshot,
        status: HudStatus | None,
        shown: Explanation | None,
    ) -> Picture:
        """The picture of an explanation.

        Args:
            shown: the explanation that comes with it; None if its map has faded away.
        """
        if not self._labels_are_optional:
            image = self._renderer.render(frame, explanation, settings, status)
            return Picture(image, frame, shown)
        drawing = self._renderer.draw(frame, explanation, settings, status)
        return Picture(drawing.as_set, frame, shown, drawing=drawing)

    def _own_status(self) -> HudStatus:
        """The status of an explanation that belongs to its frame."""
        info = self._explainer.engine_info
        # A file gives the same pictures on every machine, however fast it is.
        fps = self.fps if self._live else 0.0
        return HudStatus(f"{info.name} {info.precision}" if info else "", fps or None)

    def _status(self, frame: Frame, explanation: Explanation, max_age: float) -> HudStatus:
        own = self._own_status()
        if not self._live:
            return own
        age_ns = max(0, frame.captured_ns - explanation.captured_ns)
        self.ages.add(age_ns)
        self.age_seconds = age_ns / 1e9
        opacity = map_opacity(self.age_seconds, max_age)
        return replace(own, age_seconds=self.age_seconds, map_opacity=opacity)


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

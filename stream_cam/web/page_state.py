"""The run's state for its page: settings, newest picture, statistics."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import cv2

from stream_cam._version import __version__
from stream_cam.draw.hud import with_note
from stream_cam.frame import BgrImage
from stream_cam.settings import CHOICES, Settings, SettingsSnapshot
from stream_cam.sinks.base import Picture, Waiting
from stream_cam.uri import json_text
from stream_cam.web.viewers import Encoded, Viewers

Stats = Callable[[], dict[str, object]]


def no_stats() -> dict[str, object]:
    """The statistics before the run has begun."""
    return {}


@dataclass
class PageState:
    """Written by the sink and read by the server, on different threads."""

    settings: Settings
    source: str
    """The source's name, without secrets."""
    viewer_only: bool = False
    quality: int = 80
    """JPEG quality, 1..100."""
    stats: Stats = no_stats
    waiting: Waiting | None = None
    """Why there is no picture yet, before the run has begun."""
    viewers: Viewers = field(default_factory=Viewers)
    newest: Picture | None = None
    announced: tuple[int, str] = (0, "")
    """The newest announcement to those who watch, and how many there were."""
    encoded: int = 0
    """Number of encoded pictures."""
    run: str = field(default_factory=lambda: f"{time.time_ns():x}")
    """Differs for each run, so that a page that reconnects notices a new one."""

    @property
    def labels(self) -> Sequence[str]:
        """The classes' names; none before the network is loaded."""
        return self.settings.labels

    def show(self, picture: Picture) -> None:
        """Takes the newest picture; encodes it once for all viewers that chose alike, if any of
        them has credit.
        """
        self.newest = picture
        wanted = self.viewers.wanted
        if not wanted:
            return
        self.encoded += 1
        captured_ns, about = picture.frame.captured_ns, _about(picture)
        self.viewers.publish(
            {
                hud: Encoded(
                    self.encoded, self.jpeg(picture.labelled(hud)), captured_ns, about=about
                )
                for hud in wanted
            }
        )

    def jpeg(self, image_bgr: BgrImage) -> bytes:
        return cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[
            1
        ].tobytes()

    def snapshot(self) -> bytes | None:
        """The newest picture as JPEG; None before the first one."""
        picture = self.newest
        return None if picture is None else self.jpeg(picture.image_bgr)

    def png(self, *, hud: bool | None) -> tuple[str, bytes] | None:
        """Name and bytes of the newest picture as PNG, with its class and the time drawn on it.

        Args:
            hud: with the HUD; None: by the settings of the run.
        """
        picture = self.newest
        if picture is None:
            return None
        best = picture.explanation.shown() if picture.explanation is not None else None
        said = f"{best.label} {100 * best.probability:.0f} %" if best is not None else ""
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        image = with_note(picture.labelled(hud), [" · ".join(filter(None, (said, when)))])
        label = re.sub(r"[^A-Za-z0-9]+", "-", best.label).strip("-") if best is not None else ""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = "-".join(filter(None, ("stream-cam", stamp, label)))
        return f"{name}.png", cv2.imencode(".png", image)[1].tobytes()

    def announce(self, text: str) -> str:
        """Keeps an announcement; returns the message about it."""
        self.announced = self.announced[0] + 1, text
        return json_text({"type": "announced", **self._announcement()})

    def _announcement(self) -> dict[str, object]:
        number, text = self.announced
        # It names folders of this machine: not for those who may only watch.
        return {
            "announced": 0 if self.viewer_only else number,
            "text": "" if self.viewer_only else text,
        }

    def hello(self) -> dict[str, object]:
        """The first message to a page."""
        return {
            "type": "hello",
            "run": self.run,
            "version": __version__,
            "source": self.source,
            "viewer_only": self.viewer_only,
            "choices": CHOICES,
            **self._announcement(),
            "settings": self.settings_values(self.settings.now),
        }

    def settings_values(self, shown: SettingsSnapshot) -> dict[str, object]:
        """All settings, as plain values; targets by label and by index."""
        values: dict[str, object] = asdict(shown)
        values |= asdict(shown.look)
        del values["look"], values["targets"]
        values["target"] = [self.labels[index] for index in shown.targets]
        values["target_index"] = list(shown.targets)
        values["against"] = self.settings.names_of(shown.against)
        return values

    def statistics(self) -> dict[str, object]:
        """Statistics of the run and of the server."""
        viewers, waiting = self.viewers, self.waiting
        return {
            **self.stats(),
            "waiting": None if waiting is None else {**asdict(waiting), "lines": waiting.lines},
            "run": self.run,
            **self._announcement(),
            "viewers": len(viewers),
            "encoded": self.encoded,
            "sent": viewers.sent,
            "skipped": viewers.skipped,
        }


def _about(picture: Picture) -> Mapping[str, object]:
    about: dict[str, object] = {
        "frame": picture.frame.index,
        "repeated": picture.repeated,
    }
    explanation = picture.explanation
    if explanation is not None:
        about["top"] = [
            [best.label, best.index, round(best.probability, 4)] for best in explanation.predictions
        ]
        about["shown"] = [
            [one.label, one.index, round(one.probability, 4)] for one in explanation.targets
        ]
        about["method"] = explanation.method
        about["against"] = explanation.other_labels()
        about["explained"] = explanation.frame_index
        about["between"] = explanation.between_frames
    return about

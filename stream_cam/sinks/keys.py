"""The keys of a window and their actions; the browser page has the same."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, get_args

import cv2

from stream_cam.atomic_files import write_atomic
from stream_cam.config import N_PREDICTIONS, Colormap, LayoutName
from stream_cam.errors import StreamCamError
from stream_cam.frame import BgrImage
from stream_cam.settings import Settings
from stream_cam.sinks.base import Picture

logger = logging.getLogger(__name__)

T = TypeVar("T")

_QUIT_KEYS: Final = ("q", "Q", "\x1b")
HELP: Final = (
    "space\tpause",
    "s\tsave this picture",
    "r\trecord, and stop recording",
    "c\tmap on and off",
    "[ ]\tmap weaker, stronger",
    "m\tnext colours",
    "l\tnext layout",
    "h\tlabels on the picture",
    "n\twhy not the next best class",
    f"1 … {N_PREDICTIONS}\tkeep the map of this class",
    "0\tfollow the best class again",
    "f\tpicture over the whole screen",
    "?\tthese keys",
    "q Esc\tleave",
)
"""Each key and its effect, in the words of the page."""
_CLASS_KEYS: Final = tuple(str(place) for place in range(1, N_PREDICTIONS + 1))
_ALPHA_STEP: Final = 0.1
_NOTE_SECONDS: Final = 2.0
_LONG_NOTE_SECONDS: Final = 5.0
"""For names of files."""


class Keys:
    """Turns keys into changes of the settings; for the thread that receives them.

    Args:
        settings: of the run.
        folder: where pictures are saved.
        now: seconds of a monotonic clock.
    """

    def __init__(
        self, settings: Settings, folder: Path, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._now = now
        self._note, self._note_until = "", 0.0
        self._help = False
        settings.on_announcement(partial(self._tell, seconds=_LONG_NOTE_SECONDS))

    @property
    def lines(self) -> Sequence[str]:
        """Text over the picture: the help, or the last key's effect."""
        if self._help:
            return HELP
        return self._note.split("\n") if self._now() < self._note_until else ()

    def _tell(self, note: str, seconds: float = _NOTE_SECONDS) -> None:
        self._note, self._note_until = note, self._now() + seconds

    def press(self, key: str, picture: Picture | None) -> bool:
        """One key; False if it ends the run.

        Args:
            picture: the picture that is shown.
        """
        if key in _QUIT_KEYS:
            return False
        try:
            note = self._act(key, picture)
        except (StreamCamError, OSError) as error:
            note = str(error)
            logger.warning("%s", error)
        if note:
            self._tell(note, _LONG_NOTE_SECONDS if "\n" in note else _NOTE_SECONDS)
        return True

    def _act(self, key: str, picture: Picture | None) -> str:
        """Makes the key's change; returns a note about it, or ""."""
        settings, now = self._settings, self._settings.now
        if key == " ":
            settings.paused = not now.paused
        elif key == "c":
            settings.cam = not now.cam
        elif key in "[]":
            step = _ALPHA_STEP if key == "]" else -_ALPHA_STEP
            settings.alpha = min(1.0, max(0.0, round(now.look.alpha + step, 3)))
            return f"alpha {settings.alpha:.1f}"
        elif key == "m":
            settings.colormap = _after(get_args(Colormap), now.look.colormap)
            return settings.colormap
        elif key == "l":
            settings.layout = _after(get_args(LayoutName), now.look.layout)
            return settings.layout
        elif key == "r":
            settings.recording = not now.recording
            # The recorder announces the file when it begins and when it is finished.
            waits = settings.recording and now.paused
            return "it records when the pause is over" if waits else ""
        elif key == "h":
            settings.hud = not now.look.hud
        elif key == "n":
            against = settings.change(against=None if now.against else "next").against
            return "against the next best class" if against else "against no class"
        elif key == "?":
            self._help = not self._help
        elif key == "0":
            settings.target = ()
            return "the best class"
        elif key in _CLASS_KEYS:
            return self._lock(int(key) - 1, picture)
        elif key == "s" and picture is not None:
            path = save_picture(picture, self._folder)
            return f"saved {path.name}\nin {path.parent}"
        return ""

    def _lock(self, place: int, picture: Picture | None) -> str:
        explanation = None if picture is None else picture.explanation
        if explanation is None or place >= len(explanation.predictions):
            return "no such class at the moment"
        best = explanation.predictions[place]
        if self._settings.now.targets == (best.index,):
            self._settings.target = ()
            return "the best class"
        self._settings.change(target=best.index)
        return f"the map of {best.label}"


def save_picture(picture: Picture, folder: Path) -> Path:
    """Writes a PNG named after the time and the class; never replaces a file.

    Raises:
        OSError: it cannot be written.
    """
    shown = picture.explanation.shown().label if picture.explanation is not None else ""
    label = re.sub(r"\W+", "-", shown).strip("-")
    stem = "-".join(filter(None, ("stream-cam", time.strftime("%Y%m%d-%H%M%S"), label)))
    path, number = folder / f"{stem}.png", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.png"
    write_atomic(path, _png(picture.image_bgr))
    return path


def _png(image_bgr: BgrImage) -> bytes:
    return cv2.imencode(".png", image_bgr)[1].tobytes()


def _after(choices: Sequence[T], now: T) -> T:
    return choices[(choices.index(now) + 1) % len(choices)]

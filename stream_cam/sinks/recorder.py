"""Records while `settings.recording` is on; for runs that people watch."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from stream_cam.config import RecordConfig
from stream_cam.errors import SinkError
from stream_cam.settings import Settings
from stream_cam.sinks.base import Picture, Sink, StreamInfo
from stream_cam.sinks.video.recording_names import part_path
from stream_cam.sinks.video.sink import VideoSink

logger = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.25
"""How soon a recording that was switched off during a pause is finished."""


class RecorderSink(Sink):
    """Writes `stream-cam-DATE-TIME.mp4` from each switching on to the next switching off.

    Its viewers are told where a recording is written, and when it is finished. A failure to write
    is logged, told to them and switches recording off; the run goes on. Pictures that were not
    written, for either reason, are `unwanted` in the report.

    Args:
        settings: of the run.
        folder: of the recordings.
        stream: the source's properties.
        record: how recordings are written.
    """

    on_demand = True
    poll_seconds = _POLL_SECONDS

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        stream: StreamInfo,
        record: RecordConfig | None = None,
    ) -> None:
        self.name = "recording on demand"
        self._settings = settings
        self._folder = folder
        self._stream, self._config = stream, record
        self._video: VideoSink | None = None
        self._file = folder
        """The recording that is written, or was last."""

    def write(self, picture: Picture) -> bool:
        written = False
        try:
            if not self._settings.now.recording:
                self.close()
            else:
                self._record(picture)
                written = True
        except SinkError as error:
            self._fail(error)
        self.unwanted += not written
        return True

    def _record(self, picture: Picture) -> None:
        if self._video is None:
            self._file = self._path()
            self._video = VideoSink(str(self._file), self._stream, self._config)
            self.name = self._video.name
            self._video.write(picture)
            self._settings.announce(f"recording {self._file.name}\nin {self._file.parent}")
            return
        self._video.write(picture)

    def poll(self) -> bool:
        if not self._settings.now.recording:
            try:
                self.close()
            except SinkError as error:
                self._fail(error)
        return True

    def _fail(self, error: SinkError) -> None:
        logger.error("%s", error)
        self._video = None
        self._settings.recording = False
        self._settings.announce(f"not recorded: {error}")

    def source_ended(self) -> None:
        if self._video is not None:
            self._video.source_ended()

    def close(self) -> None:
        video, self._video = self._video, None
        if video is not None:
            video.close()
            self._settings.announce(f"saved {self._file.name}\nin {self._file.parent}")

    def _path(self) -> Path:
        stem = f"stream-cam-{time.strftime('%Y%m%d-%H%M%S')}"
        path, number = self._folder / f"{stem}.mp4", 1
        while path.exists() or part_path(path).exists():
            number += 1
            path = self._folder / f"{stem}-{number}.mp4"
        return path

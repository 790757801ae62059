"""How frames are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stream_cam.config.values import size_hw

Deinterlace = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class CaptureConfig:
    """How frames are read."""

    queue_frames: int = 4
    """Frames that may wait between two stages when every frame is explained (files)."""
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    """Transport of RTSP streams. tcp loses nothing; some cameras offer only udp."""
    open_timeout_seconds: float = 10.0
    """How long opening a network source may take, in seconds."""
    read_timeout_seconds: float = 5.0
    """How long a camera or stream may give no frame before it is reopened, in seconds."""
    deinterlace: Deinterlace = "auto"
    """Remove the combs of interlaced video, one frame for each frame.
    auto: only for frames that are flagged as interlaced."""
    give_up_after: float | None = None
    """End the run when a camera or stream has been away for this time, in seconds.
    Default: never, but a first connection that fails for a lasting reason, such as a wrong
    password, ends it at once."""
    camera_size: str | None = None
    """Width x height to request from a webcam in pixels, such as 1280x720; default: its own."""
    camera_fps: float | None = None
    """Frames per second to request from a webcam; MJPG is chosen where it allows that."""
    poll: float | None = None
    """Fetch the picture at an http(s):// URL again after this time, in seconds.
    A picture that has not changed is no new frame."""
    ffmpeg_option: tuple[str, ...] = ()
    """An option of FFmpeg's demuxer or protocol as NAME=VALUE, such as user_agent=me;
    may be given several times. FFmpeg then opens the source itself."""

    def __post_init__(self) -> None:
        if self.queue_frames < 1:
            raise ValueError(
                f"--queue-frames is a number of frames from 1, got {self.queue_frames}"
            )
        limits = ("open_timeout_seconds", "read_timeout_seconds", "give_up_after")
        for name in (*limits, "camera_fps", "poll"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {value:g}")
        if self.camera_size is not None:
            size_hw(self.camera_size, "--camera-size", 10, 99_999)
        for option in self.ffmpeg_option:
            name, equals, _ = option.partition("=")
            if not (name and equals):
                raise ValueError(f"--ffmpeg-option is NAME=VALUE, got {name!r}")

    @property
    def ffmpeg_options(self) -> dict[str, str]:
        """Value by name; the last one wins."""
        parts = (option.partition("=") for option in self.ffmpeg_option)
        return {name: value for name, _, value in parts}

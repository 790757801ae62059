"""A part file is nobody else's while it is written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from support.recordings import FPS, times_in

from stream_cam.cli.recover import recover
from stream_cam.config import RecordConfig
from stream_cam.errors import OutputExistsError
from stream_cam.sinks import Picture, SegmentSink, StreamInfo, VideoSink, check_output
from stream_cam.sinks.video.lock import RecordingLock
from stream_cam.sources.video import VideoSource


def test_a_recording_in_progress_is_not_replaced(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    stream = StreamInfo(Fraction(FPS), False, False)
    with VideoSource(str(clip)) as source, VideoSink(str(out), stream) as sink:
        for frame in source:
            sink.write(Picture(frame.image_bgr, frame, None))
            if frame.index == 20:
                with pytest.raises(OutputExistsError, match="is being written at this moment"):
                    recover(out)
                with pytest.raises(OutputExistsError, match="is being written at this moment"):
                    check_output(str(out), overwrite=True)
                second = VideoSink(str(out), stream, overwrite=True)
                with pytest.raises(OutputExistsError, match="is being written"):
                    second.write(Picture(frame.image_bgr, frame, None))
    assert times_in(out) == times_in(clip)
    assert [entry.name for entry in tmp_path.iterdir()] == [out.name]


def test_no_warning_of_a_part_file_that_is_being_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = StreamInfo(Fraction(FPS), False, True)
    config = RecordConfig(segment="10m")
    part = tmp_path / "out-20261122T101500.part.mp4"
    part.write_bytes(b"")
    with RecordingLock(part):
        SegmentSink(str(tmp_path / "out.mp4"), live, config)
        assert not caplog.messages
    SegmentSink(str(tmp_path / "out.mp4"), live, config)
    assert "stream-cam recover" in caplog.text

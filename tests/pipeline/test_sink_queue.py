from __future__ import annotations

import numpy as np
import pytest
from support.pipeline_parts import Kept, boom
from support.videos import picture_at

from stream_cam.errors import SinkError
from stream_cam.pipeline.sink_queue import SinkQueue
from stream_cam.sinks.base import Picture


def picture(index: int, *, repeated: bool = False) -> Picture:
    made = picture_at(np.zeros((4, 4, 3), np.uint8), index)
    return Picture(made.image_bgr, made.frame, None, repeated=repeated)


def counts(sink_queue: SinkQueue) -> tuple[int, int, int, int]:
    found = sink_queue.count()
    return found.offered, found.written, found.repeated, found.dropped


def test_repeated_pictures_are_counted_apart() -> None:
    kept = Kept()
    sink_queue = SinkQueue(kept, live=True, queue_frames=4)
    sink_queue.waiting.put(picture(0))
    sink_queue.waiting.put(picture(0, repeated=True))  # takes the place of the first
    sink_queue.waiting.put(picture(1))  # takes the place of the repeated one
    sink_queue.waiting.put(picture(2))
    writing = sink_queue.write_all(0.0)
    next(writing)
    sink_queue.waiting.put(picture(2, repeated=True))
    next(writing)
    assert [each.frame.index for each in kept.pictures] == [2, 2]
    assert counts(sink_queue) == (3, 1, 1, 2)


def test_all_is_written_when_every_picture_counts() -> None:
    kept = Kept()
    sink_queue = SinkQueue(kept, live=False, queue_frames=4)
    for index in range(4):
        sink_queue.waiting.put(picture(index))
    sink_queue.waiting.close()
    assert sum(1 for _ in sink_queue.write_all(None)) == 4
    assert kept.indices == [0, 1, 2, 3]
    assert counts(sink_queue) == (4, 4, 0, 0)
    assert not sink_queue.closed


def test_picture_at_which_a_sink_fails_and_those_after_it_are_dropped() -> None:
    def on_write(picture: Picture) -> None:
        if picture.frame.index == 1:
            boom()

    sink_queue = SinkQueue(Kept(on_write=on_write), live=False, queue_frames=4)
    for index in range(4):
        sink_queue.waiting.put(picture(index))
    with pytest.raises(SinkError):
        list(sink_queue.write_all(None))
    sink_queue.waiting.abort()
    sink_queue.waiting.put(picture(4))
    assert counts(sink_queue) == (5, 1, 0, 4)


def test_viewer_who_leaves_is_noticed_with_and_without_pictures() -> None:
    leaving = SinkQueue(Kept(on_write=lambda picture: False), live=True, queue_frames=4)
    leaving.waiting.put(picture(0))
    list(leaving.write_all(None))
    assert leaving.closed
    assert counts(leaving) == (1, 1, 0, 0)

    polls = iter([True, True, False])
    waiting = SinkQueue(Kept(on_poll=lambda: next(polls)), live=True, queue_frames=4)
    assert sum(1 for _ in waiting.write_all(0.0)) == 3
    assert waiting.closed
    assert not list(polls)

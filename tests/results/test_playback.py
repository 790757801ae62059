"""Recordings in a real browser: they play, last as long as they should, and seek to the frame."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from support.browser import DEADLINE_MS, chromium
from support.recordings import FPS, SIZE_HW, annotate, killed_while_writing
from support.videos import numbered_picture, picture_at, picture_number

from stream_cam.frame import Explanation, Prediction, Region
from stream_cam.results.timeline import TimelineSink
from stream_cam.sinks import Picture, StreamInfo, VideoSink

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.needs_chromium

SEEK = """(video, seconds) => new Promise((done, failed) => {
    setTimeout(() => failed(new Error(`no picture at ${seconds} s`)), 15000);
    video.onerror = () => failed(new Error(video.error.message));
    video.requestVideoFrameCallback((_, frame) => done(frame.mediaTime));
    video.currentTime = seconds;
})"""
PLAY = """video => new Promise((done, failed) => {
    setTimeout(() => failed(new Error(`still at ${video.currentTime} s`)), 15000);
    const times = [];
    const each = (_, frame) => {
        times.push(frame.mediaTime);
        video.requestVideoFrameCallback(each);
    };
    video.requestVideoFrameCallback(each);
    video.onended = () => done({times, heard: video.webkitAudioDecodedByteCount});
    video.onerror = () => failed(new Error(video.error.message));
    video.currentTime = 0;
    video.play().catch(failed);
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(DEADLINE_MS)
    yield page
    page.close()


def opened(page: Page, path: Path) -> Locator:
    """The file in a player, as far as it must be loaded to know how long it is."""
    place = path.with_name("player.html")
    place.write_text(
        f'<!doctype html><body style="margin:0"><video src="{path.name}" preload="auto" '
        f'style="width:{SIZE_HW[1]}px;height:{SIZE_HW[0]}px"></video>'
    )
    page.goto(place.as_uri())
    video = page.locator("video")
    page.wait_for_function("() => document.querySelector('video').readyState >= 2")
    return video


def shown(video: Locator) -> int:
    """The number of the picture that can be seen."""
    image = cv2.imdecode(np.frombuffer(video.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return picture_number(np.asarray(image, np.uint8))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", None), (".mp4", "av1"), (".mov", None), (".mkv", None), (".webm", None)],
)
def test_a_recording_lasts_seeks_and_sounds_as_its_source(
    page: Page, clip: Path, tmp_path: Path, suffix: str, codec: Any
) -> None:
    out = tmp_path / f"out{suffix}"
    times = annotate(clip, out, codec=codec)
    video = opened(page, out)
    assert video.evaluate("video => video.duration") == pytest.approx(3.5, abs=0.06)  # the sound's
    for number in (16, 3, 27):
        at = video.evaluate(SEEK, (number + 0.5) / FPS)
        assert at == pytest.approx(number / FPS, abs=2e-3)
        assert shown(video) == number % 14
    played = video.evaluate(PLAY)
    assert played["heard"] > 0
    seen = np.array(played["times"])
    assert (np.diff(seen) >= 0).all()
    assert seen[-1] == pytest.approx(float(times[-1]), abs=2e-3)
    # A browser may skip frames of a busy machine, but shows none that is not in the file.
    assert len(set(seen)) >= 5
    assert np.abs(seen[:, None] - np.array(times, float)).min(1).max() < 2e-3


def test_variable_rate_keeps_each_picture_as_long_as_it_was(page: Page, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    ticks = [0, 5, 6, 30, 31, 60]  # twelfths of a second
    with VideoSink(str(out), StreamInfo(Fraction(12), False, False)) as sink:
        for number, tick in enumerate(ticks):
            sink.write(picture_at(numbered_picture(number, SIZE_HW), tick, Fraction(1, 12)))
    video = opened(page, out)
    assert video.evaluate("video => video.duration") == pytest.approx(61 / 12, abs=0.01)
    for tick in (2, 5, 20, 30, 45, 60):
        video.evaluate(SEEK, (tick + 0.5) / 12)
        assert shown(video) == max(n for n, begin in enumerate(ticks) if begin <= tick)


def test_recording_plays_after_a_kill_before_it_is_recovered(page: Page, tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "out.mp4", 60)
    video = opened(page, tmp_path / "out.part.mp4")
    video.evaluate(SEEK, 5.5 / 25)
    assert shown(video) == 5


def test_links_of_a_timeline_open_the_recording_at_the_moment(page: Page, tmp_path: Path) -> None:
    with (
        VideoSink(str(tmp_path / "out.mp4"), StreamInfo(Fraction(FPS), False, False)) as video,
        TimelineSink(tmp_path / "t.html", "a", tmp_path / "out.mp4") as timeline,
    ):
        for number in range(20):
            picture = picture_at(numbered_picture(number, SIZE_HW), 50 + number)
            video.write(picture)
            shown_class = Prediction("dog" if number >= 13 else "cat", 0, 0.9)
            explanation = Explanation(
                logits=np.zeros(2, np.float32),
                predictions=(shown_class,),
                targets=(shown_class,),
                cams=np.zeros((1, 7, 7), np.float32),
                region=Region.whole(SIZE_HW),
                frame_size_hw=SIZE_HW,
                frame_index=number,
            )
            timeline.write(Picture(picture.image_bgr, picture.frame, explanation))
    page.goto((tmp_path / "t.html").as_uri())
    page.locator("td a").nth(1).click()
    page.wait_for_function("() => document.querySelector('video')?.readyState >= 2")
    # It plays on from there, to its end.
    assert 1.3 <= page.locator("video").evaluate("video => video.currentTime") <= 2.0


def test_the_demo_plays(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stream_cam.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--seconds", "2", "--size", "320x180", "--engine", "eager"]) == 0
    video = opened(page, tmp_path / "demo.mp4")
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [320, 180]
    assert video.evaluate("video => video.duration") == pytest.approx(2.0, abs=0.04)

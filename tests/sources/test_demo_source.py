"""The synthetic camera: its URI's options, and the contents of its frames."""

import threading
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from stream_cam.errors import SourceError, UsageError
from stream_cam.frame import BgrImage
from stream_cam.sources.demo.outlines import SHAPE_NAMES
from stream_cam.sources.demo.scene import Scene
from stream_cam.sources.demo.source import DemoSource, parse_demo_uri

SMALL = "demo://shapes?size=320x180"


def test_uri_without_parameters_gives_the_defaults() -> None:
    options = parse_demo_uri("demo://shapes")
    assert (options.width_px, options.height_px) == (1280, 720)
    assert options.fps == Fraction(30)
    assert (options.seconds, options.seed, options.live) == (10, 0, False)
    assert options.n_frames == 300


def test_uri_parameters_are_read() -> None:
    options = parse_demo_uri("demo://shapes?size=641x359&fps=30000/1001&seconds=2.5&seed=7&live=1")
    assert (options.width_px, options.height_px) == (641, 359)
    assert options.fps == Fraction(30000, 1001)
    assert (options.seconds, options.seed, options.live) == (2.5, 7, True)
    assert options.n_frames == 75


def test_live_without_seconds_has_no_end() -> None:
    assert parse_demo_uri("demo://shapes?live=1").n_frames is None


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("demo://shape", "shapes"),
        ("demo://", "shapes"),
        ("demo://shapes?sise=64x64", "size"),
        ("demo://shapes?size=640", "WIDTHxHEIGHT"),
        ("demo://shapes?size=640x", "WIDTHxHEIGHT"),
        ("demo://shapes?size=-64x64", "WIDTHxHEIGHT"),
        ("demo://shapes?size=32x32", "64 to 7680"),
        ("demo://shapes?size=99999x720", "64 to 7680"),
        ("demo://shapes?fps=0", "1..240"),
        ("demo://shapes?fps=1/0", "must be a number"),
        ("demo://shapes?fps=fast", "'fast'"),
        ("demo://shapes?fps=nan", "must be a number"),
        ("demo://shapes?seconds=0", "above 0"),
        ("demo://shapes?seconds=-1", "0..86400"),
        ("demo://shapes?seconds=1e9", "0..86400"),
        ("demo://shapes?seed=-1", "whole number"),
        ("demo://shapes?seed=1.5", "whole number"),
        ("demo://shapes?live=yes", "0 or 1"),
        ("demo://shapes?still=yes", "still must be 0 or 1"),
    ],
)
def test_wrong_uri_names_the_allowed_values(uri: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        DemoSource(uri)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_info_is_true_of_the_frames() -> None:
    with DemoSource(SMALL + "&fps=25&seconds=1") as source:
        info = source.info
        frames = list(source)
    assert info.n_frames == len(frames) == 25
    assert info.size_hw == (180, 320)
    assert info.fps == 25
    assert info.duration_seconds == 1
    assert not info.live
    for number, frame in enumerate(frames):
        assert frame.index == number
        assert frame.image_bgr.shape == (180, 320, 3)
        assert frame.image_bgr.dtype == np.uint8
        assert frame.pts * frame.time_base == Fraction(number, 25)


def test_same_uri_gives_the_same_pixels_and_another_seed_others() -> None:
    def frames(seed: int) -> list[BgrImage]:
        with DemoSource(f"{SMALL}&seconds=0.5&seed={seed}") as source:
            return [frame.image_bgr for frame in source]

    first, again, other = frames(1), frames(1), frames(2)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))


def test_still_scene_differs_by_its_noise_alone() -> None:
    with DemoSource(SMALL + "&fps=2&seconds=4&still=1") as source:
        frames = list(source)
    first = frames[0]
    assert first.truth
    assert [frame.pts_seconds for frame in frames] == [number / 2 for number in range(8)]
    for frame in frames[1:]:
        assert frame.truth == first.truth
        change = np.abs(frame.image_bgr.astype(int) - first.image_bgr)
        assert 0 < change.mean() < 5
        assert change.max() <= 2 * 9


def test_frame_depends_on_its_number_alone() -> None:
    forwards, alone = Scene(320, 180, 4), Scene(320, 180, 4)
    for number in range(91):
        image, truth = forwards.frame(number, number / 30)
    last_image, last_truth = alone.frame(90, 3.0)
    np.testing.assert_array_equal(image, last_image)
    assert truth == last_truth


@pytest.mark.parametrize("seed", [0, 1])
def test_all_ten_shapes_pass_in_ten_times_a_shapes_time(seed: int) -> None:
    scene = Scene(160, 120, seed)
    labels = [truth.label for n in range(165) for truth in scene.frame(n, n / 10)[1]]
    assert set(labels) == set(SHAPE_NAMES)
    changes = [a for a, b in zip(labels, [*labels[1:], ""], strict=True) if a != b]
    assert len(changes) == 10


@pytest.mark.parametrize("size", [(1280, 720), (360, 640), (64, 64)])
def test_box_lies_inside_the_frame_and_around_the_shape(size: tuple[int, int]) -> None:
    width, height = size
    scene = Scene(width, height, 5)
    for second in np.arange(0.15, 20, 0.97):
        image, truth = scene.frame(3, second)
        empty = cv2.add(scene._scenery, _noise_of(scene, 3))
        changed = (np.abs(image.astype(int) - empty).max(axis=2) > 45).astype(np.uint8)
        if not truth:
            assert not changed.any()
            continue
        x0, y0, x1, y1 = truth[0].box_xyxy
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert 0.15 * min(width, height) < max(x1 - x0, y1 - y0)
        changed[int(y0) : int(y1), int(x0) : int(x1)] = 0
        # Only the soft shadow may reach out of the box, and it is faint.
        assert changed.mean() < 0.01


def _noise_of(scene: Scene, number: int) -> BgrImage:
    dx, dy = (number * 7919 + 13) % 61, (number * 104_729) % 61
    height, width = scene._scenery.shape[:2]
    return scene._noise[dy : dy + height, dx : dx + width]


def test_shape_moves_smoothly_and_frames_differ_by_noise() -> None:
    scene = Scene(640, 360, 0)
    centres, frames = [], []
    for number in range(6, 45):
        image, truth = scene.frame(number, number / 30)
        x0, y0, x1, y1 = truth[0].box_xyxy
        centres.append(((x0 + x1) / 2, (y0 + y1) / 2))
        frames.append(image)
    steps = np.hypot(*np.diff(np.array(centres), axis=0).T)
    assert steps.max() < 0.05 * 640
    assert steps.sum() > 5
    assert (frames[0][:20, :20] != frames[1][:20, :20]).any()


def test_gap_between_two_shapes_is_nothing() -> None:
    assert Scene(160, 120, 0).frame(49, 49 / 30)[1] == ()


def test_iterating_a_closed_source_says_so() -> None:
    with pytest.raises(SourceError, match="not open"):
        next(iter(DemoSource(SMALL)))


def test_live_source_keeps_time_and_skips_late_frames() -> None:
    with DemoSource(SMALL + "&fps=20&seconds=1&live=1") as source:
        assert source.info.live
        started = time.monotonic()
        stamps = []
        for frame in source:
            stamps.append(frame.pts)
            if len(stamps) == 3:
                # A consumer that is late: the source's clock goes on.
                threading.Event().wait(0.3)
        took = time.monotonic() - started
    assert 0.9 <= took < 3
    assert stamps == sorted(set(stamps))
    assert stamps[3] - stamps[2] >= 6
    assert stamps[-1] == 19


def test_closing_a_live_source_from_another_thread_ends_it() -> None:
    with DemoSource(SMALL + "&fps=1&live=1") as source:
        frames = iter(source)
        next(frames)
        timer = threading.Timer(0.1, source.close)
        timer.start()
        started = time.monotonic()
        assert next(frames, None) is None
        assert time.monotonic() - started < 0.9
        timer.join()

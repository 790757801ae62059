"""How calm maps become with `--smooth`, and how late they then follow moving things.

Three scenes of the demo camera, with the demo model on the CPU, each with and without the filter:

- still: nothing moves but the sensor's noise. Flicker is the mean absolute change from frame to
  frame of the shown map's cells, 8×8, scaled to 0..1 as they are drawn, after the first second.
- jump: after one second a still shape is elsewhere at once, clear of where it was. How long until
  the map's peak is in the shape's box, and stays there.
- moving: the ten shapes drift by. How often the peak is in the shape's box, and by how much the
  filtered maps are late: the delay at which they are most like the unfiltered ones.

All times are scene times: the figures are those of the filter, not of the machine.

    python scripts/bench_flicker.py [--smooth 0.3] [--size 640x360] [--json F]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from stream_cam.cam.cpu import scale_cam
from stream_cam.cam.steady import SteadyMaps
from stream_cam.config import CaptureConfig, LookConfig
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import Explanation, FloatArray, Frame, Truth
from stream_cam.sources import open_source
from stream_cam.sources.demo.scene import SHAPE_SECONDS, Scene

"""(n, 2): x and y in frame pixels."""

WEIGHTS = "demo"
STILL_FPS = (10, 30, 60)
MOVING_FPS = 30
JUMP_SECONDS = 1.0
SEEDS = (0, 1, 2)
WARM_UP_SECONDS = 1.0
JUMP_FROM_TO_SECONDS = 0.3, 1.35
"""Two moments of a shape's turn: whole in both, and as far apart as its way is long."""
SHAPES_A_SEED = 10
_LONGEST_DELAY_SECONDS = 0.6


@dataclass(frozen=True)
class Seen:
    """One frame without its picture: its time, its true shape, and its explanation."""

    seconds: float
    truth: Truth | None
    explanation: Explanation


def main() -> None:
    options = _options()
    explainer = Explainer.load("resnet18", weights=WEIGHTS, device="cpu")
    result = {
        "weights": WEIGHTS,
        "sha256": explainer.weights.sha256,
        "smooth_seconds": options.smooth,
        "size": options.size,
        "seeds": SEEDS,
        "still": [
            {"fps": fps, **still(explainer, options.size, fps, options.smooth)} for fps in STILL_FPS
        ],
        "jump": jumps(explainer, options.size, options.smooth),
        "moving": moving(explainer, options.size, options.smooth),
    }
    _print(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def still(
    explainer: Explainer, size: str, fps: int, smooth_seconds: float, seconds: float = 4.0
) -> dict[str, float]:
    """Flicker of the raw and of the filtered maps of a still scene, means over the seeds."""
    raw, smooth = [], []
    for seed in SEEDS:
        uri = f"demo://shapes?size={size}&fps={fps}&seconds={seconds}&seed={seed}&still=1"
        seen = explained(explainer, frames_of(uri))
        raw.append(flicker(seen))
        smooth.append(flicker(steadied(seen, smooth_seconds)))
    before, after = float(np.mean(raw)), float(np.mean(smooth))
    return {"raw": before, "smooth": after, "ratio": before / after}


def jumps(explainer: Explainer, size: str, smooth_seconds: float) -> dict[str, Any]:
    """Seconds from a jump until the peak is on the shape for good, for each shape that jumps far.

    Where the network itself never points at the shape, there is nothing to follow.
    """
    raw, smooth = [], []
    width, height = map(int, size.split("x"))
    for seed in SEEDS:
        scene = Scene(width, height, seed)
        for turn in range(SHAPES_A_SEED):
            if not is_clear(scene, turn):
                continue
            seen = explained(explainer, jump_frames(scene, turn))
            raw.append(caught_seconds(seen))
            smooth.append(caught_seconds(steadied(seen, smooth_seconds)))
    found = np.isfinite(raw)
    raw, smooth = list(np.array(raw)[found]), list(np.array(smooth)[found])
    return {
        "scenes": len(found),
        "found_raw": int(found.sum()),
        "raw_median_seconds": float(np.median(raw)),
        "raw_longest_seconds": float(np.max(raw)),
        "smooth_median_seconds": float(np.median(smooth)),
        "smooth_longest_seconds": float(np.max(smooth)),
    }


def moving(
    explainer: Explainer, size: str, smooth_seconds: float, n_shapes: int = SHAPES_A_SEED
) -> dict[str, Any]:
    """How often the peak is on a moving shape and by how much it is late, over the seeds."""
    seen: list[list[Seen]] = []
    seconds = n_shapes * SHAPE_SECONDS
    for seed in SEEDS:
        uri = f"demo://shapes?size={size}&fps={MOVING_FPS}&seconds={seconds}&seed={seed}"
        seen.append(explained(explainer, frames_of(uri)))
    smooth = [steadied(run, smooth_seconds) for run in seen]
    return {
        "fps": MOVING_FPS,
        "frames": sum(one.truth is not None for run in seen for one in run),
        "raw_on_shape": on_shape(seen),
        "smooth_on_shape": on_shape(smooth),
        "raw_delay_seconds": delay_seconds(seen, seen),
        "smooth_delay_seconds": delay_seconds(smooth, seen),
    }


def frames_of(uri: str) -> Iterator[Frame]:
    with open_source(uri, CaptureConfig()) as source:
        yield from source


def jump_frames(scene: Scene, turn: int) -> Iterator[Frame]:
    """Two seconds: a shape stands still, and in the middle of them is elsewhere."""
    before, after = (SHAPE_SECONDS * turn + into for into in JUMP_FROM_TO_SECONDS)
    for tick in range(round(2 * JUMP_SECONDS * MOVING_FPS)):
        image, truth = scene.frame(tick, before if tick < JUMP_SECONDS * MOVING_FPS else after)
        yield Frame(image, tick, tick, Fraction(1, MOVING_FPS), time.monotonic_ns(), truth)


def explained(explainer: Explainer, frames: Iterable[Frame]) -> list[Seen]:
    return [
        Seen(frame.pts_seconds, frame.truth[0] if frame.truth else None, explainer.explain(frame))
        for frame in frames
    ]


def steadied(seen: Sequence[Seen], smooth_seconds: float) -> list[Seen]:
    """The same frames with filtered maps."""
    steady, look = SteadyMaps(), LookConfig(smooth=smooth_seconds)
    return [replace(one, explanation=steady.update(one.explanation, look)) for one in seen]


def heat(explanation: Explanation) -> FloatArray:
    """The shown map, (h, w) float32 in 0..1, as it is drawn."""
    ranges = explanation.ranges
    cold_hot = None if ranges is None else (float(ranges[0][0]), float(ranges[0][1]))
    return scale_cam(explanation.cams[0], cold_hot=cold_hot)


def flicker(seen: Sequence[Seen]) -> float:
    """Mean absolute change of a cell from frame to frame, in 0..1, after the warming up."""
    maps = [heat(one.explanation) for one in seen if one.seconds >= WARM_UP_SECONDS]
    return float(np.mean([np.abs(b - a).mean() for a, b in pairwise(maps)]))


def caught_seconds(seen: Sequence[Seen]) -> float:
    """Seconds from the jump until the peak is in the shape's box for good; infinite: never."""
    after = [one for one in seen if one.seconds >= JUMP_SECONDS]
    missed = [number for number, one in enumerate(after) if not _is_hit(one)]
    first = missed[-1] + 1 if missed else 0
    return after[first].seconds - JUMP_SECONDS if first < len(after) else float("inf")


def on_shape(runs: Sequence[Sequence[Seen]]) -> float:
    """Share of the frames with a shape whose map's peak is in the shape's box."""
    hits = [_is_hit(one) for run in runs for one in run if one.truth is not None]
    return float(np.mean(hits))


def delay_seconds(runs: Sequence[Sequence[Seen]], raw: Sequence[Sequence[Seen]]) -> float:
    """How late maps are: the delay at which they differ least from the raw ones before them."""
    shapes = [_maps(shape) for run in runs for shape in _by_shape(run)]
    sources = [_maps(shape) for run in raw for shape in _by_shape(run)]
    most = round(_LONGEST_DELAY_SECONDS * MOVING_FPS)
    apart = [
        np.mean(
            [
                np.abs(maps[most:] - before[most - late : len(before) - late]).mean()
                for maps, before in zip(shapes, sources, strict=True)
            ]
        )
        for late in range(most + 1)
    ]
    return int(np.argmin(apart)) / MOVING_FPS


def _maps(seen: Sequence[Seen]) -> FloatArray:
    """The shown maps of some frames, (frames, h, w) in 0..1."""
    return np.stack([heat(one.explanation) for one in seen])


def _by_shape(run: Sequence[Seen]) -> list[list[Seen]]:
    """The frames of each shape's turn; a gap without a shape lies between them."""
    shapes: list[list[Seen]] = [[]]
    for one in run:
        if one.truth is not None:
            shapes[-1].append(one)
        elif shapes[-1]:
            shapes.append([])
    return [shape for shape in shapes if shape]


def _is_hit(one: Seen) -> bool:
    if one.truth is None:
        return False
    left, top, right, bottom = one.truth.box_xyxy
    x, y = one.explanation.peak_xy()
    return left <= x <= right and top <= y <= bottom


def is_clear(scene: Scene, turn: int) -> bool:
    """Whether the shape's boxes before and after the jump do not touch."""
    moments = (SHAPE_SECONDS * turn + into for into in JUMP_FROM_TO_SECONDS)
    (one,), (other,) = (scene.frame(0, moment)[1] for moment in moments)
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = one.box_xyxy, other.box_xyxy
    return ax1 < bx0 or bx1 < ax0 or ay1 < by0 or by1 < ay0


def _print(result: dict[str, Any]) -> None:
    console = Console()
    console.print(f"--smooth {result['smooth_seconds']:g}, {result['size']}, demo model")
    table = Table(title="flicker of a still scene: mean change of a cell, heat 0..1")
    for column in ("frames/s", "raw", "smooth", "ratio"):
        table.add_column(column, justify="right")
    for row in result["still"]:
        table.add_row(
            f"{row['fps']}", f"{row['raw']:.5f}", f"{row['smooth']:.5f}", f"{row['ratio']:.1f}"
        )
    console.print(table)
    jump, moving = result["jump"], result["moving"]
    table = Table(title=f"the peak behind a jump ({jump['found_raw']} scenes) and a moving shape")
    for column in ("", "raw", "smooth"):
        table.add_column(column, justify="right" if column else "left")
    for title, source, key, form in (
        ("jump, median s", jump, "median_seconds", ".3f"),
        ("jump, longest s", jump, "longest_seconds", ".3f"),
        ("moving, peak on the shape", moving, "on_shape", ".1%"),
        ("moving, delay s", moving, "delay_seconds", ".3f"),
    ):
        table.add_row(title, *(format(source[f"{kind}_{key}"], form) for kind in ("raw", "smooth")))
    console.print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--smooth", type=float, default=0.3, help="time constant in seconds")
    parser.add_argument("--size", default="640x360", help="width x height of the frames")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


if __name__ == "__main__":
    main()

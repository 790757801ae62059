"""Does the heat lie on the object? The demo's scene, live, with a slowed network, by `--sync`.

    python scripts/bench_sync.py [--seconds 12] [--network-ms 50 100 200 400] [--json F]

The scene runs at 30 frames/s. The network really runs, and its answer is held back until so many
milliseconds have passed. A picture is right if its map's peak is inside the true box of the object;
a picture without a map is not. Pictures of the empty scene, between two objects, are not judged.
The delay is from a frame's capture to the sink. The first two seconds are not counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stream_cam.config import LookConfig, ModelConfig, SyncName  # noqa: E402
from stream_cam.explain.explainer import Explainer  # noqa: E402
from stream_cam.frame import BgrImage, Explanation, Frame  # noqa: E402
from stream_cam.pipeline.pipeline import Pipeline  # noqa: E402
from stream_cam.settings import Settings  # noqa: E402
from stream_cam.sinks.base import Picture, Sink  # noqa: E402
from stream_cam.sources import open_source  # noqa: E402
from stream_cam.targets import Target  # noqa: E402

FPS = 30
SKIPPED_SECONDS = 2.0
_FINER = 8
SYNCS: tuple[SyncName, ...] = ("auto", "matched", "newest")


class SlowedExplainer(Explainer):
    """Answers after `seconds`, however fast the network is."""

    seconds = 0.0

    def explain(
        self,
        frame: BgrImage | Frame,
        target: Target | Sequence[Target] | None = None,
        *,
        n_maps: int | None = None,
        keep_features: bool = False,
        against: Target | Sequence[Target] | None = None,
        against_weight: float = 1.0,
    ) -> Explanation:
        until = time.monotonic() + self.seconds
        explanation = super().explain(
            frame,
            target,
            n_maps=n_maps,
            keep_features=keep_features,
            against=against,
            against_weight=against_weight,
        )
        threading.Event().wait(max(0.0, until - time.monotonic()))
        return explanation


class Judge(Sink):
    """Holds each picture's map against the frame's true box."""

    name = "judge"

    def __init__(self) -> None:
        self.right: list[bool] = []
        self.delays_ms: list[float] = []
        self.times: list[float] = []

    def write(self, picture: Picture) -> bool:
        now_ns = time.monotonic_ns()
        self.times.append(now_ns / 1e9)
        if self.times[-1] - self.times[0] >= SKIPPED_SECONDS:
            self.delays_ms.append((now_ns - picture.frame.captured_ns) / 1e6)
            if picture.frame.truth:
                self.right.append(is_right(picture))
        return True


def is_right(picture: Picture) -> bool:
    if picture.explanation is None:
        return False
    x, y = peak_xy(picture.explanation)
    boxes = [truth.box_xyxy for truth in picture.frame.truth]
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes)


def peak_xy(explanation: Explanation) -> tuple[float, float]:
    """Of the first map, between its cells: of the map upsampled eight times, bicubic."""
    region = explanation.region
    cam = explanation.cams[0]
    fine = cv2.resize(cam, None, fx=_FINER, fy=_FINER, interpolation=cv2.INTER_CUBIC)
    row, column = np.unravel_index(int(fine.argmax()), fine.shape)
    x = region.x0 + (column + 0.5) / fine.shape[1] * (region.x1 - region.x0)
    y = region.y0 + (row + 0.5) / fine.shape[0] * (region.y1 - region.y0)
    return float(x), float(y)


@dataclass(frozen=True)
class Figures:
    """One run's."""

    network_ms: float
    sync: str
    on_object: float
    """Share of the shown pictures."""
    fps: float
    delay_p50_ms: float
    delay_p95_ms: float
    modes: dict[str, int]
    most_waiting: int
    late: int


def measure(
    explainer: SlowedExplainer, network_ms: float, sync: SyncName, seconds: float
) -> Figures:
    explainer.seconds = network_ms / 1e3
    judge = Judge()
    uri = f"demo://shapes?live=1&fps={FPS}&seconds={seconds + SKIPPED_SECONDS:g}"
    with open_source(uri) as source:
        settings = Settings(LookConfig(sync=sync), explainer.labels)
        report = Pipeline(source, [judge], explainer, settings=settings).run()
    counted = len(judge.delays_ms)
    spent = judge.times[-1] - judge.times[-counted]
    p50, p95 = np.percentile(judge.delays_ms, [50, 95])
    shown, late, most, _ = report.sync.values()
    assert isinstance(shown, dict)
    return Figures(
        network_ms, sync, round(float(np.mean(judge.right)), 4), round((counted - 1) / spent, 2),
        round(float(p50), 1), round(float(p95), 1), shown, int(str(most)), int(str(late)),
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=12.0, help="counted, of each run")
    parser.add_argument("--network-ms", type=float, nargs="*", default=[50, 100, 200, 400])
    parser.add_argument("--sync", nargs="*", choices=SYNCS, default=["auto", "newest"])
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    explainer = SlowedExplainer.from_config(ModelConfig(weights="demo"))
    assert isinstance(explainer, SlowedExplainer)
    found = []
    print("| network | sync | heat on the object | frames/s | delay p50 | p95 |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for network_ms in options.network_ms:
        for sync in options.sync:
            one = measure(explainer, network_ms, sync, options.seconds)
            found.append(one)
            print(
                f"| {one.network_ms:g} ms | {one.sync} ({', '.join(one.modes)}) | "
                f"{one.on_object:.1%} | {one.fps:.1f} | {one.delay_p50_ms:.0f} ms | "
                f"{one.delay_p95_ms:.0f} ms |",
                flush=True,
            )
    if options.json is not None:
        about = {"machine": platform.processor() or platform.machine(), "fps": FPS}
        rows = [asdict(one) for one in found]
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

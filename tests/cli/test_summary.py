"""The lines that a run prints at its end."""

from __future__ import annotations

import pytest

from stream_cam.cli.summary import print_summary
from stream_cam.pipeline.report import Percentiles, Report


def report(n_samples: int, *, parallel: int = 1) -> Report:
    explain = Percentiles(n_samples, p50_ms=20.0, p95_ms=31.0, p99_ms=40.0, mean_ms=22.5)
    return Report(
        source="x.mp4",
        live=False,
        model="resnet18",
        weights="demo",
        weights_sha256="",
        rendered=n_samples,
        seconds=2.0,
        parallel=parallel,
        latency={"explain": explain},
    )


@pytest.mark.parametrize(
    ("n_samples", "parallel", "line"),
    [
        (1, 1, "1 frame in 2.0 s (0.5 fps) · explain mean 22.5 ms"),
        (4, 2, "4 frames in 2.0 s (2.0 fps) · explain mean 22.5 ms a frame, 2 at once"),
        (5, 1, "5 frames in 2.0 s (2.5 fps) · explain p50 20.0 ms, p95 31.0 ms"),
    ],
)
def test_percentiles_are_left_out_below_five_samples(
    capsys: pytest.CaptureFixture[str], n_samples: int, parallel: int, line: str
) -> None:
    print_summary(report(n_samples, parallel=parallel))
    assert capsys.readouterr().out == f"{line}\n"

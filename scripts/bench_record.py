"""Recording a file: `stream-cam run` beside a plain FFmpeg transcode and the network's own limit.

    python scripts/bench_record.py [--frame 1280x720 1920x1080] [--video F …] [--json F]
    python scripts/bench_record.py --memory-minutes 60 [--video F]

Both write the same file again as H.264, with the same encoder, preset and quality; FFmpeg does
nothing to the pictures. "explain alone" is the rate of the network and its preprocessing without
decoding, drawing and encoding. The second form annotates a long 720p file, made by looping, and
prints how much memory the process holds meanwhile; --memory-fps says how many frames a second the
file has, and so how long that takes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stream_cam.atomic_files import write_atomic
from stream_cam.bench.command import check_writable
from stream_cam.bench.machine import describe_machine
from stream_cam.bench.table import print_throughput
from stream_cam.bench.throughput import file_throughput, write_scenes
from stream_cam.config import ModelConfig, RecordConfig
from stream_cam.errors import BenchError, StreamCamError
from stream_cam.sinks.video.encoders import choose_encoder

WEIGHTS = "demo"
SAMPLE_SECONDS = 5.0
GROWTH = 0.02
"""More than this fraction between an early and a late part of a run is a leak."""


def main() -> int:
    options = _options()
    try:
        if options.json is not None:
            check_writable(options.json)
        if options.memory_minutes:
            found = memory_of_a_long_run(options.memory_minutes, options.memory_fps, options.video)
            failed = found["growth"] > GROWTH
        else:
            found = compare(options.frame, options.video)
            failed = False
        if options.json is not None:
            text = json.dumps({"machine": describe_machine(), **found}, indent=1)
            write_atomic(options.json, f"{text}\n".encode())
    except StreamCamError as error:
        print(f"bench_record: {error}", file=sys.stderr)
        return error.exit_code
    return int(failed)


def compare(frames: list[str], videos: list[Path]) -> dict[str, Any]:
    """Each file through `run`, through its stages alone and through FFmpeg; prints as it goes."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in frames:
            made = folder / f"scenes {size}.mp4"
            write_scenes(made, size, seconds=10)
            videos = [*videos, made]
        for video in videos:
            file = file_throughput(video, ModelConfig(weights=WEIGHTS), None)
            print_throughput(file)
            transcoded = file["frames"] / _transcode_seconds(video, folder / "transcoded.mp4")
            network = file["alone"]["explain"]["fps"]
            print(
                f"run: {file['run_fps']:.1f} frames/s; that is {file['run_fps'] / network:.0%} of "
                f"what the network allows ({network:.1f}) and {file['run_fps'] / transcoded:.0%} "
                f"of a plain FFmpeg transcode ({transcoded:.1f})\n"
            )
            rows.append(
                {**file, "transcode_fps": transcoded, "of_explain": file["run_fps"] / network}
            )
    return {"files": rows}


def _transcode_seconds(video: Path, out: Path) -> float:
    """FFmpeg's time for the same file with the encoder's settings of a recording."""
    encoding = choose_encoder("h264", RecordConfig())
    settings = [part for k, v in encoding.options.items() for part in (f"-{k}", v)]
    command = [_ffmpeg(), "-v", "error", "-nostdin", "-y", "-i", str(video)]
    command += [
        "-c:v",
        encoding.encoder,
        *settings,
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "copy",
        str(out),
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def memory_of_a_long_run(minutes: float, fps: int, videos: list[Path]) -> dict[str, Any]:
    """Annotates a looped file in its own process; returns and prints the memory of that process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short, long = folder / "short.mp4", folder / "long.mp4"
        if videos:
            short = videos[0]
        else:
            write_scenes(short, "1280x720", seconds=20, fps=fps)
        command = [_ffmpeg(), "-v", "error", "-nostdin", "-stream_loop", "-1", "-i", str(short)]
        subprocess.run([*command, "-t", str(minutes * 60), "-c", "copy", str(long)], check=True)
        run = [sys.executable, "-m", "stream_cam", "run", str(long), str(folder / "out.mp4")]
        run += ["--weights", WEIGHTS, "--quiet", "--predictions", str(folder / "out.jsonl")]
        run += ["--timeline", str(folder / "out.html"), "--sheet", str(folder / "out.png")]
        started, held = time.monotonic(), []
        with subprocess.Popen(run) as process:
            while process.poll() is None:
                held.append(_rss_mb(process.pid))
                time.sleep(SAMPLE_SECONDS)
        if process.returncode:
            raise BenchError(f"the run ended with exit code {process.returncode}")
        size_mb = (folder / "out.mp4").stat().st_size / 1e6
    held = held[:-1]  # while the file is being finished the process may be half gone
    tenth = max(1, len(held) // 10)
    early = statistics.median(held[tenth : 3 * tenth])
    late = statistics.median(held[-2 * tenth :])
    growth = late / early - 1
    took = (time.monotonic() - started) / 60
    print(
        f"{minutes:g} min of video in {took:.1f} min, {size_mb:.0f} MB written; memory: "
        f"{early:.0f} MB early, {late:.0f} MB late ({growth:+.1%}), at most {max(held):.0f} MB"
    )
    return {
        "video": videos[0].name if videos else f"drawn, 1280x720, {fps} frames/s, looped",
        "minutes": minutes,
        "took_minutes": round(took, 1),
        "rss_mb": [round(mb) for mb in held],
        "growth": growth,
    }


def _rss_mb(pid: int) -> float:
    """Memory of a process; 0 for one that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _ffmpeg() -> str:
    program = shutil.which("ffmpeg")
    if program is None:
        raise BenchError("this needs the ffmpeg program (Debian: sudo apt-get install ffmpeg)")
    return program


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--frame",
        nargs="*",
        default=["1280x720", "1920x1080"],
        help="of drawn files",
    )
    parser.add_argument("--video", type=Path, nargs="*", default=[], help="your own files")
    parser.add_argument("--memory-minutes", type=float, help="watch the memory of so long a video")
    parser.add_argument("--memory-fps", type=int, default=30, help="of that video, if it is drawn")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

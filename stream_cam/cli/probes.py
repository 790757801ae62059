"""Probes of `stream-cam doctor`: each looks at one ability of the machine.

Any probe may fail on a broken machine; doctor.py turns its exception into a finding. A library is
imported in its own probe only.
"""

from __future__ import annotations

import glob
import importlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from stream_cam._version import __version__
from stream_cam.errors import EngineError, first_line
from stream_cam.host import cpuinfo, usable_cores

Status = Literal["ok", "missing", "note"]

_PROBE_SECONDS = 3.0
"""Longest time that a program may take to answer."""
_OLDEST_PYTHON = (3, 10)
_HARDWARE_ENCODERS = ("h264_nvenc", "hevc_nvenc", "av1_nvenc")


@dataclass(frozen=True, slots=True)
class Finding:
    """One ability of the machine."""

    area: str
    status: Status
    """ok; missing: something does not work without it; note: good to know."""
    what: str
    advice: str = ""
    """The next step, with the exact command; empty if none is needed."""


Findings = Iterator[Finding]


def _python() -> Findings:
    what = f"{platform.python_version()} on {platform.system()} {platform.release()}"
    what += f" ({platform.machine()}), {usable_cores()} CPUs"
    new_enough = sys.version_info[:2] >= _OLDEST_PYTHON
    oldest = ".".join(map(str, _OLDEST_PYTHON))
    advice = "" if new_enough else f"install Python {oldest} or newer"
    yield Finding("Python", "ok" if new_enough else "missing", what, advice)
    yield Finding("stream-cam", "ok", __version__)


def _torch() -> Findings:
    for package in ("torch", "torchvision"):
        installed = _version(package)
        if installed is None:
            yield Finding(package, "missing", "not installed", f"pip install {package}")
            continue
        try:
            importlib.import_module(package)
        except Exception as error:
            yield Finding(
                package,
                "missing",
                f"{installed} cannot be imported ({first_line(error)})",
                "pip install --force-reinstall torch torchvision",
            )
            continue
        yield Finding(package, "ok", installed)


def _gpu() -> Findings:
    import torch

    if torch.cuda.is_available():
        driver = _ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        for number in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(number)
            what = f"{device.name}, compute capability {device.major}.{device.minor}, "
            what += f"{device.total_memory / 2**30:.0f} GiB"
            yield Finding("CUDA GPU", "ok", what + (f", driver {driver}" if driver else ""))
        return
    if not glob.glob("/dev/nvidia[0-9]*") and shutil.which("nvidia-smi") is None:
        yield Finding("CUDA GPU", "note", "none found; the network runs on the CPU")
    elif torch.version.cuda is None:
        yield Finding(
            "CUDA GPU",
            "missing",
            f"torch {torch.__version__} is built for CPUs only",
            "pip install --force-reinstall torch torchvision",
        )
    else:
        driver = _ask("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
        yield Finding(
            "CUDA GPU",
            "missing",
            f"torch (built for CUDA {torch.version.cuda}) cannot use {driver or 'the GPU'}",
            "run `nvidia-smi`: if it fails, install NVIDIA's driver; otherwise update it",
        )


def _tensorrt() -> Findings:
    # Without a GPU, the import of torch_tensorrt fails.
    import torch

    from stream_cam.engine.machine import installed_tensorrt

    converters = [_version(name) for name in ("torch-tensorrt", "torch-tensorrt-rtx")]
    usable = torch.cuda.is_available()
    try:
        flavour = installed_tensorrt()
        versions = flavour.versions()
    except EngineError as error:
        what, _, advice = str(error).partition(": ")
        if any(converters):
            yield Finding("TensorRT", "missing", what, advice)
        elif usable:
            yield Finding("TensorRT", "note", f"{what}; slower engines serve this GPU", advice)
        else:
            yield Finding("TensorRT", "note", f"{what}; it would need an NVIDIA GPU")
        return
    what = f"{flavour.module} {versions['tensorrt']} with {flavour.converter} "
    what += versions["torch_tensorrt"]
    if usable:
        yield Finding("TensorRT", "ok", what)
    else:
        yield Finding("TensorRT", "note", f"{what}; no GPU here that it could use")


def _triton() -> Findings:
    found = _version("triton")
    if found is None:
        yield Finding("Triton", "note", "not installed; the inductor engine needs it on a GPU")
    else:
        yield Finding("Triton", "ok", found)


def _openvino() -> Findings:
    try:
        import openvino
    except ImportError as error:
        yield Finding("OpenVINO", "missing", first_line(error), "pip install openvino")
        return
    core = openvino.Core()
    devices = ", ".join(core.available_devices) or "no device"
    yield Finding("OpenVINO", "ok", f"{_version('openvino')}, devices: {devices}")
    if "CPU" not in core.available_devices:
        return
    name = core.get_property("CPU", "FULL_DEVICE_NAME")
    can = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    flags = " ".join(cpuinfo("flags")[:1]).split()
    wanted = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    has = " ".join(flag for flag in wanted if flag in flags)
    yield Finding(
        "CPU", "ok", f"{name}: {has or 'no vector extensions known'}; OpenVINO: {' '.join(can)}"
    )
    if "BF16" in can:
        yield Finding("CPU", "note", "has bfloat16: --precision bf16 is faster here")


def _nncf() -> Findings:
    installed = _version("nncf")
    if installed is None:
        advice = "to build with --precision int8 on the CPU: pip install 'stream-cam[int8]'"
        lacking = "not installed; no int8 engines for the CPU can be built"
        yield Finding("NNCF", "note", lacking, advice)
    else:
        yield Finding("NNCF", "ok", f"{installed}: int8 engines for the CPU can be built")


def _engines() -> Findings:
    import torch

    from stream_cam.engine.backends import usable_backends
    from stream_cam.engine.store import engines_folder

    usable = [f"{name} on the CPU" for name in usable_backends("cpu")]
    if torch.cuda.is_available():
        usable = [f"{name} on the GPU" for name in usable_backends("cuda")] + usable
    yield Finding("engines", "ok", f"can run here: {', '.join(usable)}")
    folder = engines_folder()
    kept = list(folder.glob("*/manifest.json")) if folder.is_dir() else []
    size = sum(path.stat().st_size for entry in kept for path in entry.parent.iterdir())
    yield Finding("engines", "ok", f"kept in {folder}: {len(kept)}, {size / 1e6:.0f} MB")
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        advice = "export STREAM_CAM_ENGINES=<a folder of yours>: else each start compiles anew"
        yield Finding("engines", "missing", f"{existing} may not be written to", advice)


def _codecs() -> Findings:
    import av
    from av.codec import codecs_available

    from stream_cam.sinks.video.encoders import encoder_works

    if not encoder_works("libx264"):
        advice = "pip install --force-reinstall --only-binary :all: av"
        yield Finding("video", "missing", f"PyAV {av.__version__} has no libx264", advice)
    else:
        yield Finding("video", "ok", f"PyAV {av.__version__} writes H.264 (libx264)")
    others = {"HEVC": "libx265", "AV1": "libsvtav1", "VP9": "libvpx-vp9"}
    writes = [name for name, encoder in others.items() if encoder_works(encoder)]
    readers = {"H.264": "h264", "HEVC": "hevc", "VP9": "vp9", "AV1": "libdav1d", "MJPEG": "mjpeg"}
    reads = [name for name, codec in readers.items() if codec in codecs_available]
    yield Finding(
        "video",
        "ok",
        f"also writes {', '.join(writes) or 'nothing'}; reads {', '.join(reads)}",
    )
    hardware = [name for name in _HARDWARE_ENCODERS if encoder_works(name)]
    if hardware:
        yield Finding("video", "ok", f"NVENC: {', '.join(hardware)}")
    else:
        yield Finding("video", "note", "no NVENC opens here; H.264 is encoded on the CPU")


def _cameras() -> Findings:
    if sys.platform != "linux":
        yield Finding("cameras", "note", "can be listed on Linux only; try `stream-cam run 0`")
        return
    from stream_cam.sources.camera import list_cameras

    devices = list_cameras()
    if not devices:
        advice = "plug one in, or try `stream-cam demo`, which needs none"
        yield Finding("cameras", "note", "none (no /dev/video*)", advice)
    for device in devices:
        name = _text(f"/sys/class/video4linux/{Path(device).name}/name") or "unnamed"
        if os.access(device, os.R_OK | os.W_OK):
            yield Finding("cameras", "ok", f"{device}: {name}")
        else:
            advice = "add yourself to the group video: sudo usermod -aG video $USER; log in again"
            yield Finding("cameras", "missing", f"{device}: {name}: permission denied", advice)


def _display() -> Findings:
    from stream_cam.sinks.window import display_problem

    problem = display_problem()
    if problem is None:
        yield Finding("display", "ok", "windows can be opened")
    else:
        problem, _, advice = problem.partition("; ")
        yield Finding("display", "note", problem, advice)


def _weights() -> Findings:
    assets = Path(__file__).parents[1] / "assets" / "demo.safetensors"
    if assets.is_file():
        what = f"demo: shipped, {assets.stat().st_size / 1e6:.0f} MB"
        yield Finding("weights", "ok", what)
    else:
        advice = "pip install --force-reinstall stream-cam, or run scripts/train_demo.py"
        yield Finding("weights", "missing", f"demo: {assets} is not there", advice)
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    kept = sorted(folder.glob("resnet18-*.pth"))
    if kept:
        yield Finding("weights", "ok", f"imagenet for resnet18: {kept[0]}")
    else:
        yield Finding(
            "weights",
            "note",
            f"imagenet for resnet18: not in {folder}; the first use downloads 47 MB",
            "without a network: --weights demo, or copy resnet18-f37072fd.pth there",
        )


def _opencv() -> Findings:
    windowed, headless = _version("opencv-python"), _version("opencv-python-headless")
    if windowed is None and headless is None:
        yield Finding("OpenCV", "missing", "not installed", "pip install opencv-python")
        return
    try:
        import cv2
    except ImportError as error:
        advice = "Debian: sudo apt-get install libgl1 libglib2.0-0; without a desktop: "
        advice += "pip install --force-reinstall --no-deps opencv-python-headless"
        yield Finding("OpenCV", "missing", f"cannot be imported ({first_line(error)})", advice)
        return
    if windowed and headless:
        yield Finding(
            "OpenCV",
            "note",
            f"opencv-python {windowed} and opencv-python-headless {headless} overwrite each "
            f"other's files; what is imported is {cv2.__version__}",
            "if windows are wanted: pip uninstall -y opencv-python-headless opencv-python && "
            "pip install opencv-python",
        )
    else:
        yield Finding("OpenCV", "ok", cv2.__version__)


def _programs() -> Findings:
    said = _ask("ffmpeg", "-version")
    if said:
        yield Finding("ffmpeg", "ok", " ".join(said.split()[:3]))
    else:
        advice = "only some tests need it: sudo apt-get install ffmpeg"
        yield Finding("ffmpeg", "note", "the program is not installed; optional", advice)


PROBES: tuple[tuple[str, Callable[[], Findings]], ...] = (
    ("Python", _python),
    ("torch", _torch),
    ("CUDA GPU", _gpu),
    ("TensorRT", _tensorrt),
    ("Triton", _triton),
    ("OpenVINO", _openvino),
    ("NNCF", _nncf),
    ("engines", _engines),
    ("weights", _weights),
    ("video", _codecs),
    ("OpenCV", _opencv),
    ("cameras", _cameras),
    ("display", _display),
    ("ffmpeg", _programs),
)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _ask(*command: str) -> str | None:
    """The first line of a program's output; None if it is not installed or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None

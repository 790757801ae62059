"""The machine that figures were measured on: processor, GPU, clocks, power, driver, versions,
load."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stream_cam.host import cpuinfo, usable_cores
from stream_cam.pipeline.report import versions

Ask = Callable[[list[str]], str]
"""Runs a program with these arguments; returns its output, or "" where it cannot run."""

PACKAGES = (
    *("torch", "torchvision", "triton", "openvino", "nncf", "torch-tensorrt", "torch-tensorrt-rtx"),
    *("tensorrt", "tensorrt-rtx", "av", "opencv-python-headless", "grad-cam", "torchcam"),
)
_PROGRAM_SECONDS = 5.0
_BUSY = 0.5
"""Load per core. Starting the benchmark causes some by itself."""
_GPU_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "pstate": "pstate",
    "sm_mhz": "clocks.sm",
    "sm_max_mhz": "clocks.max.sm",
    "memory_mhz": "clocks.mem",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
    "temperature_c": "temperature.gpu",
    "memory_mib": "memory.total",
}


def describe_machine() -> dict[str, Any]:
    """The machine's state before anything is measured."""
    import torch

    found: dict[str, Any] = {
        "time_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cpu_cores": usable_cores(),
        "cpu_mhz": cpu_mhz(),
        "cpu_governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch_threads": torch.get_num_threads(),
        "system": platform.platform(),
        "gpus": gpus(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "versions": versions(PACKAGES),
    }
    return found


def add_state_after(machine: dict[str, Any]) -> None:
    """Adds the clocks, power and load right after the measurement."""
    machine["after"] = {
        "cpu_mhz": cpu_mhz(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpus": gpus(),
    }


def library_threads() -> dict[str, str]:
    """How many threads the libraries compute on. An engine with its own threads is listed
    elsewhere."""
    import cv2
    import torch

    return {"torch": str(torch.get_num_threads()), "OpenCV": str(cv2.getNumThreads())}


def core_pinning() -> str:
    """The cores that this process may run on, and whether those are all."""
    n_cores = os.cpu_count() or 1
    if not hasattr(os, "sched_getaffinity"):
        return f"not pinned, {n_cores} cores"
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == n_cores:
        return f"not pinned, {n_cores} cores"
    return f"pinned to cores {', '.join(map(str, cores))} of {n_cores}"


def cpu_name() -> str:
    """The processor's name, or its architecture where the name is unknown."""
    return next(iter(cpuinfo("model name")), "") or platform.processor() or platform.machine()


def cpu_mhz() -> float | None:
    """The fastest core's clock now; None where it is unknown."""
    return max(map(float, cpuinfo("cpu MHz")), default=None)


def gpus(ask: Ask | None = None) -> list[dict[str, Any]]:
    """The present state of each NVIDIA GPU, from nvidia-smi; numbers where possible.

    Without nvidia-smi, the facts that PyTorch has about its GPUs.
    """
    if ask is None:
        ask = _stdout_of if shutil.which("nvidia-smi") else lambda command: ""
    return _gpus_of_nvidia_smi(ask) or _gpus_of_torch()


def _gpus_of_torch() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    known = (torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count()))
    return [
        {
            "name": one.name,
            "compute_capability": f"{one.major}.{one.minor}",
            "multiprocessors": one.multi_processor_count,
            "memory_mib": one.total_memory >> 20,
        }
        for one in known
    ]


def _gpus_of_nvidia_smi(ask: Ask) -> list[dict[str, Any]]:
    lines = ask(
        [
            "nvidia-smi",
            f"--query-gpu={','.join(_GPU_FIELDS.values())}",
            "--format=csv,noheader,nounits",
        ]
    ).splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    return [
        dict(zip(_GPU_FIELDS, map(_number_or_text, row), strict=True))
        for row in rows
        if len(row) == len(_GPU_FIELDS)
    ]


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """The machine as lines of text."""
    clock = f" at {machine['cpu_mhz']:.0f} MHz" if machine.get("cpu_mhz") else ""
    lines = [
        f"CPU: {machine['cpu']}, cores: {machine['cpu_cores']}{clock}, load {machine['load']}, "
        f"threads of torch: {machine['torch_threads']}"
    ]
    after = (machine.get("after") or {}).get("gpus") or []
    for number, gpu in enumerate(machine["gpus"]):
        if "driver" not in gpu:
            lines.append(_torch_gpu_line(gpu))
            continue
        busy = after[number] if number < len(after) else gpu
        lines.append(
            f"GPU: {gpu['name']}, driver {gpu['driver']}, SM {gpu['sm_mhz']} MHz before and "
            f"{busy['sm_mhz']} after (at most {gpu['sm_max_mhz']}), memory {busy['memory_mhz']} "
            f"MHz, {busy['power_w']} of {gpu['power_limit_w']} W, {busy['temperature_c']} °C"
        )
    if not machine["gpus"]:
        lines.append("GPU: none that nvidia-smi or PyTorch tells of")
    packages = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [*lines, f"versions: {packages}", f"system: {machine['system']}, {machine['time_utc']}"]


def _torch_gpu_line(gpu: dict[str, Any]) -> str:
    facts = [
        f"{what} {gpu[name]}{unit}"
        for what, name, unit in (
            ("compute capability", "compute_capability", ""),
            ("multiprocessors:", "multiprocessors", ""),
            ("memory:", "memory_mib", " MiB"),
        )
        if name in gpu
    ]
    return ", ".join([f"GPU: {gpu['name']}", *facts, "clocks and driver not known (no nvidia-smi)"])


def busy_warning(machine: dict[str, Any]) -> str:
    """A warning that other work ran before the measurement; empty if not, or unknown."""
    load, cores = machine.get("load"), machine.get("cpu_cores")
    if not isinstance(load, int | float) or not isinstance(cores, int) or load <= _BUSY * cores:
        return ""
    return f"the machine was busy: a load of {load:g} before the start, on {cores} cores"


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _stdout_of(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROGRAM_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout

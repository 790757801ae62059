"""The device, the precision and the engines that serve a request, best first."""

from __future__ import annotations

import logging
from functools import cache
from typing import get_args

from stream_cam.config import Device, EngineName, Precision
from stream_cam.engine.backends import BACKENDS, Backend, find_backend
from stream_cam.engine.machine import has_cuda_driver
from stream_cam.engine.options import EngineOptions
from stream_cam.errors import EngineError, unknown_name

logger = logging.getLogger(__name__)


def select_device(options: EngineOptions) -> str:
    """cpu or cuda:N.

    Raises:
        UsageError: an option has an unknown name.
        EngineError: the engine does not run on that device, or this machine has none.
    """
    engine, device = options.engine, options.device
    for kind, got, known in (
        ("engine", engine, get_args(EngineName)),
        ("device", device, get_args(Device)),
        ("precision", options.precision, get_args(Precision)),
    ):
        if got not in known:
            raise unknown_name(kind, got, known)
    kinds = ("cuda", "cpu") if engine == "auto" else tuple(find_backend(engine).precisions)
    if device == "cuda" and "cuda" not in kinds:
        raise EngineError(
            f"the {engine} engine runs on the CPU: give --device cpu or --engine eager"
        )
    if device == "cpu" and "cpu" not in kinds:
        raise EngineError(
            f"the {engine} engine runs on GPUs: give --device cuda, or --engine openvino"
        )
    if device == "cpu" or "cuda" not in kinds:
        return "cpu"
    return _gpu_if_usable(options, needed="cpu" not in kinds)


def select_precisions(precision: Precision, device: str) -> tuple[Precision, ...]:
    """The precisions to try on a device, best first."""
    if precision != "auto":
        return (precision,)
    return ("fp32",) if device == "cpu" else ("fp16", "fp32")


def select_backends(engine: EngineName, device: str, precision: Precision) -> tuple[Backend, ...]:
    """The backends to try on a device, fastest first.

    Raises:
        EngineError: none of them has the precision there.
    """
    kind = device.partition(":")[0]
    asked = [
        backend
        for backend in BACKENDS
        if kind in backend.precisions and engine in ("auto", backend.name)
    ]
    able = tuple(backend for backend in asked if precision in backend.precisions[kind])
    if not able:
        first = asked[0]
        # An int8 engine has to be built before, from frames.
        has = " or ".join(one for one in first.precisions[kind] if one != "int8")
        raise EngineError(
            f"the {first.name} engine has no {precision} on {device}: give --precision {has}"
            f"{_alternatives(precision, kind)}"
        )
    return able


def _alternatives(precision: Precision, kind: str) -> str:
    """The engines that have a precision, for a message."""
    places = [
        f", or --engine {backend.name}{' --device cpu' if place == 'cpu' else ''}"
        for place in dict.fromkeys((kind, "cpu"))
        for backend in BACKENDS
        if precision in backend.precisions.get(place, ())
    ]
    return "".join(places) or f"; {precision} is for GPUs"


def _gpu_if_usable(options: EngineOptions, *, needed: bool) -> str:
    """cuda:N, or cpu where that will do.

    Args:
        needed: the engine runs on nothing else.
    """
    if _cuda_is_available():
        import torch

        if options.engine == options.device == "auto":
            obstacle = _gpu_obstacle(options.precision)
            if obstacle:
                _warn_once(f"{obstacle}: the GPU is not used")
                return "cpu"
        return f"cuda:{torch.cuda.current_device()}"
    if needed:
        raise EngineError(
            f"the {options.engine} engine needs an NVIDIA GPU with its driver, and none is usable "
            "here (torch.cuda.is_available() is false): give --engine openvino, or see "
            "`stream-cam doctor`"
        )
    if options.device == "cuda":
        raise EngineError(
            "no CUDA GPU is usable here (torch.cuda.is_available() is false): give --device cpu, "
            "or see `stream-cam doctor`"
        )
    return "cpu"


def _cuda_is_available() -> bool:
    if not has_cuda_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _gpu_obstacle(precision: Precision) -> str:
    """The reason why this machine's GPU has no engine in a precision; empty if it has one."""
    if precision == "auto":
        return ""
    able = [backend for backend in BACKENDS if precision in backend.precisions.get("cuda", ())]
    if not able:
        return f"engines in {precision} are for CPUs"
    try:
        if precision == "int8":
            if able[0].require_int8 is not None:
                able[0].require_int8(False)
            able[0].require()
    except EngineError as error:
        return f"int8 on a GPU needs the {able[0].name} engine ({error})"
    return ""


@cache
def _warn_once(line: str) -> None:
    """Warns once, though every engine that is opened asks again."""
    logger.warning("%s", line)

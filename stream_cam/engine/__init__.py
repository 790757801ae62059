"""CamNet compiled for a device: `load_engine` takes the fastest that works here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stream_cam.config import Device, EngineName, Precision
from stream_cam.engine.base import Engine, EngineInfo, Session
from stream_cam.errors import EngineError, UsageError, unknown_name

if TYPE_CHECKING:
    from stream_cam.engine.prepare import Backend
    from stream_cam.model import CamNet

__all__ = ["Engine", "EngineInfo", "Session", "load_engine", "open_backend"]

logger = logging.getLogger(__name__)


def load_engine(
    net: CamNet,
    fingerprint: str,
    input_hw: tuple[int, int],
    *,
    name: EngineName = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    parallel: int = 1,
) -> Engine:
    """Compiles a network, or takes what was compiled before from the store.

    Args:
        net: the network, on the CPU in float32.
        fingerprint: its parameters' and its graph's, for the store (`CamNet.fingerprint`).
        input_hw: height and width of the input in pixels.
        name: which engine; `auto` falls back to the next one and logs why.
        device: `auto` takes CUDA if it is there.
        precision: `bf16` is for the openvino engine on processors that have it.
        parallel: how many frames will be explained at once: 1 for the lowest latency.

    Raises:
        EngineError: the engine asked for does not work on this machine.
    """
    place = _place(name, device, precision)
    if place == "cuda" or name == "eager":
        return _eager(net, input_hw, place)
    from stream_cam.engine.prepare import take_or_build

    try:
        backend = _openvino(net, fingerprint, input_hw, precision, parallel)
        return take_or_build(backend).engine
    except EngineError as error:
        if name == "openvino" or precision != "fp32":
            raise
        logger.warning("OpenVINO is not used (%s); falling back to the slower eager engine", error)
        return _eager(net, input_hw, place)


def open_backend(
    net: CamNet,
    fingerprint: str,
    input_hw: tuple[int, int],
    *,
    name: EngineName = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    parallel: int = 1,
) -> Backend:
    """What `load_engine` would build with, for the same arguments.

    Raises:
        UsageError: it would build nothing.
        EngineError: the engine asked for does not work on this machine.
    """
    place = _place(name, device, precision)
    if name == "eager":
        raise UsageError("the eager engine is not built: give --engine openvino, or auto")
    if place == "cuda":
        raise UsageError("on a GPU this version runs the eager engine: give --device cpu")
    return _openvino(net, fingerprint, input_hw, precision, parallel)


def _place(name: EngineName, device: Device, precision: Precision) -> str:
    """cpu or cuda, for names that are checked."""
    if name not in ("auto", "openvino", "eager"):
        raise unknown_name("engine", name, ("auto", "openvino", "eager"))
    if precision not in ("fp32", "bf16"):
        raise unknown_name("precision", precision, ("fp32", "bf16"))
    place = _resolve_device(device, name)
    if (name == "eager" or place == "cuda") and precision != "fp32":
        raise EngineError(
            f"the eager engine has no {precision}: give --precision fp32, or --engine openvino "
            "--device cpu"
        )
    return place


def _openvino(
    net: CamNet,
    fingerprint: str,
    input_hw: tuple[int, int],
    precision: Precision,
    parallel: int,
) -> Backend:
    from stream_cam.engine.openvino import OpenVinoBackend

    return OpenVinoBackend(net, fingerprint, input_hw, precision=precision, parallel=parallel)


def _eager(net: CamNet, input_hw: tuple[int, int], device: str) -> Engine:
    from stream_cam.engine.eager import EagerEngine

    return EagerEngine(net, input_hw, device)


def _resolve_device(device: Device, engine: EngineName) -> str:
    if device not in ("auto", "cpu", "cuda"):
        raise unknown_name("device", device, ("auto", "cpu", "cuda"))
    if device == "cuda" and engine == "openvino":
        raise EngineError(
            "the openvino engine runs on the CPU: give --device cpu or --engine eager"
        )
    if device == "cpu" or engine == "openvino":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise EngineError(
            "no CUDA GPU is usable here (torch.cuda.is_available() is false): give --device cpu, "
            "or see `stream-cam doctor`"
        )
    return "cpu"

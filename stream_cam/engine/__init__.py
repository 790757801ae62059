"""CamNet compiled for a device: `load_engine` takes the fastest that works here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, get_args

from stream_cam.config import Device, EngineName, Precision
from stream_cam.engine.base import Batch, Engine, EngineInfo, OnStage, Session
from stream_cam.engine.machine import installed_tensorrt
from stream_cam.errors import EngineError, GateError, UsageError, unknown_name

if TYPE_CHECKING:
    from stream_cam.engine.prepare import Backend
    from stream_cam.engine.quantize import Quantizers
    from stream_cam.model.camnet import CamNet

__all__ = [
    "Batch",
    "Engine",
    "EngineInfo",
    "OnStage",
    "Session",
    "check_engine",
    "load_engine",
    "open_backend",
]

logger = logging.getLogger(__name__)


_ORDER = {"cuda": ("tensorrt", "inductor", "eager"), "cpu": ("openvino", "eager")}
"""By the kind of device; fastest first."""
_PRECISIONS = {
    ("tensorrt", "cuda"): ("fp32", "fp16", "int8"),
    ("inductor", "cuda"): ("fp32", "fp16"),
    ("eager", "cuda"): ("fp32", "fp16"),
    ("openvino", "cpu"): ("fp32", "bf16", "int8"),
    ("eager", "cpu"): ("fp32",),
}
"""What an engine computes in, by its name and the kind of device."""


def load_engine(
    net: CamNet,
    fingerprint: str,
    input_hw: tuple[int, int],
    *,
    name: EngineName = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    parallel: int = 1,
    batch: Batch | None = None,
) -> Engine:
    """Compiles a network, or takes what was compiled before from the store.

    Args:
        net: the network, on the CPU in float32.
        fingerprint: its parameters' and its graph's, for the store (`CamNet.fingerprint`).
        input_hw: height and width of the input in pixels.
        name: which engine; `auto` takes the fastest that works here, and logs what a faster one
            lacked.
        device: `auto` takes CUDA if it is there and an engine for it has the precision.
        precision: `fp16` is for GPUs, `bf16` for OpenVINO on processors that have it, `int8` for
            OpenVINO and TensorRT with an engine that was built before; `auto` is fp16 on GPUs, or
            fp32 where the network's maps do not survive that, and fp32 on CPUs.
        parallel: how many frames will be explained at once: 1 for the lowest latency.
        batch: how many frames the network takes at once, on GPUs; default: one.

    Raises:
        EngineError: the engine asked for does not work on this machine.
    """
    place = _place(name, device, precision)
    ways = [
        (candidate, EngineRequest(net, fingerprint, input_hw, one, parallel, batch or Batch()))
        for one in _precisions(precision, place)
        for candidate in _candidates(name, place, one)
    ]
    lacking: list[str] = []
    too_coarse: Precision | None = None
    for candidate, wanted in ways[:-1]:
        if wanted.precision == too_coarse:
            continue
        try:
            engine = _load(candidate, place, wanted)
            break
        except EngineError as error:
            lacking.append(f"{candidate}: {error}")
            if isinstance(error, GateError) and precision == "auto" and wanted.precision != "fp32":
                # It is the network that does not survive it, in whatever engine.
                too_coarse = wanted.precision
    else:
        candidate, wanted = ways[-1]
        engine = _load(candidate, place, wanted)
    if lacking:
        logger.warning(
            "falling back to the slower %s engine in %s (%s)",
            candidate,
            wanted.precision,
            "; ".join(lacking),
        )
    return engine


def check_engine(
    name: EngineName,
    device: Device,
    precision: Precision,
    batch: Batch | None = None,
    *,
    quantizing: bool = False,
) -> None:
    """Find out, before anything slow, whether there is such an engine.

    Args:
        quantizing: an int8 engine is to be built.

    Raises:
        UsageError, EngineError: there is none, the machine has no such device, or what quantises
            is not installed.
    """
    place = _place(name, device, precision)
    for one in _precisions(precision, place):
        first = _candidates(name, place, one)[0]
        if first == "openvino":
            _require_single(batch)
        if one != "int8":
            continue
        if first == "tensorrt":
            installed_tensorrt().require_int8()
        elif quantizing:
            from stream_cam.engine.quantize_nncf import nncf_version

            nncf_version()


def open_backend(
    net: CamNet,
    fingerprint: str,
    input_hw: tuple[int, int],
    *,
    name: EngineName = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    parallel: int = 1,
    batch: Batch | None = None,
    quantizers: Quantizers | None = None,
) -> Backend:
    """What `load_engine` would build with, for the same arguments.

    Args:
        quantizers: make the engine int8.

    Raises:
        UsageError: it would build nothing.
        EngineError: the engine asked for does not work on this machine.
    """
    if name in ("eager", "inductor"):
        raise UsageError(
            f"the {name} engine is not built ahead: give --engine tensorrt, openvino or auto"
        )
    place = _place(name, device, precision)
    best = _precisions(precision, place)[0]
    wanted = EngineRequest(net, fingerprint, input_hw, best, parallel, batch or Batch(), quantizers)
    return _backend(_candidates(name, place, best)[0], place, wanted)


@dataclass(frozen=True)
class EngineRequest:
    """A network and what its engine is for."""

    net: CamNet
    fingerprint: str
    input_hw: tuple[int, int]
    precision: Precision
    parallel: int
    batch: Batch
    quantizers: Quantizers | None = None


def _precisions(precision: Precision, place: str) -> tuple[Precision, ...]:
    """What to compute in on a device, the best first."""
    if precision not in get_args(Precision):
        raise unknown_name("precision", precision, get_args(Precision))
    if precision != "auto":
        return (precision,)
    return ("fp32",) if place == "cpu" else ("fp16", "fp32")


def _candidates(name: EngineName, place: str, precision: Precision) -> tuple[str, ...]:
    """Engines to try on a device, in their order."""
    kind = place.partition(":")[0]
    names = _ORDER[kind] if name == "auto" else (name,)
    able = tuple(one for one in names if precision in _PRECISIONS[one, kind])
    if not able:
        # An engine in int8 has to be built before, from frames.
        has = " or ".join(one for one in _PRECISIONS[names[0], kind] if one != "int8")
        on_cpu = ", or --engine openvino --device cpu"
        on_gpu = ", or --engine tensorrt" if kind == "cuda" else ""
        elsewhere = {"bf16": on_cpu, "int8": on_gpu + on_cpu, "fp16": "; fp16 is for GPUs"}
        raise EngineError(
            f"the {names[0]} engine has no {precision} on {place}: give --precision {has}"
            f"{elsewhere[precision]}"
        )
    return able


def _load(name: str, place: str, wanted: EngineRequest) -> Engine:
    from stream_cam.engine.gpu_errors import gpu_errors_told

    with gpu_errors_told():
        return _loaded(name, place, wanted)


def _loaded(name: str, place: str, wanted: EngineRequest) -> Engine:
    if name in ("tensorrt", "openvino"):
        from stream_cam.engine.prepare import load_or_build

        on_stage = _tell_of_building if name == "tensorrt" else None
        return load_or_build(_backend(name, place, wanted), on_stage=on_stage).engine
    net, options = wanted.net, (wanted.input_hw, place, wanted.precision, wanted.batch)
    engine: Engine
    if name == "inductor":
        from stream_cam.engine.inductor import InductorEngine

        engine = InductorEngine(net, *options)
    else:
        from stream_cam.engine.eager import EagerEngine

        engine = EagerEngine(net, *options)
    if place != "cpu":
        from stream_cam.engine.verify import verify

        # What is not kept is compared at every start.
        verify(engine, net)
    return engine


def _tell_of_building(stage: str) -> None:
    """Of what takes minutes while nothing is shown."""
    if stage == "compiling":
        logger.warning(
            "TensorRT builds the engine for this GPU, once: up to minutes (`stream-cam build` does "
            "it ahead)"
        )


def _backend(name: str, place: str, wanted: EngineRequest) -> Backend:
    net, fingerprint, input_hw = wanted.net, wanted.fingerprint, wanted.input_hw
    precision, batch, quantizers = wanted.precision, wanted.batch, wanted.quantizers
    if name == "tensorrt":
        from stream_cam.engine.tensorrt import TensorRtBackend

        return TensorRtBackend(
            net,
            fingerprint,
            input_hw,
            device=place,
            precision=precision,
            batch=batch,
            quantizer=quantizers.layers if quantizers else None,
        )
    from stream_cam.engine.openvino import OpenVinoBackend

    _require_single(batch)
    return OpenVinoBackend(
        net,
        fingerprint,
        input_hw,
        precision=precision,
        parallel=wanted.parallel,
        quantizer=quantizers.nncf if quantizers else None,
    )


def _require_single(batch: Batch | None) -> None:
    if batch not in (None, Batch()):
        raise UsageError("the openvino engine takes one frame at a time: --batch is for tensorrt")


def _place(name: EngineName, device: Device, precision: Precision) -> str:
    """cpu or cuda:N, for names that are checked."""
    engines = ("auto", "tensorrt", "inductor", "openvino", "eager")
    if name not in engines:
        raise unknown_name("engine", name, engines)
    if device not in ("auto", "cpu", "cuda"):
        raise unknown_name("device", device, ("auto", "cpu", "cuda"))
    if device == "cuda" and name == "openvino":
        raise EngineError(
            "the openvino engine runs on the CPU: give --device cpu or --engine eager"
        )
    if device == "cpu" and name in ("tensorrt", "inductor"):
        raise EngineError(
            f"the {name} engine runs on GPUs: give --device cuda, or --engine openvino"
        )
    if device == "cpu" or name == "openvino":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        if name == device == "auto" and (on_cpu := _why_on_cpu(precision)):
            _tell_once(f"{on_cpu}: the GPU is not used")
            return "cpu"
        return f"cuda:{torch.cuda.current_device()}"
    if name in ("tensorrt", "inductor"):
        raise EngineError(
            f"the {name} engine needs an NVIDIA GPU with its driver, and none is usable here "
            "(torch.cuda.is_available() is false): give --engine openvino, or see `stream-cam "
            "doctor`"
        )
    if device == "cuda":
        raise EngineError(
            "no CUDA GPU is usable here (torch.cuda.is_available() is false): give --device cpu, "
            "or see `stream-cam doctor`"
        )
    return "cpu"


def _why_on_cpu(precision: Precision) -> str:
    """What keeps a precision off this machine's GPU; empty if nothing does."""
    if precision == "bf16":
        return "engines in bf16 are for CPUs"
    if precision == "int8":
        try:
            flavour = installed_tensorrt()
            flavour.require_int8()
            flavour.versions()
        except EngineError as error:
            return f"int8 on a GPU is TensorRT's ({error})"
    return ""


@cache
def _tell_once(line: str) -> None:
    """Of what is asked at every engine that is opened."""
    logger.warning("%s", line)

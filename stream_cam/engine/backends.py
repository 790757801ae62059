"""The table of engines. A new one is a module of its own, an entry here, and a name in `config`.

The entries import their modules when they are asked: `stream-cam engines` needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from stream_cam.config import EngineName, Precision
from stream_cam.engine.machine import (
    Machine,
    installed_tensorrt,
    openvino_machines,
    tensorrt_machines,
)
from stream_cam.errors import EngineError

if TYPE_CHECKING:
    from stream_cam.engine.base import Engine
    from stream_cam.engine.builder import EngineBuilder, EngineRequest


@dataclass(frozen=True)
class Backend:
    """One kind of engine: its devices and precisions, its requirements, its making.

    It has either `make` or, if the store keeps its engines, `builder` and `machines`.
    """

    name: EngineName
    precisions: Mapping[str, tuple[Precision, ...]]
    """By the kind of device, cuda or cpu; another kind it does not run on."""
    require: Callable[[], object]
    """Raises EngineError, with the command that helps, where a package is missing."""
    make: Callable[[EngineRequest], Engine] | None = None
    """Compiles at every start."""
    builder: Callable[[EngineRequest], EngineBuilder] | None = None
    machines: Callable[[], list[Machine]] | None = None
    """This machine, once for each device that its engines may be for; raises EngineError where it
    does not work."""
    require_int8: Callable[[bool], object] | None = None
    """Raises EngineError where there is no int8; with True, also where none can be built."""
    takes_batches: bool = True
    """Several frames in one call."""
    has_streams: bool = False
    """Several calls at once, each on cores of its own."""
    build_notice: str = ""
    """The warning before a build that keeps a run waiting."""


def _tensorrt(request: EngineRequest) -> EngineBuilder:
    from stream_cam.engine.tensorrt import TensorRtBuilder

    return TensorRtBuilder(request)


def _require_tensorrt() -> None:
    installed_tensorrt().versions()


def _require_tensorrt_int8(quantizing: bool) -> None:
    installed_tensorrt().require_int8()


def _fused(request: EngineRequest) -> Engine:
    from stream_cam.engine.fused import FusedEngine

    return FusedEngine(request)


def _inductor(request: EngineRequest) -> Engine:
    from stream_cam.engine.inductor import InductorEngine

    return InductorEngine(request)


def _require_triton() -> None:
    if find_spec("triton") is None:
        raise EngineError("the inductor engine needs Triton, which is not installed")


def _openvino(request: EngineRequest) -> EngineBuilder:
    from stream_cam.engine.openvino import OpenVinoBuilder

    return OpenVinoBuilder(request)


def _require_openvino() -> None:
    if find_spec("openvino") is None:
        raise EngineError("OpenVINO is not installed: pip install openvino")


def _require_nncf(quantizing: bool) -> None:
    if quantizing:
        from stream_cam.engine.quantize_nncf import nncf_version

        nncf_version()


def _eager(request: EngineRequest) -> Engine:
    from stream_cam.engine.eager import EagerEngine

    return EagerEngine(request)


BACKENDS: tuple[Backend, ...] = (
    Backend(
        name="tensorrt",
        precisions={"cuda": ("fp32", "fp16", "int8")},
        require=_require_tensorrt,
        builder=_tensorrt,
        machines=tensorrt_machines,
        require_int8=_require_tensorrt_int8,
        build_notice="TensorRT builds the engine for this GPU, once: up to minutes (`stream-cam "
        "build` does it ahead)",
    ),
    Backend(
        name="fused",
        precisions={"cuda": ("fp32", "fp16")},
        require=lambda: None,
        make=_fused,
    ),
    Backend(
        name="inductor",
        precisions={"cuda": ("fp32", "fp16")},
        require=_require_triton,
        make=_inductor,
    ),
    Backend(
        name="openvino",
        precisions={"cpu": ("fp32", "bf16", "int8")},
        require=_require_openvino,
        builder=_openvino,
        machines=openvino_machines,
        require_int8=_require_nncf,
        takes_batches=False,
        has_streams=True,
    ),
    Backend(
        name="eager",
        precisions={"cuda": ("fp32", "fp16"), "cpu": ("fp32",)},
        require=lambda: None,
        make=_eager,
    ),
)
"""Fastest first, on each kind of device."""


def find_backend(name: str) -> Backend:
    """The backend with this name.

    Raises:
        EngineError: this version has none.
    """
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise EngineError(f"this version has no {name} engines")


def usable_backends(kind: str) -> list[str]:
    """The engines for a kind of device, cuda or cpu, whose packages are installed."""
    return [backend.name for backend in BACKENDS if kind in backend.precisions and _usable(backend)]


def _usable(backend: Backend) -> bool:
    try:
        backend.require()
    except EngineError:
        return False
    return True


def machines_for(name: str) -> list[Machine]:
    """This machine, as the engines of a backend see it: once for each of their devices.

    Raises:
        EngineError: this version has no such engines, or they do not work here.
    """
    backend = find_backend(name)
    if backend.machines is None:
        raise EngineError(f"{name} engines are not stored")
    return backend.machines()

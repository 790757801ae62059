"""What of this machine matters to an engine; nothing here needs PyTorch."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from stream_cam.errors import EngineError

if TYPE_CHECKING:
    import openvino

Machine = tuple[dict[str, str], dict[str, str]]
"""Versions of libraries, and hardware, as in the keys of engines that are built here and now."""


def machine_for(backend: str) -> Machine:
    """This machine, as a backend sees it.

    Raises:
        EngineError: this version has no such backend, or it does not work here.
    """
    if backend != "openvino":
        raise EngineError(f"this version has no {backend} engines")
    return openvino_machine(openvino_core())


def openvino_core() -> openvino.Core:
    """OpenVINO's runtime.

    Raises:
        EngineError: it cannot be imported.
    """
    try:
        import openvino
    except ImportError as error:
        raise EngineError(f"OpenVINO cannot be imported ({error}): pip install openvino") from error
    return openvino.Core()


def openvino_machine(core: openvino.Core) -> Machine:
    """The processor, and what converts and compiles for it."""
    import openvino

    versions = {"openvino": str(openvino.__version__), "torch": version("torch")}
    hardware = {
        "cpu": str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
        "cpu_can": " ".join(openvino_capabilities(core)),
    }
    return versions, hardware


def openvino_capabilities(core: openvino.Core) -> list[str]:
    """What OpenVINO can compute in on this processor: FP32, BF16, INT8, …"""
    return sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))

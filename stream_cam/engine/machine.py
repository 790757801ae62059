"""The parts of this machine that matter to engines; PyTorch is imported only to ask for a GPU."""

from __future__ import annotations

import ctypes
import importlib
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stream_cam.errors import EngineError

if TYPE_CHECKING:
    import openvino

Machine = tuple[dict[str, str], dict[str, str]]
"""Versions of libraries, and hardware, as in the keys of engines that are built here and now."""

TENSORRT_INSTALL = 'pip install "torch-tensorrt>=2.14,<2.15" "torch>=2.14,<2.15" torchvision'
"""For GeForce and RTX cards torch-tensorrt-rtx, which is smaller, does as well."""

_PLACEHOLDER = "0.0.1"
_DRIVER_SECONDS = 5.0


@dataclass(frozen=True)
class TensorRt:
    """Which TensorRT is installed."""

    module: str
    """tensorrt or tensorrt_rtx: it runs engines."""
    converter: str
    """torch-tensorrt or torch-tensorrt-rtx: the package that makes them. Both are imported as
    torch_tensorrt."""

    @property
    def is_rtx(self) -> bool:
        return self.module == "tensorrt_rtx"

    def require_int8(self) -> None:
        """Raises EngineError where it has no convolutions in integers."""
        if self.is_rtx:
            raise EngineError(
                "TensorRT-RTX has no convolutions in int8, TensorRT has: give --precision fp16, or "
                f"pip uninstall {self.converter} {self.module}, then {TENSORRT_INSTALL}"
            )

    def versions(self) -> dict[str, str]:
        """The versions that make and read its engines, to the full build.

        Raises:
            EngineError: TensorRT itself cannot be imported.
        """
        try:
            build = str(importlib.import_module(self.module).__version__)
        except (ImportError, OSError, AttributeError) as error:
            raise EngineError(
                f"{self.module} cannot be imported ({error}): pip install --force-reinstall "
                f"{self.converter}"
            ) from error
        return {
            "tensorrt": build,
            "flavour": self.module,
            "torch": version("torch"),
            "torch_tensorrt": version(self.converter),
        }


def installed_tensorrt() -> TensorRt:
    """The flavour of TensorRT that is installed, by its packages; imports nothing.

    Raises:
        EngineError: none, both, or a broken one; the message says how to install it.
    """
    flavours = (
        TensorRt("tensorrt", "torch-tensorrt"),
        TensorRt("tensorrt_rtx", "torch-tensorrt-rtx"),
    )
    found = [(flavour, _version(flavour.converter)) for flavour in flavours]
    there = [(flavour, installed) for flavour, installed in found if installed is not None]
    if not there:
        raise EngineError(f"torch-tensorrt is not installed: {TENSORRT_INSTALL}")
    if len(there) > 1:
        raise EngineError(
            "torch-tensorrt and torch-tensorrt-rtx own the same files: pip uninstall both, then "
            f"{TENSORRT_INSTALL}"
        )
    ((flavour, installed),) = there
    if installed == _PLACEHOLDER:
        raise EngineError(
            f"{flavour.converter} {installed} is an empty placeholder: {TENSORRT_INSTALL}"
        )
    if find_spec(flavour.module) is None:
        raise EngineError(
            f"{flavour.converter} {installed} is installed, but not {flavour.module}: pip install "
            f"--force-reinstall {flavour.converter}"
        )
    return flavour


def require_tensorrt_for(flavour: TensorRt, hardware: dict[str, str]) -> None:
    """Raises EngineError at once for a GPU that this TensorRT does not support.

    TensorRT-RTX 1.7 holds code for compute capability 9.0, but its library refuses such a GPU.
    """
    if flavour.is_rtx and hardware["sm"].startswith("9."):
        raise EngineError(
            f"TensorRT-RTX does not support {hardware['gpu']} (compute capability "
            f"{hardware['sm']}), TensorRT does: give --engine fused, or pip uninstall "
            f"{flavour.converter} {flavour.module}, then {TENSORRT_INSTALL}"
        )


def tensorrt_machines() -> list[Machine]:
    """This machine with each of its GPUs.

    Raises:
        EngineError: TensorRT or a GPU is missing.
    """
    versions = installed_tensorrt().versions()
    return [(versions, gpu_hardware(gpu)) for gpu in _gpus()]


def openvino_machines() -> list[Machine]:
    """This machine with its processor.

    Raises:
        EngineError: OpenVINO cannot be imported.
    """
    return [openvino_machine(openvino_core())]


def _gpus() -> list[str]:
    """cuda:0 and so on.

    Raises:
        EngineError: there is no CUDA GPU that PyTorch can use.
    """
    import torch

    if not torch.cuda.is_available():
        raise EngineError("no CUDA GPU is usable here (torch.cuda.is_available() is false)")
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def has_cuda_driver() -> bool:
    """Whether NVIDIA's driver may be here; asks without PyTorch, whose import takes seconds."""
    if "torch" in sys.modules:
        return True
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def gpu_hardware(device: str) -> dict[str, str]:
    """The name and compute capability of a GPU, and its driver.

    Raises:
        EngineError: there is no CUDA GPU that PyTorch can use.
    """
    import torch

    _gpus()
    gpu = torch.cuda.get_device_properties(torch.device(device))
    return {"gpu": gpu.name, "sm": f"{gpu.major}.{gpu.minor}", "driver": _driver()}


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
    """The libraries that convert and compile for the processor, and the processor."""
    import openvino

    versions = {"openvino": str(openvino.__version__), "torch": version("torch")}
    hardware = {
        "cpu": str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
        "cpu_can": " ".join(openvino_capabilities(core)),
    }
    return versions, hardware


def openvino_capabilities(core: openvino.Core) -> list[str]:
    """The arithmetic that OpenVINO has on this processor: FP32, BF16, INT8, …"""
    return sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str:
    """NVIDIA's driver, as 580.82.07; or, where it is not known, the kernel that it came with."""
    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        pass
    program = shutil.which("nvidia-smi")
    if program is not None:
        command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_DRIVER_SECONDS, check=True
            )
            return done.stdout.split()[0]
        except (OSError, subprocess.SubprocessError, IndexError):
            pass
    return f"of kernel {platform.release()}"

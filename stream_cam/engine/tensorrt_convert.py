"""A network becomes one serialized TensorRT engine, by torch.export and torch-tensorrt.

The conversion takes seconds with TensorRT-RTX, which compiles its kernels later, on loading. It
takes up to minutes with TensorRT, which tries kernels on the GPU. Torch-tensorrt's own engine cache
is left off: its key leaves out weights and versions, which the store's key has.
"""

from __future__ import annotations

import importlib
import logging
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from stream_cam.engine.int8_net import LARGEST, Int8Convolution, int8_convolution, weight_scales
from stream_cam.engine.machine import TensorRt
from stream_cam.engine.options import Batch
from stream_cam.engine.typed_net import TypedNet
from stream_cam.errors import EngineError, first_line
from stream_cam.model.tracing import tracing

INPUT = "batch"
OUTPUTS = ("logits", "features")

OPTIONS = {"tf32": "off"}
"""The builder's settings: part of every key, as the batch is."""

_BITS = 8

_one_at_a_time = threading.Lock()
"""Torch-tensorrt's settings are the process's."""


def convert(
    typed: TypedNet,
    name: str,
    input_hw: tuple[int, int],
    batch: Batch,
    flavour: TensorRt,
    *,
    for_this_gpu: bool = True,
) -> bytes:
    """The engine, with input `batch` and outputs `logits` and `features`, all float32.

    Args:
        typed: on the CPU; its own types decide TensorRT's precision.
        name: the network's.
        for_this_gpu: otherwise TensorRT-RTX builds for all GPUs from Ampere on and for no older
            one. Without a GPU it can build nothing else.

    Raises:
        EngineError: torch-tensorrt cannot be imported, or TensorRT cannot build it.
    """
    with _one_at_a_time, _quiet() as builder_log:
        try:
            torch_tensorrt = importlib.import_module("torch_tensorrt")
        except Exception as error:  # it asks for the GPU, and raises whatever that raises
            raise EngineError(
                f"torch_tensorrt cannot be imported ({first_line(error)}; see `stream-cam doctor`)"
            ) from error
        try:
            if any(isinstance(module, Int8Convolution) for module in typed.modules()):
                _register_int8()
            with _configured(flavour, for_this_gpu):
                return _converted(torch_tensorrt, typed, input_hw, batch)
        except Exception as error:  # whatever torch.export, torch-tensorrt and TensorRT may raise
            reason = builder_log.error or first_line(error)
            raise EngineError(f"TensorRT cannot build {name} ({reason})") from error


def _converted(
    torch_tensorrt: ModuleType, typed: TypedNet, input_hw: tuple[int, int], batch: Batch
) -> bytes:
    example = torch.zeros(batch.best, 3, *input_hw)
    dynamic, asked = None, example
    if not batch.is_fixed:
        # An example of one frame would make torch.export take 1 for a constant.
        example = torch.zeros(max(batch.best, 2), 3, *input_hw)
        frames = torch.export.Dim("frames", min=batch.least, max=batch.most)
        dynamic = ({0: frames},)
        asked = torch_tensorrt.Input(
            min_shape=(batch.least, 3, *input_hw),
            opt_shape=(batch.best, 3, *input_hw),
            max_shape=(batch.most, 3, *input_hw),
            dtype=torch.float32,
        )
    with tracing():
        exported = torch.export.export(typed, (example,), dynamic_shapes=dynamic, strict=False)
    with tempfile.TemporaryDirectory() as private:
        engine: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            exported,
            arg_inputs=[asked],
            arg_input_binding_names=(INPUT,),
            output_binding_names=OUTPUTS,
            # Strong typing: the network's own types decide the precision.
            disable_tf32=True,
            immutable_weights=True,
            # By default one file for all of the machine's users, not written atomically.
            timing_cache_path=str(Path(private) / "timing.cache"),
        )
    return engine


@cache
def _register_int8() -> None:
    """Teaches torch-tensorrt to convert `int8_convolution`.

    It accepts integers from nvidia-modelopt only. That package needs more than it declares, and
    does not know which layers our maps can spare. The layers added here are the same.
    """
    conversion = importlib.import_module("torch_tensorrt.dynamo.conversion")
    unknown = importlib.import_module("torch_tensorrt.dynamo._SourceIR").SourceIR.UNKNOWN
    quantize, convolve = conversion.impl.quantize.quantize, conversion.impl.conv.convNd

    def converted(ctx: Any, target: Any, args: Any, kwargs: Any, name: str) -> Any:
        batch, weight, bias, input_scale, stride, padding, dilation, groups = args
        largest = torch.tensor(input_scale * LARGEST)
        batch = quantize(ctx, target, unknown, f"{name}_input", batch, largest, _BITS, 0)
        # One for each output channel, along the first axis.
        largest = weight_scales(weight).reshape(-1, 1, 1, 1) * LARGEST
        weight = quantize(ctx, target, unknown, f"{name}_weight", weight, largest, _BITS, 0)
        form = (stride, padding, dilation, groups)
        return convolve(ctx, target, unknown, name, False, batch, weight, bias, *form)

    register = conversion.dynamo_tensorrt_converter
    register(int8_convolution._opoverload, supports_dynamic_shapes=True)(converted)


@contextmanager
def _configured(flavour: TensorRt, for_this_gpu: bool) -> Iterator[None]:
    """Sets the builder's target and its stop, for which torch-tensorrt has no option."""
    trt = importlib.import_module(flavour.module)
    interpreter = importlib.import_module(
        "torch_tensorrt.dynamo.conversion._TRTInterpreter"
    ).TRTInterpreter
    configured = interpreter._populate_trt_builder_config
    with ExitStack() as building:

        def further_configured(self: Any, *args: Any, **kwargs: Any) -> Any:
            config = configured(self, *args, **kwargs)
            config.progress_monitor = _monitor(trt, building.enter_context(_interrupts()))
            if flavour.is_rtx and for_this_gpu:
                config.num_compute_capabilities = 1
                if not config.set_compute_capability(trt.ComputeCapability.CURRENT, 0):
                    raise RuntimeError("TensorRT-RTX does not build for this GPU")
            return config

        interpreter._populate_trt_builder_config = further_configured
        try:
            yield
        finally:
            interpreter._populate_trt_builder_config = configured


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Delays Ctrl-C to the end: an exception inside TensorRT would be a crash."""
    noted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    handler = signal.signal(signal.SIGINT, lambda *_: noted.set())
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, handler)
        if noted.is_set():
            signal.raise_signal(signal.SIGINT)


def _monitor(trt: ModuleType, interrupted: threading.Event) -> Any:
    """Tells the builder, after each of its steps, whether to go on."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase: str, parent: str | None, n_steps: int) -> None:
            pass

        def phase_finish(self, phase: str) -> None:
            pass

        def step_complete(self, phase: str, step: int) -> bool:
            return not interrupted.is_set()

    return Monitor()


class _BuilderLog(logging.Handler):
    """Keeps the first line of the last error that TensorRT's builder logs."""

    error = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self.error = record.getMessage().strip().partition("\n")[0]


@contextmanager
def _quiet() -> Iterator[_BuilderLog]:
    """Silences torch-tensorrt; an error that matters becomes an EngineError."""
    builder_log = _BuilderLog()
    builder = logging.getLogger("torch_tensorrt [TensorRT Conversion Context]")
    loggers = [logging.getLogger(name) for name in ("torch_tensorrt", "torch", "torch.export")]
    levels = [logger.level for logger in loggers]
    builder.addHandler(builder_log)
    builder.propagate = False
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield builder_log
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        builder.propagate = True
        builder.removeHandler(builder_log)

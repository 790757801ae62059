"""The fastest engine that works here, from the store or compiled."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from stream_cam.engine.backends import BACKENDS, Backend
from stream_cam.engine.base import Engine
from stream_cam.engine.options import Batch, EngineOptions
from stream_cam.engine.selection import select_backends, select_device, select_precisions
from stream_cam.engine.store import EngineStore, UnusableEngineError
from stream_cam.errors import EngineError, GateError, UnsuitableEngineError, UsageError

if TYPE_CHECKING:
    from stream_cam.engine.builder import EngineBuilder, EngineRequest
    from stream_cam.engine.quantize import Quantizers
    from stream_cam.model.camnet import CamNet

logger = logging.getLogger(__name__)


def load_engine(
    net: CamNet, fingerprint: str, input_hw: tuple[int, int], options: EngineOptions
) -> Engine:
    """Reads an engine of a network from the store, or compiles one.

    Args:
        net: the network, on the CPU in float32.
        fingerprint: its parameters' and its graph's, for the store (`CamNet.fingerprint`).
        input_hw: height and width of the input in pixels.

    Raises:
        UsageError: an option has an unknown name, or options contradict each other.
        EngineError: the engine asked for does not work on this machine.
    """
    from stream_cam.engine.builder import EngineRequest

    device = select_device(options)
    attempts = [
        (
            backend,
            EngineRequest(
                net, fingerprint, input_hw, device, precision, options.parallel, options.batch
            ),
        )
        for precision in select_precisions(options.precision, device)
        for backend in select_backends(options.engine, device, precision)
    ]
    return _open_first(attempts, any_precision=options.precision == "auto")


def read_kept_engine(
    model: str, fingerprint: str, input_hw: tuple[int, int], options: EngineOptions
) -> Engine | None:
    """The engine that `load_engine` would read from the store, without PyTorch and the network.

    Args:
        model, fingerprint: the network's (`CamNet.name`, `CamNet.fingerprint`).

    Returns:
        None: it is not an OpenVINO engine, or is not there; `load_engine` then says why.

    Raises:
        UsageError, EngineError: as `load_engine`, of options that cannot be.
    """
    device = select_device(options)
    precision = select_precisions(options.precision, device)[0]
    if select_backends(options.engine, device, precision)[0].name != "openvino":
        return None
    store, parallel = EngineStore(), options.parallel
    try:
        from stream_cam.engine.openvino_runtime import import_engine, newest_int8_key, openvino_key

        key = openvino_key(model, fingerprint, input_hw, precision, parallel)
        if precision == "int8":
            key = newest_int8_key(key, parallel, store)
        found = store.read(key)
        return import_engine(found[0], key, parallel) if found else None
    except (EngineError, UnusableEngineError):
        return None


def open_builder(
    net: CamNet,
    fingerprint: str,
    input_hw: tuple[int, int],
    options: EngineOptions,
    quantizers: Quantizers | None = None,
) -> EngineBuilder:
    """The builder that `load_engine` would take for the same options.

    Args:
        quantizers: make the engine int8.

    Raises:
        UsageError: `load_engine` would build nothing that is kept.
        EngineError: the engine asked for does not work on this machine.
    """
    from stream_cam.engine.builder import EngineRequest

    _require_stored(options)
    device = select_device(options)
    precision = select_precisions(options.precision, device)[0]
    backend = select_backends(options.engine, device, precision)[0]
    return _builder(
        backend,
        EngineRequest(
            net,
            fingerprint,
            input_hw,
            device,
            precision,
            options.parallel,
            options.batch,
            quantizers,
        ),
    )


def check_buildable(options: EngineOptions, *, quantizing: bool = False) -> None:
    """Checks, before anything slow, whether such an engine can be built ahead.

    Args:
        quantizing: a new int8 engine is to be built.

    Raises:
        UsageError: it is not built ahead, or not for that batch.
        EngineError: the machine has no such device, or a package is missing.
    """
    _require_stored(options)
    device = select_device(options)
    for precision in select_precisions(options.precision, device):
        backend = select_backends(options.engine, device, precision)[0]
        _require_batch(backend, options.batch)
        if precision == "int8" and backend.require_int8 is not None:
            backend.require_int8(quantizing)


def _open_first(attempts: list[tuple[Backend, EngineRequest]], *, any_precision: bool) -> Engine:
    """The first engine that works; a warning says why those before it do not.

    Args:
        any_precision: after a failed gate, a precision is not tried again.

    Raises:
        EngineError: the last one's, if none works.
    """
    failures: list[str] = []
    too_coarse: str | None = None
    for backend, request in attempts[:-1]:
        if request.precision == too_coarse:
            continue
        try:
            engine = _open(backend, request)
            break
        except UnsuitableEngineError as error:
            logger.info("%s: %s", backend.name, error)
        except EngineError as error:
            failures.append(f"{backend.name}: {error}")
            if isinstance(error, GateError) and any_precision and request.precision != "fp32":
                # The network does not survive it, whichever the engine.
                too_coarse = request.precision
    else:
        backend, request = attempts[-1]
        engine = _open(backend, request)
    if failures:
        logger.warning(
            "falling back to the slower %s engine in %s (%s)",
            *(backend.name, request.precision, "; ".join(failures)),
        )
    return engine


def _open(backend: Backend, request: EngineRequest) -> Engine:
    from stream_cam.engine.gpu_errors import translate_gpu_errors
    from stream_cam.engine.prepare import load_or_build
    from stream_cam.engine.verify import verify

    with translate_gpu_errors():
        if backend.make is None:
            on_stage = partial(_announce_build, backend)
            return load_or_build(_builder(backend, request), on_stage=on_stage).engine
        engine = backend.make(request)
        if request.device != "cpu":
            # A stored engine was verified when it was built, this one is at every start.
            verify(engine, request.net)
        return engine


def _announce_build(backend: Backend, stage: str) -> None:
    """Warns of minutes in which nothing is shown."""
    if stage == "compiling" and backend.build_notice:
        logger.warning("%s", backend.build_notice)


def _builder(backend: Backend, request: EngineRequest) -> EngineBuilder:
    _require_batch(backend, request.batch)
    if backend.builder is None:
        raise UsageError(f"the {backend.name} engine is not built ahead")
    return backend.builder(request)


def _require_batch(backend: Backend, batch: Batch) -> None:
    if batch != Batch() and not backend.takes_batches:
        raise UsageError(
            f"the {backend.name} engine takes one frame at a time: --batch is for tensorrt"
        )


def _require_stored(options: EngineOptions) -> None:
    if options.engine in [backend.name for backend in BACKENDS if backend.builder is None]:
        stored = [backend.name for backend in BACKENDS if backend.builder is not None]
        raise UsageError(
            f"the {options.engine} engine is not built ahead: give --engine {', '.join(stored)} or "
            "auto"
        )

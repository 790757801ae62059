"""An engine read from the store, or built, verified and kept there."""

from __future__ import annotations

import hashlib
import logging
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from stream_cam.engine.base import Engine, OnStage, ignore_progress
from stream_cam.engine.buffers import own_stream, wait_for
from stream_cam.engine.builder import EngineBuilder
from stream_cam.engine.gpu_errors import translate_gpu_errors
from stream_cam.engine.manifest import EngineKey, Figures, Manifest
from stream_cam.engine.store import EngineStore, UnusableEngineError
from stream_cam.engine.verify import verify
from stream_cam.errors import EngineError, GateError

logger = logging.getLogger(__name__)

_LATENCY_RUNS = 15
_LATENCY_SECONDS = 1.0
"""Slow networks are measured with fewer runs, but three at least."""


@dataclass(frozen=True)
class Prepared:
    """An engine and its place in the store."""

    engine: Engine
    manifest: Manifest
    path: Path | None
    """Its folder; None if it could not be kept."""
    built: bool = False
    """In this call."""


def load_or_build(
    builder: EngineBuilder,
    store: EngineStore | None = None,
    *,
    force: bool = False,
    on_stage: OnStage | None = None,
) -> Prepared:
    """Reads an engine from the store; builds, verifies and keeps it if it is not there.

    Args:
        force: builds it even if it is there.
        on_stage: gets each stage of a build.

    Raises:
        GateError: it is not the network it was made from, now or when it was last built.
        EngineError: it cannot be compiled.
    """
    store = store or EngineStore()
    on_stage = on_stage or ignore_progress
    # While another process publishes, a good engine may look damaged: the lock decides.
    with translate_gpu_errors(), suppress(_UselessEngineError):
        kept = None if force else _read(builder, store)
        if kept is not None:
            return kept
    if not force:
        _require_not_refused(builder.key, store)
    with translate_gpu_errors(), store.building(builder.key) as locked:
        try:
            kept = None if force else _read(builder, store)
        except _UselessEngineError as error:
            if not builder.can_build:
                raise EngineError(
                    f"the kept engine is of no use, and without frames no other is built: {error}"
                ) from error
            logger.warning("a kept engine is rebuilt: %s", error)
            kept = None
        if kept is not None:
            return kept
        if not force:
            _require_not_refused(builder.key, store)
            _warn_outdated(builder.key, store)
        return _build(builder, store if locked else None, on_stage)


def load_and_verify(
    builder: EngineBuilder, store: EngineStore, *, on_stage: OnStage | None = None
) -> tuple[Prepared, Figures]:
    """Compares a stored engine with its network again.

    Raises:
        EngineError: there is none, it is damaged, or it is not the network it was made from.
    """
    path = store.path(builder.key)
    try:
        found = store.read(builder.key)
    except UnusableEngineError as error:
        raise EngineError(f"{path.name} is {error.kind} ({error}): give --force instead") from error
    if found is None:
        raise EngineError("no such engine is kept here: leave out --verify-only to build it")
    blob, manifest = found
    try:
        engine = builder.deserialize(blob)
    except EngineError as error:
        raise EngineError(f"{path.name}: {error}: give --force instead") from error
    if on_stage is not None:
        on_stage("verifying")
    return Prepared(engine, manifest, path), verify(engine, builder.net, builder.frames)


class _UselessEngineError(EngineError):
    """A stored engine is of no use."""


def _read(builder: EngineBuilder, store: EngineStore) -> Prepared | None:
    """The stored engine; None if there is none.

    Raises:
        _UselessEngineError: it is damaged, or the backend does not accept it.
    """
    path = store.path(builder.key)
    try:
        found = store.read(builder.key)
        if found is None:
            return None
        blob, manifest = found
        return Prepared(builder.deserialize(blob), manifest, path)
    except UnusableEngineError as error:
        raise _UselessEngineError(f"{path.name} is {error.kind} ({error})") from error
    except EngineError as error:
        raise _UselessEngineError(f"{path.name}: {error}") from error


def _require_not_refused(key: EngineKey, store: EngineStore) -> None:
    """Spares a start the minutes of a build that failed its verification before."""
    why = store.refusal(key)
    if why is not None:
        raise GateError(f"{why} (found before; `stream-cam build --force` tries it again)")


def _warn_outdated(key: EngineKey, store: EngineStore) -> None:
    """Says why an engine is built anew though one for the same use is stored."""
    for path, manifest in store.manifests():
        kept = manifest.key
        if kept != key and kept.same_purpose(key):
            logger.warning(
                "a kept engine is outdated and built anew: %s, %s",
                path.name,
                kept.difference(key),
            )
            return


def _build(builder: EngineBuilder, store: EngineStore | None, on_stage: OnStage) -> Prepared:
    key = builder.key
    logger.info("compiling %s for %d×%d with %s", key.model, *key.input_shape[2:], key.backend)
    on_stage("compiling")
    started = time.monotonic()
    engine, blob = builder.compile(on_stage)
    build_seconds = time.monotonic() - started
    on_stage("verifying")
    try:
        figures = verify(engine, builder.net, builder.frames)
    except GateError as error:
        if store is not None:
            store.refuse(key, str(error))
        raise
    on_stage("measuring")
    manifest = Manifest(
        key=key,
        build_seconds=round(build_seconds, 3),
        built_unix_seconds=round(time.time()),
        latency_p50_ms=round(latency_p50_ms(engine), 3),
        verification=figures,
        size_bytes=len(blob),
        sha256=hashlib.sha256(blob).hexdigest(),
    )
    path = None
    if store is not None:
        on_stage("keeping")
        path = store.publish(blob, manifest)
    return Prepared(engine, manifest, path, built=True)


def latency_p50_ms(engine: Engine) -> float:
    """The network alone, one call after the other, each waited for, in ms."""
    session, info = engine.session(), engine.info
    taken_ms: list[float] = []
    with own_stream(info.device):
        batch = torch.zeros(info.input_shape, device=info.device)
        logits = torch.empty(info.logits_shape, device=info.device)
        features = torch.empty(info.features_shape, device=info.device)
        for _ in range(1 if info.device == "cpu" else 3):
            session(batch, logits, features)
        wait_for(info.device)
        while len(taken_ms) < 3 or (
            len(taken_ms) < _LATENCY_RUNS and sum(taken_ms) < _LATENCY_SECONDS * 1e3
        ):
            started = time.perf_counter()
            session(batch, logits, features)
            wait_for(info.device)
            taken_ms.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken_ms)

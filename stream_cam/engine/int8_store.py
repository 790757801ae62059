"""The stored int8 engine of a network, whatever it was calibrated with."""

from __future__ import annotations

from dataclasses import replace

from stream_cam.engine.manifest import EngineKey
from stream_cam.engine.store import EngineStore
from stream_cam.errors import EngineError


def int8_advice(arguments: str) -> str:
    """The command that builds an int8 engine.

    Args:
        arguments: further ones of `stream-cam build`.
    """
    return (
        f"`stream-cam build {arguments} --precision int8 --calibrate clip.mp4` makes one, with a "
        "video or pictures of the scene to be watched"
    )


def stored_int8_key(
    key: EngineKey, frames_at_once: str, arguments: str, store: EngineStore
) -> EngineKey:
    """The key of the int8 engine that is stored for the same use.

    Args:
        key: without a calibration.
        frames_at_once: for messages, as `one frame at a time`.
        arguments: of `stream-cam build`, to make one.

    Raises:
        EngineError: there is none.
    """
    found = store.calibrated(key)
    if found is not None:
        return found
    height, width = key.input_shape[2:]
    if height != width:
        raise EngineError(
            f"int8 engines are built for square inputs, not for {key.input_text}: give --fit "
            "stretch, crop or letterbox"
        )
    others = [replace(manifest.key, calibration={}) for _, manifest in store.manifests()]
    differing = [one.difference(key) for one in others if one != key and one.same_purpose(key)]
    raise EngineError(
        f"no int8 engine of {key.model} {key.input_text} for {frames_at_once} is kept here"
        f"{f', only of {differing[0]}' if differing else ''}: {int8_advice(arguments)}"
    )

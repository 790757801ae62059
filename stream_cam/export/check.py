"""The written file in ONNX Runtime and OpenVINO, against the network in PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stream_cam.cam.geometry import FitPlan
from stream_cam.cam.reference import class_activation_maps, preprocess
from stream_cam.errors import GateError, StreamCamError, first_line
from stream_cam.export.network import ExportedInput
from stream_cam.frame import BgrImage
from stream_cam.model.camnet import CamNet
from stream_cam.model.input_color import color_layer
from stream_cam.model.tracing import running
from stream_cam.model.weights import Weights
from stream_cam.sources.demo.scene import SHAPE_SECONDS, Scene

TOLERANCE = 1e-4
"""Of logits and maps, as a share of their largest value."""
_N_PICTURES = 3
_FRAME_HW = (180, 320)

Array = npt.NDArray[Any]
Run = Callable[[Array], Sequence[Array]]


def check_file(path: Path, given: ExportedInput, net: CamNet, weights: Weights) -> dict[str, float]:
    """Runs the file on drawn pictures, one and several at once.

    Returns:
        The largest difference of logits and maps, by runtime; a share of their largest value.

    Raises:
        GateError: a runtime's results are others than PyTorch's.
        StreamCamError: a runtime does not take the file.
    """
    pictures = list(_pictures(given))
    expected = [_expected(picture, given, net, weights) for picture in pictures]
    inputs = [_input(picture, given, weights) for picture in pictures]
    found = {}
    for name, open_file in _runtimes(path).items():
        try:
            run = open_file(path)
            results = [run(one) for one in inputs]
            together = run(np.concatenate(inputs))
        except Exception as exc:  # whatever a runtime may raise
            raise StreamCamError(
                f"{name} does not run the exported network: {first_line(exc)}; give another format "
                "(.onnx or .xml)"
            ) from exc
        results += [[out[place, None] for out in together] for place in range(len(inputs))]
        found[name] = max(map(_difference, results, expected * 2))
    worst = max(found, key=lambda name: found[name])
    if not found[worst] <= TOLERANCE:  # NaN fails too
        raise GateError(
            f"the exported network differs in {worst} from PyTorch's by {found[worst]:.2g} of the "
            f"largest value, at most {TOLERANCE:g} is asked for; it is not kept: give another "
            "format (.onnx or .xml)"
        )
    return found


def _runtimes(path: Path) -> dict[str, Callable[[Path], Run]]:
    """Those that are here: OpenVINO reads both formats."""
    found: dict[str, Callable[[Path], Run]] = {"openvino": _openvino}
    if path.suffix.lower() == ".onnx" and importlib.util.find_spec("onnxruntime"):
        found["onnxruntime"] = _onnxruntime
    return found


def _onnxruntime(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda batch: session.run(["logits", "maps"], {given.name: batch})


def _openvino(path: Path) -> Run:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)

    def run(batch: Array) -> list[Array]:
        results = compiled(batch)
        return [np.array(results[name]) for name in ("logits", "maps")]

    return run


def _pictures(given: ExportedInput) -> list[BgrImage]:
    """Frames of the demo's scene, of the network's size or larger."""
    height, width = _FRAME_HW if given.inside == "resizing" else given.size_hw
    scene = Scene(max(width, 64), max(height, 64), seed=1)
    frames = [scene.frame(n, (n + 0.5) * SHAPE_SECONDS)[0] for n in range(_N_PICTURES)]
    return [np.ascontiguousarray(frame[:height, :width]) for frame in frames]


def _plan(picture: BgrImage, size_hw: tuple[int, int]) -> FitPlan:
    return FitPlan((picture.shape[0], picture.shape[1]), size_hw, 0, 0, size_hw)


def _normalised(picture: BgrImage, size_hw: tuple[int, int], weights: Weights) -> Tensor:
    plan = _plan(picture, size_hw)
    return preprocess(
        torch.from_numpy(picture), plan, weights.mean, weights.std, weights.interpolation
    )


def _input(picture: BgrImage, given: ExportedInput, weights: Weights) -> Array:
    """The picture as the written network takes it."""
    if given.inside != "nothing":
        return np.ascontiguousarray(picture[None, :, :, ::-1])
    batch = _normalised(picture, given.size_hw, weights)
    color = color_layer(given.channels)
    with torch.inference_mode():
        return (batch if color is None else color(batch)).contiguous().numpy()


def _expected(
    picture: BgrImage, given: ExportedInput, net: CamNet, weights: Weights
) -> tuple[Array, Array]:
    """Logits and all maps, by PyTorch and the oracle of every test."""
    with torch.inference_mode(), running():
        logits, features = net(_normalised(picture, given.size_hw, weights))
        classes = torch.arange(net.n_classes)[None]
        return logits.numpy(), class_activation_maps(features, net.weight, classes).numpy()


def _difference(got: Sequence[Array], expected: Sequence[Array]) -> float:
    shares = [
        float(np.abs(one - other).max() / max(float(np.abs(other).max()), 1e-30))
        if one.shape == other.shape
        else float("inf")
        for one, other in zip(got, expected, strict=True)
    ]
    return float(np.max(shares))

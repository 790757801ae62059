"""The comparison of an engine with its network, before the engine is used or kept.

Drawn frames of the demo's scene and random ones go through the engine and through the network in
PyTorch, float32. The logits are compared, and the maps of the network's own five best classes. The
maps are compared unscaled, and scaled to 0..1 as on the screen. An int8 engine also gets frames of
the scene to be watched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stream_cam.cam.geometry import FitPlan
from stream_cam.cam.reference import preprocess, scale_cam
from stream_cam.engine.base import Engine
from stream_cam.engine.buffers import own_stream
from stream_cam.engine.manifest import Figures
from stream_cam.errors import EngineError, GateError, first_line
from stream_cam.model.camnet import CamNet
from stream_cam.model.tracing import running
from stream_cam.sources.demo.scene import SHAPE_SECONDS, Scene

N_DRAWN = 10
"""Drawn frames: each of the demo's ten shapes once."""
N_RANDOM = 2
_N_CLASSES = 5
_SCENE_HW = (180, 320)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Outputs = tuple[Tensor, Tensor]
"""Logits (1, n_classes) and features (1, C, h, w) of one frame, on the CPU."""


@dataclass(frozen=True)
class Gate:
    """The limits that an engine must keep; None: no limit."""

    most_difference: float | None = None
    """The largest difference of logits and of maps."""
    least_correlation: float | None = None
    most_heat_difference: float | None = None
    least_agreement: float | None = None

    def failures(self, figures: Figures, n_frames: int | None = None) -> list[str]:
        """The limits that are missed, as `maps' correlation 0.98, at least 0.99 is asked for`.

        Args:
            n_frames: the number of compared frames. Among few, one alone may have another best
                class; None: there are many.
        """
        least_agreement = self.least_agreement
        if least_agreement is not None and n_frames is not None:
            least_agreement = min(least_agreement, 1 - 1 / n_frames)
        asked: list[tuple[str, float, float | None, bool]] = [
            ("logits' difference", figures.logits_difference, self.most_difference, False),
            ("maps' difference", figures.cam_difference, self.most_difference, False),
            ("maps' correlation", figures.cam_correlation, self.least_correlation, True),
            ("heat's difference", figures.heat_difference, self.most_heat_difference, False),
            ("best class's agreement", figures.top1_agreement, least_agreement, True),
        ]
        return [
            f"{name} {got:.6g}, {'at least' if least else 'at most'} {limit:.6g} is asked for"
            for name, got, limit, least in asked
            # Written so that NaN fails.
            if limit is not None and not (got >= limit if least else got <= limit)
        ]


GATES: Mapping[str, Gate] = {
    "fp32": Gate(most_difference=1e-3),
    "fp16": Gate(most_difference=1e-2, least_correlation=0.9995, most_heat_difference=2 / 255),
    # Its roundings are eight times fp16's (8 bits of precision against 11); docs/engines.md has
    # the figures of real networks.
    "bf16": Gate(most_difference=3e-2, least_correlation=0.999, most_heat_difference=8 / 255),
    "int8": Gate(least_correlation=0.99, least_agreement=0.98),
}
"""By precision of the engine."""


def verify(
    engine: Engine,
    net: CamNet,
    frames: Sequence[Tensor] = (),
    *,
    comparison: Comparison | None = None,
) -> Figures:
    """Compares an engine with the network it was made from.

    Args:
        engine: one that takes several frames at once is checked with the least, the best and the
            most it takes.
        net: the network, on the CPU in float32.
        frames: (1, 3, H, W) float32 each, to compare on besides the drawn and the random ones.
        comparison: the network's outputs, where several engines are compared with it.

    Raises:
        GateError: they differ by more than the precision explains, with the figures.
        EngineError: it does not run.
    """
    comparison = comparison or Comparison(net, engine.info.input_shape, frames)
    try:
        figures = comparison.figures(engine)
    except RuntimeError as error:
        raise EngineError(
            f"the {engine.info.name} engine of {net.name} does not run ({first_line(error)}): give "
            f"{engine.info.advice}"
        ) from error
    failures = GATES[engine.info.precision].failures(figures, len(comparison))
    if failures:
        is_fp32 = engine.info.precision == "fp32"
        instead = engine.info.advice if is_fp32 else "--precision fp32"
        raise GateError(
            f"the {engine.info.name} engine of {net.name} in {engine.info.precision} is not the "
            f"network it was made from ({'; '.join(failures)}); it is not used: give {instead}"
        )
    return figures


def compare(engine: Engine, net: CamNet, frames: Sequence[Tensor] = ()) -> Figures:
    """The figures, whatever they are."""
    return Comparison(net, engine.info.input_shape, frames).figures(engine)


class Comparison:
    """The network's own outputs, which its engines are compared with.

    Args:
        net: on the CPU in float32.
        input_shape: an engine's.
        frames: as `verify` takes them.
    """

    def __init__(
        self, net: CamNet, input_shape: tuple[int, ...], frames: Sequence[Tensor] = ()
    ) -> None:
        self._net = net
        batches = [*((True, frame) for frame in frames), *_batches(input_shape)]
        self._shown = [shown for shown, _ in batches]
        self._frames = [frame for _, frame in batches]
        self._expected: list[Outputs] = []
        for frame in self._frames:
            with torch.inference_mode(), running():
                self._expected.append(net(frame))

    def __len__(self) -> int:
        """Frames that are compared on."""
        return len(self._frames)

    def figures(self, engine: Engine, numbers: Sequence[int] | None = None) -> Figures:
        """How far an engine is from the network, on all frames or on those with these numbers."""
        return overall(self.each(engine, range(len(self)) if numbers is None else numbers))

    def each(self, engine: Engine, numbers: Sequence[int]) -> list[FrameFigures]:
        """The same for each frame, once for each size of batch."""
        outputs = _run_all(engine, [self._frames[number] for number in numbers])
        return [self._frame_figures(numbers[place], got) for place, got in outputs]

    def _frame_figures(self, number: int, got: Outputs) -> FrameFigures:
        (logits, cams), (expected, expected_cams) = _best_maps(
            self._net, got, self._expected[number]
        )
        pairs = list(zip(cams, expected_cams, strict=True))
        heat = (scale_cam(cams) - scale_cam(expected_cams)).abs().flatten()
        return FrameFigures(
            logits_difference=_relative(logits, expected),
            cam_difference=_worst([_relative(*pair) for pair in pairs]),
            cam_correlation=-_worst([-_correlation(*pair) for pair in pairs]),
            same_best=bool(logits.argmax() == expected.argmax()),
            heat=heat if self._shown[number] else heat[:0],
        )


@dataclass(frozen=True, eq=False)
class FrameFigures:
    """`Figures` of one frame."""

    logits_difference: float
    cam_difference: float
    cam_correlation: float
    same_best: bool
    heat: Tensor
    """The error of each cell of each map, scaled to 0..1; empty for random frames."""


def overall(frames: Sequence[FrameFigures]) -> Figures:
    """The worst of all."""
    heat = torch.cat([frame.heat for frame in frames])
    return Figures(
        logits_difference=_worst([frame.logits_difference for frame in frames]),
        cam_difference=_worst([frame.cam_difference for frame in frames]),
        cam_correlation=-_worst([-frame.cam_correlation for frame in frames]),
        heat_difference=float(heat.quantile(0.999)) if heat.numel() else 0.0,
        top1_agreement=sum(frame.same_best for frame in frames) / len(frames),
    )


def _best_maps(net: CamNet, *outputs: Outputs) -> list[tuple[Tensor, Tensor]]:
    """Logits (n_classes,) and maps (5, h, w) of each output, of the classes best in the last."""
    best = outputs[-1][0].topk(min(_N_CLASSES, net.n_classes)).indices[0].tolist()
    return [
        (logits[0], torch.einsum("nk,khw->nhw", net.class_weight(features[0], best), features[0]))
        for logits, features in outputs
    ]


def _run_all(engine: Engine, frames: Sequence[Tensor]) -> list[tuple[int, Outputs]]:
    """Every frame's number and outputs, in each size of batch; the last batch begins anew."""
    session, info = engine.session(), engine.info
    outputs: list[tuple[int, Outputs]] = []
    with own_stream(info.device):
        for size in info.batch.sizes:
            batch, logits, features = (
                torch.empty(size, *shape[1:], device=info.device)
                for shape in (info.input_shape, info.logits_shape, info.features_shape)
            )
            for first in range(0, len(frames), size):
                numbers = [(first + place) % len(frames) for place in range(size)]
                batch.copy_(torch.cat([frames[number] for number in numbers]))
                # An output that a session leaves unwritten fails every gate.
                logits.fill_(torch.nan)
                features.fill_(torch.nan)
                session(batch, logits, features)
                on_cpu = (logits.to("cpu", copy=True), features.to("cpu", copy=True))
                for place, number in enumerate(numbers):
                    outputs.append((number, (on_cpu[0][place, None], on_cpu[1][place, None])))
    return outputs


def _batches(input_shape: tuple[int, ...]) -> Iterator[tuple[bool, Tensor]]:
    """(drawn or random, (1, 3, H, W) float32 normalised)."""
    height, width = input_shape[2:]
    plan = FitPlan(_SCENE_HW, (height, width), 0, 0, (height, width))
    scene = Scene(_SCENE_HW[1], _SCENE_HW[0], seed=1)
    for index in range(N_DRAWN):
        image_bgr, _ = scene.frame(index, (index + 0.5) * SHAPE_SECONDS)
        yield True, preprocess(torch.from_numpy(image_bgr), plan, _MEAN, _STD).contiguous()
    random = torch.Generator().manual_seed(0)
    for _ in range(N_RANDOM):
        yield False, torch.randn(1, 3, height, width, generator=random)


def _relative(got: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value expected; NaN where one is."""
    scale = float(expected.abs().max())
    return float((got - expected).abs().max()) / max(scale, torch.finfo(torch.float32).tiny)


def _correlation(got: Tensor, expected: Tensor) -> float:
    """Pearson's, of two (h, w) maps; 1 where the expected map has no relief beyond rounding."""
    got, expected = got.double(), expected.double()
    centred, expected_centred = got - got.mean(), expected - expected.mean()
    flat = 1e-6 * float(expected.abs().max()) * expected.numel() ** 0.5
    if float(expected_centred.norm()) <= flat and not torch.isnan(got).any():
        return 1.0
    scale = float(centred.norm()) * float(expected_centred.norm())
    return float((centred * expected_centred).sum()) / scale if scale else 0.0


def _worst(values: Sequence[float]) -> float:
    """The largest; NaN if there is one."""
    return float(torch.tensor(values, dtype=torch.float64).max())

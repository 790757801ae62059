"""Steps of `gpu_check.py`: networks and whole frames as graphs, the ring of slots, peers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from gpu_steps import FULL_HD, Ground, renamed
from torch import Tensor, nn

from stream_cam.bench.engines import BoundSession, EngineVariant, plan_call
from stream_cam.bench.frames import scene_frames
from stream_cam.bench.graph_capture import capture_graph
from stream_cam.bench.graphs import GraphFrames
from stream_cam.bench.kernel_timing import PerItemTimer, check_picture, width_x_height
from stream_cam.bench.network import BenchNetwork
from stream_cam.bench.peers import PEERS, StreamCamEngine, measure_peers, peer_problem
from stream_cam.bench.plan import time_rows
from stream_cam.bench.result import Row, Subject
from stream_cam.bench.stages import FrameStages
from stream_cam.bench.timing import CudaTimer, HostTimer, TimedCall, measure
from stream_cam.config import LookConfig
from stream_cam.draw.layouts import MapStyle
from stream_cam.draw.overlay import draw_overlay
from stream_cam.engine import fused
from stream_cam.engine.fused_layers import FusedConvolution
from stream_cam.engine.manifest import Figures
from stream_cam.errors import BenchError
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage

STEPS = ("frames", "batches", "ring", "peers", "inductor")
_MAX_SHARE = 0.03
"""Share of a map's largest value. One path resizes to uint8, the other computes in fp16."""


def frames(ground: Ground) -> None:
    """The network alone, and whole 1920×1080 frames, with the fused and the eager engine."""
    network = ground.network()
    for variant in ground.variants("fused", "eager"):
        _time_network(ground, network, variant)
        ground.attempt(f"{variant}: frames", partial(_time_frames, ground, network, variant))


def inductor(ground: Ground) -> None:
    """As `frames`; compiling takes most of the time."""
    network = ground.network()
    for variant in ground.variants("inductor"):
        _time_network(ground, network, variant)
        ground.attempt(f"{variant}: frames", partial(_time_frames, ground, network, variant))


def batches(ground: Ground) -> None:
    """The fused network at several batches, and at 288×288, the demo's own input."""
    network, wide = ground.network(), ground.network(288)
    for variant in ground.variants("fused"):
        _time_network(ground, wide, variant)
        ground.attempt(f"{variant}: frames", partial(_time_frames, ground, wide, variant))
        for batch in (8, 32) if ground.is_cuda else (2,):
            _time_network(ground, network, variant, batch)


def _time_network(
    ground: Ground, network: BenchNetwork, variant: EngineVariant, batch: int = 1
) -> None:
    what = f"{variant}, batch {batch}"
    ground.attempt(what, lambda: ground.rows(_network_rows(ground, network, variant, batch)))


def _network_rows(
    ground: Ground, network: BenchNetwork, variant: EngineVariant, batch: int
) -> list[Row]:
    input_hw = network.shapes_hw[0]
    engine = network.engine(variant, input_hw, batch)
    info = engine.info

    def verify(bound: BoundSession) -> Figures:
        return bound.verify(network.net, network.comparison(bound.info.input_shape))

    images = network.input_batch(_pictures(ground)[:4], input_hw)
    mode = "graph" if ground.is_cuda else "launch"
    planned = plan_call(engine, "graph", capture_graph if ground.is_cuda else None, verify, images)
    subject = Subject(
        *("engine", "network", info.name, info.device, info.precision),
        *(batch, input_hw, None, mode),
    )
    return time_rows({subject: planned}, ground.sampling)


def _time_frames(ground: Ground, network: BenchNetwork, variant: EngineVariant) -> None:
    explainer = ground.explainer(network, variant)
    graphs = GraphFrames(explainer, _pictures(ground))
    for subject, planned in graphs.plan().items():
        if not ground.is_cuda and "slots" in subject.name:
            continue  # the simulated GPU takes minutes for its sixty frames
        ground.rows(time_rows({subject: planned}, ground.sampling))


def _pictures(ground: Ground) -> list[BgrImage]:
    return scene_frames(width_x_height(ground.size(FULL_HD)), 3 if ground.is_short else 6)


def check_frame(ground: Ground) -> None:
    """One whole frame as a graph against the CPU path in float32."""
    network = ground.network()
    for variant in ground.variants("fused", "eager"):
        started, problem = time.monotonic(), None
        try:
            difference = _frame_difference(ground, network, variant)
        except Exception as error:  # a compiler of kernels may raise anything
            problem, difference = f"{type(error).__name__}: {error}", None
        ground.records.add(
            check=f"a whole frame, {variant}",
            good=problem is None,
            why=problem,
            difference=difference,
            seconds=round(time.monotonic() - started, 2),
        )


def _frame_difference(ground: Ground, network: BenchNetwork, variant: EngineVariant) -> float:
    """The share of the map's largest value by which the graph's map differs."""
    image, made = _pictures(ground)[0], ground.explainer(network, variant)
    _check_drawn(made, image)
    alone = Explainer(
        network.net, network.weights, engine="eager", device="cpu", input_size=network.input_size
    )
    got = made.explain_drawn(image)
    expected = alone.explain(image, got.targets[0].index)
    share = _share(got.cams[0], expected.cams[0])
    if not share <= _MAX_SHARE:
        raise BenchError(f"the map differs by {share:.1%} of its largest value")
    return share


def _check_drawn(made: Explainer, image: BgrImage) -> None:
    """The graph's picture is its own map, drawn by the CPU path."""
    got = made.explain_drawn(image)
    if got.drawn is None:
        raise BenchError("no graph was captured")
    pictures = got.drawn.take(image, MapStyle.of(LookConfig(), n_maps=1))
    if pictures is None:
        raise BenchError("the graph drew another frame")
    check_picture(pictures[0], draw_overlay(image, got), "the graph's picture")


def _share(got: Any, expected: Any) -> float:
    return float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def ring(ground: Ground) -> None:
    """Many frames through all slots, from three threads; each picture is checked."""
    network, pictures = ground.network(), _pictures(ground)
    n_frames = 400 if ground.is_cuda and not ground.is_short else 9
    for variant in ground.variants("fused"):
        made = ground.explainer(network, variant)
        _check_drawn(made, pictures[0])
        started, n_wrong = time.monotonic(), 0
        reserved = torch.cuda.memory_reserved() if ground.is_cuda else 0
        with ThreadPoolExecutor(3) as pool:
            jobs = [
                pool.submit(_check_drawn, made, one) for one in islice(cycle(pictures), n_frames)
            ]
            why = ""
            for job in jobs:
                error = job.exception()
                if error is not None:
                    n_wrong, why = n_wrong + 1, str(error)
        grown = (torch.cuda.memory_reserved() if ground.is_cuda else 0) - reserved
        ground.records.add(
            check=f"ring of {n_frames} frames, {variant}",
            good=not n_wrong and not grown,
            why=f"{n_wrong} wrong, the last: {why}; memory grew by {grown} bytes",
            seconds=round(time.monotonic() - started, 2),
        )


def peers(ground: Ground) -> None:
    """torch-cam and pytorch-grad-cam on the same frames, where they are installed."""
    network, pictures = ground.network(), _pictures(ground)
    module = network.new_module()
    problems = {name: why for name in PEERS if (why := peer_problem(name, module))}
    for name, why in problems.items():
        ground.leave_out(name, why, is_fault=False)
    names = [name for name in PEERS if name not in problems]
    if not names:
        return
    ours = []
    for variant in ground.variants("fused"):
        made = ground.explainer(network, variant)
        comparison = network.comparison((1, 3, *network.shapes_hw[0]))
        ours.append(StreamCamEngine(FrameStages(made, network.net, pictures, comparison), True))
    ground.rows(
        measure_peers(
            {name: network.new_module() for name in names},
            *(network.weights, ours, pictures, ground.sampling),
            *("cuda" if ground.is_cuda else "cpu", ground.leave_out),
        )
    )


def benchmark_off(ground: Ground) -> None:
    """The fused network without cuDNN's benchmark mode, in a thread: plans are kept by thread."""
    network = ground.network()
    for variant in ground.variants("fused"):

        def timed(variant: EngineVariant = variant) -> list[Row]:
            with _benchmark_off(), ground.stream():
                return _network_rows(ground, network, variant, 1)

        with ThreadPoolExecutor(1) as pool:
            rows = pool.submit(timed).result()
        ground.rows(renamed(rows, "network, benchmark off"))


@contextmanager
def _benchmark_off() -> Iterator[None]:
    before = fused._choosing_fastest
    fused._choosing_fastest = nullcontext  # type: ignore[assignment]
    try:
        yield
    finally:
        fused._choosing_fastest = before


def stem(ground: Ground) -> None:
    """The 7×7 stem, fused and as three kernels: it may be slower fused."""
    side, device = ground.side(224), ground.gpu.device
    dtype = torch.float16 if ground.is_cuda else torch.float32
    layer = nn.Conv2d(3, 64, 7, 2, 3).to(device, dtype).to(memory_format=torch.channels_last)
    one = FusedConvolution(layer)
    batch = torch.randn(1, 3, side, side, device=device, dtype=dtype)
    batch = batch.to(memory_format=torch.channels_last)
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "stem, fused": one,
        "stem, convolution and ReLU": lambda x: torch.relu_(layer(x)),
    }
    torch.backends.cudnn.benchmark = True
    for name, form in forms.items():
        ground.attempt(name, partial(_time_form, ground, name, form, batch))


def _time_form(ground: Ground, name: str, form: Callable[[Tensor], Tensor], x: Tensor) -> None:
    times = 20 if ground.is_cuda else 1

    def work() -> None:
        with torch.inference_mode():
            for _ in range(times):
                form(x)

    call = capture_graph(work, ground.gpu.device) if ground.is_cuda else work
    timer = PerItemTimer(CudaTimer() if ground.is_cuda else HostTimer(), times)
    timed = measure({name: TimedCall(call, timer)}, ground.sampling)[name]
    subject = Subject("kernel", name, "", ground.gpu.device, "", 1, None, None, "graph")
    ground.rows([Row.of(subject, f"{tuple(x.shape)} {x.dtype}, in a row in one graph", timed)])

"""The whole benchmark: engines × batches × shapes, stages, peers; verified first, in a budget."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stream_cam.bench.clock import Budget, Case, Effort, measure
from stream_cam.bench.engines import (
    Bound,
    Spec,
    modes_of,
    open_engine,
    parse_specs,
    region_of,
)
from stream_cam.bench.frames import Decoding, coded_file, drawn_frames, source_frames
from stream_cam.bench.machine import examined, examined_after
from stream_cam.bench.result import BenchResult, Row, Subject, size_text
from stream_cam.bench.stages import REGIONS, FrameStages
from stream_cam.cam.cpu import CpuPreprocessor
from stream_cam.cam.geometry import FitPlan
from stream_cam.config import BenchConfig
from stream_cam.engine import Engine
from stream_cam.engine.manifest import Figures
from stream_cam.errors import BenchError, EngineError, StreamCamError, first_line
from stream_cam.explain import Explainer
from stream_cam.frame import BgrImage
from stream_cam.model import CamNet, build_network, load_parameters
from stream_cam.uri import redact_uri
from stream_cam.weights import Weights, load_weights

if TYPE_CHECKING:
    from stream_cam.bench.peers import Ours, Peer

OnStage = Callable[[str], None]
"""Gets what is being done, in a few words."""
OnResult = Callable[[BenchResult], None]
"""Gets the figures so far, after each part."""
GRAPHS = "whole frames as graphs"
"""What is left out of an engine whose frames' graphs fail."""
NO_TIME = "no time left"
"""How the reason of what was not begun any more begins."""
_PEERS_SECONDS = 5
"""Times `--seconds`: one turn of all peers takes as long as many calls of an engine."""


def run_bench(
    config: BenchConfig,
    command: str,
    *,
    on_stage: OnStage = lambda stage: None,
    on_result: OnResult = lambda result: None,
    budget: Budget | None = None,
    more_batches: Sequence[int] = (),
    peers_may_lack: bool = False,
) -> BenchResult:
    """Measures what `config` asks for, except files and comparisons.

    Kernels and whole frames come first: they take seconds, and engines for many batches and shapes
    may take minutes to build.

    Args:
        command: what was typed, as it is to be shown.
        budget: default: a new one of `config.budget` seconds.
        more_batches: at these the fastest engine alone is timed, last, as far as the time allows.
        peers_may_lack: peers that are asked for and not installed are left out; else that is an
            error, before anything is measured.

    Raises:
        UsageError: an unknown name, or a source that is none.
        BenchError: nothing could be measured, with the reasons; or the peers cannot be.
        StreamCamError: the network or the frames cannot be had.
    """
    # Not a GPU's default stream: it waits for all others, and TensorRT synchronises there.
    stream = torch.cuda.Stream() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        bench = _Bench(config, command, on_stage, on_result, budget or Budget(config.budget))
        bench.find_peers(may_lack=peers_may_lack)
        return bench.run(more_batches)


class _Bench:
    def __init__(
        self,
        config: BenchConfig,
        command: str,
        on_stage: OnStage,
        on_result: OnResult,
        budget: Budget,
    ) -> None:
        self._config = config
        self._on_stage, self._on_result, self._budget = on_stage, on_result, budget
        self._effort = Effort(config.samples, config.seconds)
        self._specs = parse_specs(config.engines)
        self._said: set[tuple[Spec, str]] = set()
        self._longest_seconds = 0.0
        self._peers: list[str] = []
        self._frames = _frames(config)
        self._weights = load_weights(
            config.weights, config.model, checkpoint_key=config.checkpoint_key
        )
        self._net = CamNet.from_module(self._module(), name=config.model)
        self._fingerprint = self._net.fingerprint()
        side = self._weights.input_size
        self._shapes = [_size_hw(shape) for shape in config.shape] or [(side, side)]
        source = "drawn scenes" if config.source is None else redact_uri(config.source)
        height, width = self._frames[0].shape[:2]
        self.result = BenchResult(
            command=command,
            machine=examined(),
            network={
                "model": config.model,
                "weights": self._weights.name,
                "weights_sha256": self._weights.sha256,
                "n_classes": self._weights.n_classes,
            },
            source=f"{source}, {width}x{height}",
        )

    def find_peers(self, *, may_lack: bool) -> None:
        """Finds out which of the peers that are asked for can be timed."""
        if not self._config.peers:
            return
        from stream_cam.bench.peers import PEERS, why_not

        module = self._module()
        reasons = {name: why for name in PEERS if (why := why_not(name, module))}
        if reasons and not may_lack:
            raise BenchError("; ".join(dict.fromkeys(reasons.values())))
        for name, why in reasons.items():
            self.result.leave_out(name, why)
        self._peers = [name for name in PEERS if name not in reasons]

    def run(self, more_batches: Sequence[int]) -> BenchResult:
        result = self.result
        self._measure_kernels()
        self._measure_frames()
        examined_after(result.machine)
        for batch in dict.fromkeys(self._config.batch):
            for input_hw in self._shapes:
                if self._may_begin(f"batch {batch}, {size_text(input_hw)}"):
                    self._measure_engines(batch, input_hw)
        self._measure_more(more_batches)
        examined_after(result.machine)
        self._told()
        if not result.rows:
            reasons = "; ".join(f"{one['what']}: {one['why']}" for one in result.left_out)
            raise BenchError(f"nothing could be measured ({reasons})")
        return result

    def _told(self) -> None:
        self.result.seconds = round(self._budget.spent_seconds, 3)
        self._on_result(self.result)

    def _may_begin(self, what: str) -> bool:
        if not self._budget.is_spent:
            return True
        self.result.leave_out(what, f"{NO_TIME} of {self._budget.seconds:g} s")
        return False

    def _leave_out(self, spec: Spec, what: str, error: Exception) -> None:
        """Says once of each engine why it was not measured."""
        why = first_line(error)
        if (spec, why) not in self._said:
            self._said.add((spec, why))
            self.result.leave_out(what, why)

    def _open(self, spec: Spec, batch: int, input_hw: tuple[int, int]) -> Engine:
        return open_engine(self._net, self._fingerprint, spec, input_hw, batch, self._config.device)

    def _measure_engines(self, batch: int, input_hw: tuple[int, int]) -> None:
        """Rows of all engines for one batch and shape."""
        if self._budget.seconds is None:
            self._measure_in_turns(self._specs, batch, input_hw)
            return
        # One after the other: figures must not wait for what another engine's building takes.
        for spec in self._specs:
            started = self._budget.spent_seconds
            self._measure_in_turns([spec], batch, input_hw)
            taken = self._budget.spent_seconds - started
            self._longest_seconds = max(self._longest_seconds, taken)

    def _measure_more(self, batches: Sequence[int]) -> None:
        """Rows of the engine with the most images a second, at the first shape."""
        input_hw = self._shapes[0]
        rows = [
            row
            for row in self.result.rows
            if row.subject.group == "engine" and row.subject.input_hw == input_hw
        ]
        best = max(rows, key=lambda row: row.images_per_second, default=None)
        if best is None:
            return
        name = f"{best.subject.engine}:{best.subject.precision}"
        specs = [spec for spec in self._specs if str(spec) == name]
        for batch in dict.fromkeys(batches):
            if batch in self._config.batch:
                continue
            # What builds it must not be stopped half way: that is the end of everything.
            if self._budget.left_seconds <= self._longest_seconds:
                what = f"{name}, batch {batch}, {size_text(input_hw)}"
                self.result.leave_out(what, "it is measured if there is time enough")
                continue
            self._measure_in_turns(specs, batch, input_hw)

    def _measure_in_turns(
        self, specs: Sequence[Spec], batch: int, input_hw: tuple[int, int]
    ) -> None:
        cases: dict[Subject, Case] = {}
        verified: dict[Subject, tuple[str, Figures]] = {}
        for spec in specs:
            what = f"{spec}, batch {batch}, {size_text(input_hw)}"
            if not self._may_begin(what):
                continue
            self._on_stage(f"verifying {what}")
            try:
                engine = self._open(spec, batch, input_hw)
            except (EngineError, RuntimeError) as error:  # such as no memory for the batch
                self._leave_out(spec, what, error)
                _free()
                continue
            for mode, capture in modes_of(engine.info.device):
                info = engine.info
                subject = Subject(
                    *("engine", "network", info.name, info.device, info.precision),
                    *(batch, input_hw, None, mode),
                )
                try:
                    bound = Bound(engine, capture)
                    figures = bound.verify(self._net)
                    bound.fill(self._batch(input_hw))
                except (EngineError, RuntimeError) as error:
                    self._leave_out(spec, f"{what}, {mode}", error)
                    _free()
                    continue
                cases[subject] = Case(bound.call, bound.clock)
                verified[subject] = region_of(mode, bound.clock), figures
        self._on_stage(f"timing batch {batch}, {size_text(input_hw)}")
        try:
            for subject, timed in measure(cases, self._effort).items():
                region, figures = verified[subject]
                self.result.rows.append(Row.of(subject, region, timed, figures))
        except RuntimeError as error:
            names = ", ".join(dict.fromkeys(f"{one.engine}:{one.precision}" for one in cases))
            self.result.leave_out(
                f"{names}, batch {batch}, {size_text(input_hw)}", first_line(error)
            )
        self._told()

    def _batch(self, input_hw: tuple[int, int]) -> Tensor:
        """(8, 3, h, w) float32: the frames as the network gets them."""
        frames = self._frames[:: max(1, len(self._frames) // 8)][:8]
        plan = FitPlan(_hw(frames[0]), input_hw, 0, 0, input_hw)
        weights = self._weights
        preprocess = CpuPreprocessor(plan, weights.mean, weights.std, weights.interpolation)
        batch = np.empty((len(frames), 3, *input_hw), np.float32)
        for frame, out in zip(frames, batch, strict=True):
            preprocess(frame, out)
        return torch.from_numpy(batch)

    def _measure_frames(self) -> None:
        """Rows of whole frames and their stages, and of peers."""
        ours = list(self._measure_stages())
        if not self._peers or not self._may_begin("peers"):
            return
        try:
            self._measure_peers(ours)
        except Exception as error:  # it is not our code
            self.result.leave_out("peers", first_line(error))
        self._told()

    def _measure_stages(self) -> Iterator[Ours]:
        """Rows of decoding, and of every stage with every engine."""
        from stream_cam.bench.peers import Ours

        config = self._config
        if self._may_begin("decode"):
            self._on_stage("timing decode")
            try:
                self.result.rows.append(self._decode_row())
            except StreamCamError as error:
                self.result.leave_out("decode", str(error))
        for spec in self._specs:
            what = f"{spec}, a frame's stages"
            if not self._may_begin(what):
                continue
            self._on_stage(f"timing a frame's stages with {spec}")
            try:
                explainer = Explainer(
                    self._net,
                    self._weights,
                    engine=spec.engine,
                    device=config.device,
                    precision=spec.precision,
                    input_size=next((side for side, wide in self._shapes if side == wide), None),
                )
                stages = FrameStages(explainer, self._net, self._frames)
                rows = stages.rows(self._effort)
            except Exception as error:  # a compiler of kernels may raise anything
                self._leave_out(spec, what, error)
                _free()
                continue
            self.result.rows += rows
            self._told()
            is_graph = self._measure_graphs(spec, stages)
            self._told()
            yield Ours(stages, is_graph)

    def _measure_graphs(self, spec: Spec, stages: FrameStages) -> bool:
        """Rows of whole frames as graphs, if the engine is on a GPU; whether there are any."""
        what = f"{spec}, {GRAPHS}"
        if stages.info.device == "cpu" or not self._may_begin(what):
            return False
        self._on_stage(f"timing whole frames as graphs with {spec}")
        try:
            from stream_cam.bench.graphs import GraphFrames

            graphs = GraphFrames(stages.explainer, self._frames, stages.verification)
            self.result.rows += graphs.rows(self._effort)
        except Exception as error:  # a compiler of kernels may raise anything
            self._leave_out(spec, what, error)
            return False
        return True

    def _measure_kernels(self) -> None:
        """Rows of the kernels on the GPU, if there is one."""
        if self._config.device == "cpu" or not torch.cuda.is_available():
            return
        try:
            from stream_cam.bench.gpu import kernel_parts
            from stream_cam.gpu.cuda import CudaGpu
        except Exception as error:  # Triton is not everywhere, and where it is not always whole
            self.result.leave_out("kernels", first_line(error))
            return
        gpu = CudaGpu(f"cuda:{torch.cuda.current_device()}")
        parts = kernel_parts(gpu, self._effort, self.result.leave_out)
        for what, make in parts.items():
            if not self._may_begin(what):
                continue
            self._on_stage(f"timing {what}")
            try:
                rows = make()
            except Exception as error:  # a compiler of kernels may raise anything
                self.result.leave_out(what, first_line(error))
                continue
            known = {row.subject for row in self.result.rows}  # as the copy at another size
            self.result.rows += [row for row in rows if row.subject not in known]
            self._told()

    def _decode_row(self) -> Row:
        config = self._config
        with coded_file(config.source, config.frame) as uri, Decoding(uri) as decoding:
            case = Case(decoding.decode, before=decoding.ready)
            timed = measure({"decode": case}, self._effort)["decode"]
        subject = Subject(
            *("stage", "decode", "", "cpu", "", 1, None),
            *(_hw(self._frames[0]), "launch"),
        )
        return Row.of(subject, f"{REGIONS['decode']}; {case.clock.name}", timed)

    def _measure_peers(self, ours: Sequence[Ours]) -> None:
        from stream_cam.bench.peers import peer_rows

        if not ours:
            self.result.leave_out("peers", "there is no verified engine to compare them with")
            return
        self._on_stage("timing peers")
        on_gpu = self._config.device != "cpu" and torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
        # The same input for all, whatever the weights were made for.
        first = ours[0].stages
        weights = replace(self._weights, input_size=first.info.input_shape[2])
        opened = [self._opened(name, weights, device, first.explainer) for name in self._peers]
        peers = [peer for peer in opened if peer is not None]
        if not peers:
            return
        effort = replace(self._effort, seconds=self._effort.seconds * _PEERS_SECONDS)
        self.result.rows += peer_rows(peers, ours, self._frames, effort, device)

    def _opened(
        self, name: str, weights: Weights, device: str, explainer: Explainer
    ) -> Peer | None:
        """A peer that draws this network's maps."""
        from stream_cam.bench.peers import check_peer, open_peer

        try:
            peer = open_peer(name, self._module(), weights, device)
            check_peer(peer, explainer, self._frames[::3])
        except Exception as error:  # it is not our code
            self.result.leave_out(name, first_line(error))
            return None
        return peer

    def _module(self) -> torch.nn.Module:
        module = build_network(self._config.model, self._weights.n_classes)
        load_parameters(module, self._weights.state_dict, self._weights.name)
        return module


def _free() -> None:
    """Lets go of what a case that failed had on the GPU, so that the next one has room."""
    gc.collect()  # buffers and the calls on them refer to one another
    torch.cuda.empty_cache()


def _frames(config: BenchConfig) -> list[BgrImage]:
    return drawn_frames(config.frame) if config.source is None else source_frames(config.source)


def _hw(frame: BgrImage) -> tuple[int, int]:
    return frame.shape[0], frame.shape[1]


def _size_hw(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)

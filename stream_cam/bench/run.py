"""The whole benchmark: engines × batches × shapes, stages, peers, a file; verified, in a budget."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stream_cam.bench.engines import (
    Bound,
    Spec,
    modes_of,
    open_engine,
    parse_specs,
    planned_call,
)
from stream_cam.bench.frames import N_CODED, Decoding, coded_file, drawn_frames, source_frames
from stream_cam.bench.machine import examined, examined_after, pinning, threads
from stream_cam.bench.plan import Plan, Planned, timed_rows
from stream_cam.bench.result import BenchResult, Row, Subject, size_text
from stream_cam.bench.stages import REGIONS, FrameStages
from stream_cam.bench.timing import Budget, Case, Effort
from stream_cam.cam.cpu import CpuPreprocessor
from stream_cam.cam.geometry import FitPlan
from stream_cam.config import BenchConfig, ModelConfig, size_hw
from stream_cam.engine import EngineInfo
from stream_cam.engine.manifest import Figures
from stream_cam.engine.verify import Comparison
from stream_cam.errors import BenchError, EngineError, GateError, StreamCamError, first_line
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage
from stream_cam.host import parallel_choices
from stream_cam.model.camnet import CamNet, build_network, load_parameters
from stream_cam.model.weights import load_weights
from stream_cam.uri import redact_uri

if TYPE_CHECKING:
    from stream_cam.bench.peers import Ours

OnStage = Callable[[str], None]
"""Gets what is being done, in a few words."""
OnResult = Callable[[BenchResult], None]
"""Gets the figures so far, after each part."""
GRAPHS = "whole frames as graphs"
"""What is left out of an engine whose frames' graphs fail."""
NO_TIME = "no time left"
"""How the reason of what was not begun any more begins."""


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
    """Measures what `config` asks for, except comparisons.

    All engines are opened and verified first, then all rows take turns. With a budget each engine
    is timed at once when it is verified, whole frames first: engines for many batches and shapes
    may take minutes to build, and figures must not wait for them. No file is run then.

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
        self._in_turns = self._budget.seconds is None
        self._waiting: dict[Subject, Planned] = {}
        self._open_files = ExitStack()
        self._comparisons: dict[tuple[int, ...], Comparison] = {}
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
        self._shapes = [size_hw(shape) for shape in config.shape] or [(side, side)]
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
            method={
                **asdict(self._effort),
                "in_turns": self._in_turns,
                "threads": threads(),
                "pinning": pinning(),
            },
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
        with self._open_files:
            self._measure_kernels()
            self._plan_decode()
            ours = list(self._plan_frames())
            if not self._in_turns:
                self._measure_peers(ours)
                examined_after(result.machine)
            for batch in dict.fromkeys(self._config.batch):
                for input_hw in self._shapes:
                    if self._may_begin(f"batch {batch}, {size_text(input_hw)}"):
                        self._plan_engines(self._specs, batch, input_hw)
            self._measure_waiting()
        if self._in_turns:
            self._measure_peers(ours)
        self._measure_more(more_batches)
        self._measure_file()
        examined_after(result.machine)
        self._told()
        if not result.rows:
            reasons = "; ".join(f"{one['what']}: {one['why']}" for one in result.left_out)
            raise BenchError(f"nothing could be measured ({reasons})")
        return result

    def _plan(self, plan: Plan) -> None:
        """Has it measured with all else, or at once if there is a budget."""
        self._waiting.update(plan)
        if not self._in_turns:
            self._measure_waiting()

    def _measure_waiting(self) -> None:
        """Rows of all that is planned, in turns; after each turn the figures so far are told."""
        plan, self._waiting = self._waiting, {}
        result, known = self.result, list(self.result.rows)
        n_told = 0

        def on_turn(rows: list[Row]) -> None:
            nonlocal n_told
            n_told += 1
            self._on_stage(f"timed {len(plan)} rows, turn {n_told} of {self._effort.turns}")
            result.rows = known + rows
            self._told()

        def on_error(subject: Subject, error: RuntimeError) -> None:
            parts = [subject.name, *([f"batch {subject.batch}"] if subject.batch > 1 else [])]
            what = ", ".join([f"{subject.engine}:{subject.precision}", *parts])
            result.leave_out(f"{what}, {size_text(subject.input_hw)}", first_line(error))

        self._on_stage(f"timing {len(plan)} rows in turns")
        result.rows = known + timed_rows(plan, self._effort, on_turn=on_turn, on_error=on_error)
        self._told()

    def _told(self) -> None:
        self.result.seconds = round(self._budget.spent_seconds, 3)
        self._on_result(self.result)

    def _may_begin(self, what: str) -> bool:
        if not self._budget.is_spent:
            return True
        self.result.leave_out(what, f"{NO_TIME} of {self._budget.seconds:g} s")
        return False

    def _leave_out(self, spec: Spec, what: str, error: Exception, *, opening: bool = False) -> None:
        """Says once of each engine why it was not measured.

        Args:
            opening: it could not be opened: there may be no such engine here, which is no fault.
        """
        why = first_line(error)
        if (spec, why) not in self._said:
            self._said.add((spec, why))
            missing = isinstance(error, EngineError) and not isinstance(error, GateError)
            self.result.leave_out(what, why, not_here=opening and missing)

    def _plan_engines(self, specs: Sequence[Spec], batch: int, input_hw: tuple[int, int]) -> None:
        """Rows of engines for one batch and shape."""
        for spec in specs:
            what = f"{spec}, batch {batch}, {size_text(input_hw)}"
            if not self._may_begin(what):
                continue
            started = self._budget.spent_seconds
            self._plan_engine(spec, what, batch, input_hw)
            if batch == 1:
                self._plan_streams(spec, input_hw)
            taken = self._budget.spent_seconds - started
            self._longest_seconds = max(self._longest_seconds, taken)

    def _plan_engine(
        self, spec: Spec, what: str, batch: int, input_hw: tuple[int, int], parallel: int = 1
    ) -> None:
        """Rows of one engine, in each way in which it can be called."""
        config = self._config
        self._on_stage(f"verifying {what}")
        try:
            engine = open_engine(
                *(self._net, self._fingerprint, spec, input_hw, batch, config.device),
                parallel=parallel,
            )
        except (EngineError, RuntimeError) as error:  # such as no memory for the batch
            self._leave_out(spec, what, error, opening=True)
            _free()
            return
        info = engine.info
        if info.parallel != parallel:
            return  # it has no streams
        if info.threads:
            streams = f" with {parallel} streams" if parallel > 1 else ""
            self.result.method["threads"][f"{info.name} {info.precision}{streams}"] = info.threads
        for mode, capture in modes_of(info.device):
            name = mode if parallel == 1 else f"{parallel} streams"
            try:
                planned = planned_call(engine, mode, capture, self._verify, self._batch(input_hw))
            except (EngineError, RuntimeError) as error:
                self._leave_out(spec, f"{what}, {name}", error)
                _free()
                continue
            self._plan({_subject(info, batch, name): planned})

    def _verify(self, bound: Bound) -> Figures:
        return bound.verify(self._net, self._comparison(bound.info.input_shape))

    def _comparison(self, input_shape: tuple[int, ...]) -> Comparison:
        """What the network itself says at an input shape, which all engines are compared with."""
        one = (1, *input_shape[1:])
        if one not in self._comparisons:
            self._comparisons[one] = Comparison(self._net, one)
        return self._comparisons[one]

    def _plan_streams(self, spec: Spec, input_hw: tuple[int, int]) -> None:
        """A row of the engine as `run` has it for files: several images at once."""
        parallel = max(parallel_choices())
        what = f"{spec}, {parallel} streams, {size_text(input_hw)}"
        if parallel > 1 and spec.engine == "openvino":
            self._plan_engine(spec, what, 1, input_hw, parallel)

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
            self._plan_engines(specs, batch, input_hw)
            self._measure_waiting()

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

    def _plan_decode(self) -> None:
        """A row of decoding; its file stays open until it is measured."""
        config = self._config
        if not self._may_begin("decode"):
            return
        try:
            uri = self._open_files.enter_context(coded_file(config.source, config.frame))
            decoding = self._open_files.enter_context(Decoding(uri))
        except StreamCamError as error:
            self.result.leave_out("decode", str(error))
            return
        subject = Subject(
            *("stage", "decode", "", "cpu", "", 1, None),
            *(_hw(self._frames[0]), "launch"),
        )
        case = Case(decoding.decode, before=decoding.ready)
        self._plan({subject: Planned(case, REGIONS["decode"])})

    def _plan_frames(self) -> Iterator[Ours]:
        """Rows of every stage of a frame with every engine, and of whole frames as graphs."""
        from stream_cam.bench.peers import Ours

        for spec in self._specs:
            what = f"{spec}, a frame's stages"
            if not self._may_begin(what):
                continue
            self._on_stage(f"verifying a frame's stages with {spec}")
            explainer: Explainer | None = None
            try:
                explainer = self._explainer(spec)
                assert explainer.engine is not None
                comparison = self._comparison(explainer.engine.info.input_shape)
                stages = FrameStages(explainer, self._net, self._frames, comparison)
                self._plan(stages.plan())
            except Exception as error:  # a compiler of kernels may raise anything
                self._leave_out(spec, what, error, opening=explainer is None)
                _free()
                continue
            yield Ours(stages, self._plan_graphs(spec, stages))

    def _explainer(self, spec: Spec) -> Explainer:
        return Explainer(
            self._net,
            self._weights,
            engine=spec.engine,
            device=self._config.device,
            precision=spec.precision,
            input_size=self._input_size,
        )

    @property
    def _input_size(self) -> int | None:
        """Side of the first square shape."""
        return next((side for side, wide in self._shapes if side == wide), None)

    def _plan_graphs(self, spec: Spec, stages: FrameStages) -> bool:
        """Rows of whole frames as graphs, if the engine is on a GPU; whether there are any."""
        what = f"{spec}, {GRAPHS}"
        if stages.info.device == "cpu" or not self._may_begin(what):
            return False
        self._on_stage(f"verifying whole frames as graphs with {spec}")
        try:
            from stream_cam.bench.graphs import GraphFrames

            graphs = GraphFrames(stages.explainer, self._frames, stages.verification)
            self._plan(graphs.plan())
        except Exception as error:  # a compiler of kernels may raise anything
            self._leave_out(spec, what, error)
            return False
        return True

    def _measure_file(self) -> None:
        """A whole file through `run`, with the engine that explains a frame soonest."""
        frames = [row for row in self.result.rows if row.subject.name == "frame"]
        if not self._config.file or not self._in_turns or not frames:
            return
        from stream_cam.bench.throughput import file_throughput

        config = self._config
        best = min(frames, key=lambda row: row.mean_ms).subject
        model = ModelConfig(
            config.model,
            config.weights,
            engine=best.engine,  # type: ignore[arg-type]
            device=config.device,
            precision=best.precision,  # type: ignore[arg-type]
            input_size=self._input_size,
        )
        self._on_stage("running a whole file")
        try:
            with coded_file(config.source, config.frame) as uri:
                self.result.files.append(file_throughput(uri, model, N_CODED))
        except StreamCamError as error:
            self.result.leave_out("a whole file through `run`", str(error))
        self._told()

    def _measure_kernels(self) -> None:
        """Rows of the kernels on the GPU, if there is one."""
        if self._config.device == "cpu" or not torch.cuda.is_available():
            return
        try:
            from stream_cam.bench.kernels import kernel_parts
            from stream_cam.explain.graph.cuda_device import CudaGpu
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

    def _measure_peers(self, ours: Sequence[Ours]) -> None:
        """Rows of whole frames beside peers, in turns."""
        if not self._peers or not self._may_begin("peers"):
            return
        from stream_cam.bench.peers import measured_peers

        if not ours:
            self.result.leave_out("peers", "there is no verified engine to compare them with")
            return
        self._on_stage("timing peers")
        on_gpu = self._config.device != "cpu" and torch.cuda.is_available()
        try:
            self.result.rows += measured_peers(
                {name: self._module() for name in self._peers},
                self._weights,
                ours,
                self._frames,
                self._effort,
                "cuda" if on_gpu else "cpu",
                self.result.leave_out,
            )
        except Exception as error:  # it is not our code
            self.result.leave_out("peers", first_line(error))
        self._told()

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


def _subject(info: EngineInfo, batch: int, mode: str) -> Subject:
    input_hw = (info.input_shape[2], info.input_shape[3])
    return Subject(
        *("engine", "network", info.name, info.device, info.precision),
        *(batch, input_hw, None, mode),
    )

"""A whole benchmark: engines × batches × shapes, stages, peers and a file, within a time budget."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import torch

from stream_cam.bench.engines import (
    BoundSession,
    EngineVariant,
    call_modes,
    parse_variants,
    plan_call,
)
from stream_cam.bench.frames import (
    N_ENCODED,
    DecodeLoop,
    encoded_file,
    scene_frames,
    source_frames,
)
from stream_cam.bench.machine import (
    add_state_after,
    core_pinning,
    describe_machine,
    library_threads,
)
from stream_cam.bench.network import BenchNetwork
from stream_cam.bench.plan import PlannedRow
from stream_cam.bench.recorder import OnResult, OnStage, Recorder
from stream_cam.bench.result import BenchResult, Subject, size_text
from stream_cam.bench.stages import REGIONS, FrameStages
from stream_cam.bench.timing import Budget, Sampling, TimedCall
from stream_cam.config import BenchConfig
from stream_cam.engine import EngineInfo
from stream_cam.engine.backends import find_backend
from stream_cam.engine.manifest import Figures
from stream_cam.errors import BenchError, EngineError, StreamCamError, first_line
from stream_cam.explain.explainer import Explainer
from stream_cam.host import parallel_choices
from stream_cam.uri import redact_uri

if TYPE_CHECKING:
    from stream_cam.bench.peers import StreamCamEngine

GRAPHS = "whole frames as graphs"
"""Last words of the name under which an engine's frame graphs are left out."""


def run_bench(
    config: BenchConfig,
    command: str,
    *,
    on_stage: OnStage = lambda stage: None,
    on_result: OnResult = lambda result: None,
    budget: Budget | None = None,
) -> BenchResult:
    """Measures everything that `config` selects, except comparisons.

    All engines are opened and verified first, then all rows take turns. With a budget each engine
    is timed as soon as it is verified, and whole frames come first. Engines for many batches and
    shapes may take minutes to build, and figures must not wait for them. No file is run then.

    Args:
        command: the command line, as it is shown.
        budget: default: a new one of `config.budget` seconds.

    Raises:
        UsageError: an unknown name, or a source that is none.
        BenchError: nothing could be measured, or a peer is missing; with the reasons.
        StreamCamError: the network or the frames cannot be loaded.
    """
    # Not a GPU's default stream: it waits for all others, and TensorRT synchronises there.
    stream = torch.cuda.Stream() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        bench = _Bench(config, command, on_stage, on_result, budget or Budget(config.budget))
        bench.find_peers()
        return bench.run()


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
        self._variants = parse_variants(config.engines)
        self._open_files = ExitStack()
        self._peers: list[str] = []
        self._frames = (
            scene_frames(config.frame) if config.source is None else source_frames(config.source)
        )
        height, width = self._frame_hw = self._frames[0].shape[0], self._frames[0].shape[1]
        self._network = BenchNetwork(config)
        sampling = Sampling(config.samples, config.seconds)
        source = "drawn scenes" if config.source is None else redact_uri(config.source)
        self._result = BenchResult(
            command=command,
            machine=describe_machine(),
            network=self._network.facts(),
            source=f"{source}, {width}x{height}",
            method={
                **asdict(sampling),
                "in_turns": budget.seconds is None,
                "threads": library_threads(),
                "pinning": core_pinning(),
            },
        )
        self._recorder = Recorder(self._result, sampling, budget, on_stage, on_result)

    def find_peers(self) -> None:
        """Takes the requested peers; raises BenchError if one cannot be timed here."""
        if not self._config.peers:
            return
        from stream_cam.bench.peers import PEERS, peer_problem

        module = self._network.new_module()
        problems = {name: why for name in PEERS if (why := peer_problem(name, module))}
        if problems:
            raise BenchError("; ".join(dict.fromkeys(problems.values())))
        self._peers = list(PEERS)

    def run(self) -> BenchResult:
        result, recorder = self._result, self._recorder
        with self._open_files:
            self._measure_kernels()
            self._plan_decode()
            own_engines = list(self._plan_frames())
            if not recorder.in_turns:
                self._measure_peers(own_engines)
                add_state_after(result.machine)
            for batch in dict.fromkeys(self._config.batch):
                for input_hw in self._network.shapes_hw:
                    if recorder.may_begin(f"batch {batch}, {size_text(input_hw)}"):
                        self._plan_engines(self._variants, batch, input_hw)
            recorder.measure_planned()
        if recorder.in_turns:
            self._measure_peers(own_engines)
        self._measure_file()
        add_state_after(result.machine)
        recorder.report()
        if not result.rows:
            reasons = "; ".join(f"{one['what']}: {one['why']}" for one in result.left_out)
            raise BenchError(f"nothing could be measured ({reasons})")
        return result

    def _plan_engines(
        self, variants: Sequence[EngineVariant], batch: int, input_hw: tuple[int, int]
    ) -> None:
        """Rows of engines for one batch and shape."""
        for variant in variants:
            what = f"{variant}, batch {batch}, {size_text(input_hw)}"
            if not self._recorder.may_begin(what):
                continue
            self._plan_engine(variant, what, batch, input_hw)
            if batch == 1:
                self._plan_streams(variant, input_hw)

    def _plan_engine(
        self,
        variant: EngineVariant,
        what: str,
        batch: int,
        input_hw: tuple[int, int],
        parallel: int = 1,
    ) -> None:
        """Rows of one engine, in each mode in which it can be called."""
        recorder = self._recorder
        recorder.on_stage(f"verifying {what}")
        try:
            engine = self._network.engine(variant, input_hw, batch, parallel)
        except (EngineError, RuntimeError) as error:  # such as no memory for the batch
            recorder.leave_out(variant, what, error, opening=True)
            _free_memory()
            return
        info = engine.info
        if info.parallel != parallel:
            return  # this engine has no streams
        if info.threads:
            streams = f" with {parallel} streams" if parallel > 1 else ""
            self._result.method["threads"][f"{info.name} {info.precision}{streams}"] = info.threads
        images = self._network.input_batch(self._frames, input_hw)
        for mode, capture in call_modes(info.device):
            name = mode if parallel == 1 else f"{parallel} streams"
            try:
                planned = plan_call(engine, mode, capture, self._verify, images)
            except (EngineError, RuntimeError) as error:
                recorder.leave_out(variant, f"{what}, {name}", error)
                _free_memory()
                continue
            recorder.plan({_engine_subject(info, batch, name): planned})

    def _verify(self, bound: BoundSession) -> Figures:
        network = self._network
        return bound.verify(network.net, network.comparison(bound.info.input_shape))

    def _plan_streams(self, variant: EngineVariant, input_hw: tuple[int, int]) -> None:
        """A row of the engine as `run` uses it for files: several images at once."""
        parallel = max(parallel_choices())
        what = f"{variant}, {parallel} streams, {size_text(input_hw)}"
        if parallel > 1 and find_backend(variant.engine).has_streams:
            self._plan_engine(variant, what, 1, input_hw, parallel)

    def _plan_decode(self) -> None:
        """A row of decoding; its file stays open until it is measured."""
        config = self._config
        if not self._recorder.may_begin("decode"):
            return
        try:
            uri = self._open_files.enter_context(encoded_file(config.source, config.frame))
            decoding = self._open_files.enter_context(DecodeLoop(uri))
        except StreamCamError as error:
            self._result.leave_out("decode", str(error))
            return
        subject = Subject(
            *("stage", "decode", "", "cpu", "", 1, None),
            *(self._frame_hw, "launch"),
        )
        timed_call = TimedCall(decoding.decode, setup=decoding.prepare)
        self._recorder.plan({subject: PlannedRow(timed_call, REGIONS["decode"])})

    def _plan_frames(self) -> Iterator[StreamCamEngine]:
        """Rows of every stage of a frame with every engine, and of whole frames as graphs."""
        from stream_cam.bench.peers import StreamCamEngine

        recorder, network = self._recorder, self._network
        for variant in self._variants:
            what = f"{variant}, a frame's stages"
            if not recorder.may_begin(what):
                continue
            recorder.on_stage(f"verifying a frame's stages with {variant}")
            explainer: Explainer | None = None
            try:
                explainer = network.explainer(variant)
                assert explainer.engine is not None
                comparison = network.comparison(explainer.engine.info.input_shape)
                stages = FrameStages(explainer, network.net, self._frames, comparison)
                recorder.plan(stages.plan())
            except Exception as error:  # a compiler of kernels may raise anything
                recorder.leave_out(variant, what, error, opening=explainer is None)
                _free_memory()
                continue
            yield StreamCamEngine(stages, self._plan_graphs(variant, stages))

    def _plan_graphs(self, variant: EngineVariant, stages: FrameStages) -> bool:
        """Rows of whole frames as graphs, for an engine on a GPU; whether there are any."""
        what, recorder = f"{variant}, {GRAPHS}", self._recorder
        if stages.info.device == "cpu" or not recorder.may_begin(what):
            return False
        recorder.on_stage(f"verifying whole frames as graphs with {variant}")
        try:
            from stream_cam.bench.graphs import GraphFrames

            graphs = GraphFrames(stages.explainer, self._frames, stages.verification)
            recorder.plan(graphs.plan())
        except Exception as error:  # a compiler of kernels may raise anything
            recorder.leave_out(variant, what, error)
            return False
        return True

    def _measure_file(self) -> None:
        """A whole file through `run`, with the engine that explains a frame soonest."""
        config, recorder = self._config, self._recorder
        frames = [row for row in self._result.rows if row.subject.name == "frame"]
        if not config.file or not recorder.in_turns or not frames:
            return
        from stream_cam.bench.throughput import file_throughput

        best = min(frames, key=lambda row: row.mean_ms).subject
        model = replace(
            config.network,
            engine=best.engine,  # type: ignore[arg-type]
            device=config.device,
            precision=best.precision,  # type: ignore[arg-type]
            input_size=self._network.input_size,
        )
        recorder.on_stage("running a whole file")
        try:
            with encoded_file(config.source, config.frame) as uri:
                self._result.files.append(file_throughput(uri, model, N_ENCODED))
        except StreamCamError as error:
            self._result.leave_out("a whole file through `run`", str(error))
        recorder.report()

    def _measure_kernels(self) -> None:
        """Rows of the kernels on the GPU, if there is one."""
        if self._config.device == "cpu" or not torch.cuda.is_available():
            return
        result, recorder = self._result, self._recorder
        try:
            from stream_cam.bench.kernels import kernel_parts
            from stream_cam.explain.graph.cuda_device import CudaGpu
        except Exception as error:  # Triton may be missing, or be installed in part
            result.leave_out("kernels", first_line(error))
            return
        gpu = CudaGpu(f"cuda:{torch.cuda.current_device()}")
        parts = kernel_parts(gpu, recorder.sampling, result.leave_out)
        for what, measure in parts.items():
            if not recorder.may_begin(what):
                continue
            recorder.on_stage(f"timing {what}")
            try:
                rows = measure()
            except Exception as error:  # a compiler of kernels may raise anything
                result.leave_out(what, first_line(error))
                continue
            known = {row.subject for row in result.rows}  # the copy is timed at each size
            result.rows += [row for row in rows if row.subject not in known]
            recorder.report()

    def _measure_peers(self, own_engines: Sequence[StreamCamEngine]) -> None:
        """Rows of whole frames beside peers, in turns."""
        result, recorder = self._result, self._recorder
        if not self._peers or not recorder.may_begin("peers"):
            return
        from stream_cam.bench.peers import measure_peers

        if not own_engines:
            result.leave_out("peers", "there is no verified engine to compare them with")
            return
        recorder.on_stage("timing peers")
        on_gpu = self._config.device != "cpu" and torch.cuda.is_available()
        try:
            result.rows += measure_peers(
                {name: self._network.new_module() for name in self._peers},
                self._network.weights,
                own_engines,
                self._frames,
                recorder.sampling,
                "cuda" if on_gpu else "cpu",
                result.leave_out,
            )
        except Exception as error:  # other people's code may raise anything
            result.leave_out("peers", first_line(error))
        recorder.report()


def _free_memory() -> None:
    """Frees the GPU memory of a call that failed, so that the next one has room."""
    gc.collect()  # buffers and the calls on them refer to one another
    torch.cuda.empty_cache()


def _engine_subject(info: EngineInfo, batch: int, mode: str) -> Subject:
    input_hw = (info.input_shape[2], info.input_shape[3])
    return Subject(
        *("engine", "network", info.name, info.device, info.precision),
        *(batch, input_hw, None, mode),
    )

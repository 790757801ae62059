"""The steps of `gpu_check.py`, by name; each gets its ground and records what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import gpu_cache
import numpy as np
import torch
from gpu_records import Records

from stream_cam.bench.engines import EngineVariant, parse_variants
from stream_cam.bench.network import BenchNetwork
from stream_cam.bench.result import Row
from stream_cam.bench.timing import Sampling
from stream_cam.config import BenchConfig
from stream_cam.errors import first_line
from stream_cam.explain.explainer import Explainer
from stream_cam.explain.graph.device import Gpu

NO_GPU = 3
"""Exit code of a step where no GPU can be used."""
FULL_HD, FOUR_K = (1080, 1920), (2160, 3840)


@dataclass(frozen=True)
class Settings:
    """Of all steps."""

    device: str
    """cuda, or simulated."""
    short: bool
    scratch: Path
    """A folder for what is not a result."""
    after: Path | None
    """Results of the first stage."""
    command: str


class Ground:
    """Where a step works: a CUDA GPU, or the tests' simulated one on the CPU."""

    def __init__(self, settings: Settings, records: Records) -> None:
        self.settings, self.records = settings, records
        self.is_cuda = settings.device == "cuda"
        self.is_short = settings.short

    @cached_property
    def gpu(self) -> Gpu:
        if self.is_cuda:
            from stream_cam.explain.graph.cuda_device import CudaGpu

            return CudaGpu("cuda:0")
        from support.simulated_gpu import SimulatedGpu

        return SimulatedGpu()

    @property
    def sampling(self) -> Sampling:
        if self.is_short or not self.is_cuda:
            return Sampling(samples=1, seconds=1.0, warm_ups=1, turns=1)
        return Sampling(samples=300, seconds=1.0)

    @property
    def cold_bytes(self) -> int:
        """Size of the frames that a kernel is timed on: three times the cache, or two frames."""
        return 160 << 20 if self.is_cuda else 1

    def size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """A size of frames, or a small one of the same shape."""
        return (size_hw[0] // 9, size_hw[1] // 12) if self.is_short else size_hw

    def side(self, side: int) -> int:
        return side // 4 if self.is_short else side

    def variants(self, *engines: str) -> list[EngineVariant]:
        """The engines in fp16; the simulated GPU has the eager one in fp32."""
        if not self.is_cuda:
            return parse_variants(["eager:fp32"])
        return parse_variants([f"{engine}:fp16" for engine in engines])

    def network(self, side: int = 224) -> BenchNetwork:
        """The demo's network, for square inputs."""
        side = self.side(side)
        device = "cuda" if self.is_cuda else "cpu"
        config = BenchConfig(shape=(f"{side}x{side}",), device=device, file=False)  # type: ignore[arg-type]
        return BenchNetwork(config)

    def explainer(self, network: BenchNetwork, variant: EngineVariant) -> Explainer:
        """With graphs, on the simulated GPU too."""
        made = network.explainer(variant)
        if not self.is_cuda:
            from stream_cam.explain.graph.scheduler import FrameGraphs

            made.graphs = FrameGraphs(self.gpu, made.weights, made._class_weight)
        return made

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Not the default stream: it waits for all others."""
        stream = torch.cuda.Stream() if self.is_cuda else None  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            yield

    def rows(self, rows: Iterable[Row], **more: object) -> None:
        """Records rows, with other percentiles in place of the samples."""
        for row in rows:
            figures = asdict(row)
            samples = np.array(figures.pop("samples_ms"))
            figures |= figures.pop("subject")
            for share in (20, 80):
                figures[f"p{share}_ms"] = round(float(np.percentile(samples, share)), 6)
            if figures["p50_ms"] is None:
                figures["p50_ms"] = float(np.median(samples))
            self.records.add(row=figures, **more)

    def leave_out(self, what: str, why: str, *, is_fault: bool = True) -> None:
        fault = {"good": False} if is_fault else {}
        self.records.add(left_out=what, why=why, **fault)

    def attempt(self, what: str, work: Callable[[], object]) -> None:
        """Records an error in place of a result; a compiler of kernels may raise anything."""
        try:
            work()
        except Exception as error:
            import traceback

            traceback.print_exc()
            self.leave_out(what, f"{type(error).__name__}: {first_line(error)}")


def run_step(name: str, settings: Settings, records: Records) -> int:
    """Does a step in this process; the exit code."""
    gpu_cache.install()
    ground = Ground(settings, records)
    if ground.is_short:
        torch.set_num_threads(1)
    if ground.is_cuda and not torch.cuda.is_available():
        ground.leave_out("all", "no CUDA GPU is usable here: see nvidia-smi")
        return NO_GPU
    with ground.stream():
        steps()[name](ground)
    return 0


def steps() -> Mapping[str, Callable[[Ground], None]]:
    """All steps of both stages."""
    import gpu_frame_steps
    import gpu_kernel_steps
    import gpu_tool_steps

    return {
        name: getattr(module, name)
        for module in (gpu_kernel_steps, gpu_frame_steps, gpu_tool_steps)
        for name in module.STEPS
    }


def renamed(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows of a variant, under another name."""
    return [replace(row, subject=replace(row.subject, name=name)) for row in rows]

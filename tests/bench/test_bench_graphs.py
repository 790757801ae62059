"""`stream-cam bench` of kernels and graphs on the simulated GPU: verified, then timed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.bench_parts import NETWORK, result
from support.bench_parts import row as row_of
from support.graph_parts import picture
from support.networks import LABELS, small_network

from stream_cam.bench.plan import time_rows
from stream_cam.bench.recorder import Recorder
from stream_cam.bench.result import BenchResult, Row
from stream_cam.bench.run import GRAPHS, _Bench
from stream_cam.bench.table import markdown
from stream_cam.bench.timing import Budget, Sampling
from stream_cam.config import BenchConfig
from stream_cam.errors import BenchError, EngineError
from stream_cam.explain.explainer import Explainer

pytest.importorskip("triton", reason="no Triton for this system")

from support.simulated_gpu import SimulatedGpu

from stream_cam.bench import kernels as kernel_bench
from stream_cam.bench.graphs import REGIONS, GraphFrames
from stream_cam.bench.kernel_timing import PerItemTimer
from stream_cam.bench.kernels import kernel_rows, small_kernel_rows
from stream_cam.explain.graph.scheduler import FrameGraphs
from stream_cam.explain.graph.slot import Slot

QUICK = Sampling(samples=2, seconds=60.0, warm_ups=1, turns=1)
SMALL: dict[str, Any] = {"cold_bytes": 1, "copied_bytes": 1 << 16}


def explainer() -> Explainer:
    made = Explainer.from_module(
        small_network(), labels=LABELS, engine="eager", device="cpu", input_size=64
    )
    made.graphs = FrameGraphs(SimulatedGpu(), made.weights, made._class_weight)
    return made


def kernels(gpu: SimulatedGpu) -> tuple[list[Row], dict[str, str]]:
    """Rows, and the reason for each kernel left out."""
    left_out: dict[str, str] = {}
    rows = kernel_rows(gpu, QUICK, (240, 256), left_out.__setitem__, **SMALL)
    return rows, left_out


def test_kernels_are_timed_beside_a_copy_and_plain_torch(tmp_path: Any) -> None:
    rows, left_out = kernels(SimulatedGpu())
    assert left_out == {}
    assert [row.subject.name for row in rows] == [
        "copy",
        *("overlay 256x240", "overlay 256x240, torch"),
        *("overlay bicubic 256x240", "overlay bicubic 256x240, torch", "overlay smooth 256x240"),
        *("maps+overlay 256x240", "maps+overlay 256x240, torch"),
        *("preprocess 256x240", "preprocess 256x240, torch"),
        *("overlay nv12 256x240", "preprocess nv12 256x240"),
    ]
    by_name = {row.subject.name: row for row in rows}
    copy, overlay = by_name["copy"], by_name["overlay 256x240"]
    assert "0.1 MB at" in copy.region
    moved = 6 * 240 * 256
    rate = moved / (sum(overlay.samples_ms) / 2) / 1e6
    own = float(overlay.region.partition(" MB at ")[2].partition(" GB/s")[0])
    assert own == pytest.approx(rate, abs=0.51)
    assert "of the copy's" in overlay.region
    slower = float(np.median(by_name["overlay 256x240, torch"].samples_ms))
    slower /= float(np.median(overlay.samples_ms))
    ratio = float(overlay.region.partition("copy's, ")[2].partition(" times")[0])
    assert ratio == pytest.approx(slower, abs=0.06)
    assert overlay.images_per_second == pytest.approx(2e3 / sum(overlay.samples_ms), 1e-3)
    found = result(*rows)
    assert "kernels on the GPU" in markdown(found)
    found.write(tmp_path / "a.json")
    assert [row.subject for row in BenchResult.read(tmp_path / "a.json").rows] == [
        row.subject for row in rows
    ]


def test_choice_maps_and_filter_are_timed_beside_plain_torch() -> None:
    left_out: dict[str, str] = {}
    rows = small_kernel_rows(SimulatedGpu(), QUICK, left_out.__setitem__)
    assert left_out == {}
    names = [row.subject.name for row in rows]
    assert names == ["choice", "choice, torch", "maps", "maps, torch", "filter"]
    assert "times as fast as plain torch" in rows[0].region
    assert all(row.subject.frame_hw is None for row in rows)


@pytest.mark.parametrize(
    ("which", "output", "name"),
    [
        ("choose_classes", "probability", "choice"),
        ("choose_classes", "best", "choice"),
        ("class_maps", "scaled", "maps"),
        ("class_maps", "cams", "maps"),
        ("smooth_maps", "ranges", "filter"),
        ("scale_maps", "scaled", "filter"),
    ],
)
def test_a_small_kernel_that_is_wrong_is_not_timed_but_the_others_are(
    which: str, output: str, name: str
) -> None:
    gpu, left_out = SimulatedGpu(), dict[str, str]()
    right = getattr(gpu.kernels, which)

    def wrong(*arguments: Any, **outputs: Any) -> None:
        right(*arguments, **outputs)
        outputs[output].add_(1)

    setattr(gpu.kernels, which, wrong)
    rows = small_kernel_rows(gpu, QUICK, left_out.__setitem__)
    assert left_out.keys() == {f"kernel {name}"}
    assert left_out[f"kernel {name}"].startswith(f"the {name} differs from its reference")
    assert {row.subject.name.partition(",")[0] for row in rows} == {"choice", "maps", "filter"} - {
        name
    }


def test_maps_that_are_wrong_are_not_timed_as_far_as_the_picture() -> None:
    gpu = SimulatedGpu()
    right = gpu.kernels.class_maps

    def wrong(*arguments: Any, scaled: torch.Tensor, **options: Any) -> None:
        right(*arguments, scaled=scaled, **options)
        scaled.mul_(0.5)

    gpu.kernels.class_maps = wrong  # type: ignore[method-assign]
    rows, left_out = kernels(gpu)
    assert left_out.keys() == {"kernel maps+overlay 256×240"}
    assert "overlay 256x240" in {row.subject.name for row in rows}


@pytest.mark.parametrize(("which", "n_left_out"), [("overlay", 4), ("preprocess", 1)])
def test_a_kernel_that_is_wrong_is_not_timed_but_the_others_are(
    which: str, n_left_out: int
) -> None:
    gpu = SimulatedGpu()
    right = getattr(gpu.kernels, which)

    def wrong(*arguments: Any, out: torch.Tensor) -> None:
        right(*arguments, out=out)
        out[..., :40] += 40 if which == "overlay" else 0.01

    setattr(gpu.kernels, which, wrong)
    rows, left_out = kernels(gpu)
    assert left_out[f"kernel {which} 256×240"].startswith(f"{which} differs from its reference")
    # The overlay also with the other kinds of upsampling, and after the maps.
    assert len(left_out) == n_left_out
    names = {row.subject.name for row in rows}
    assert names >= {"copy", "overlay nv12 256x240", "preprocess nv12 256x240"}
    assert f"{which} 256x240" not in names


@pytest.mark.parametrize(
    ("which", "what", "said", "name", "other"),
    [
        *(
            ("overlay_nv12_reference", f"out_{plane}", plane, "overlay nv12", "preprocess nv12")
            for plane in ("luma", "chroma")
        ),
        ("preprocess_nv12_reference", "out", *["preprocess nv12"] * 2, "overlay nv12"),
    ],
)
def test_a_kernel_for_nv12_that_is_wrong_is_not_timed(
    which: str, what: str, said: str, name: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, n_calls = getattr(kernel_bench, which), 0

    def wrong_at_first(*arguments: Any, **results: torch.Tensor) -> None:
        """On the CPU the reference is its own kernel."""
        nonlocal n_calls
        right(*arguments, **results)
        n_calls += 1
        if n_calls == 1:
            results[what][..., :20] += 40

    monkeypatch.setattr(kernel_bench, which, wrong_at_first)
    rows, left_out = kernels(SimulatedGpu())
    assert left_out.keys() == {f"kernel {name} 256×240"}
    assert left_out[f"kernel {name} 256×240"].startswith(f"{said} differs from its reference")
    names = {row.subject.name for row in rows}
    assert {f"{other} 256x240", "overlay 256x240", "preprocess 256x240"} <= names
    assert f"{name} 256x240" not in names


def test_whole_frames_are_timed_in_every_way() -> None:
    frames = [picture(seed, (48, 64)) for seed in range(3)]
    rows = time_rows(GraphFrames(explainer(), frames).plan(), QUICK)
    assert [row.subject.name for row in rows] == list(REGIONS)
    for row in rows:
        assert row.subject.mode == "graph"
        assert row.subject.frame_hw == (48, 64)
        assert row.region.startswith(REGIONS[row.subject.name])
        assert row.min_ms > 0.0


def test_graphs_that_draw_something_else_are_not_timed() -> None:
    frames = [picture(seed, (48, 64)) for seed in range(3)]
    wrong_picture, wrong_map = explainer(), explainer()
    assert wrong_picture.graphs is not None
    assert wrong_map.graphs is not None
    kernels: Any = wrong_picture.graphs._gpu.kernels
    right = kernels.overlay

    def much_brighter(*arguments: Any, out: torch.Tensor) -> None:
        right(*arguments, out=out)
        out.bitwise_or_(64)

    kernels.overlay = much_brighter
    with pytest.raises(BenchError, match="the graph's picture differs from its reference at"):
        GraphFrames(wrong_picture, frames)
    wrong_map.graphs._class_weight = wrong_map.graphs._class_weight * 1.1
    with pytest.raises(BenchError, match=r"map differs by .* from the one without a graph"):
        GraphFrames(wrong_map, frames)


def test_a_graph_without_copies_works_on_a_frame_and_draws_its_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = [picture(seed, (48, 64)) for seed in range(3)]
    graphs = GraphFrames(explainer(), frames)
    slot = graphs._slot_on_device()
    assert slot._input["frame"][0].numpy().tolist() == frames[0].tolist()
    _, drawn = graphs._explainer.draw(frames[0])
    assert np.array_equal(slot._output["pictures"][0, 0].numpy(), drawn)

    def zeros(slot: Slot, *arguments: Any) -> None:
        slot._upload.bytes.zero_()

    monkeypatch.setattr(Slot, "fill", zeros)
    with pytest.raises(BenchError, match="graph without copies differs from its reference"):
        graphs.plan()


def test_a_graph_without_copies_that_draws_nothing_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs = GraphFrames(explainer(), [picture(0, (48, 64))])
    monkeypatch.setattr(Slot, "start", lambda slot: None)
    with pytest.raises(BenchError, match="graph without copies differs from its reference"):
        graphs._slot_on_device()


def test_an_explainer_without_graphs_has_no_figures_of_them() -> None:
    made = explainer()
    made.graphs = None
    with pytest.raises(EngineError, match="not captured in a graph"):
        GraphFrames(made, [picture(0)])


def bench(**parts: Any) -> Any:
    """The parts of a benchmark that its rows on a GPU need."""
    found = result()
    n_reported: list[int] = []
    recorder = Recorder(
        found, QUICK, Budget(), on_result=lambda found: n_reported.append(len(found.rows))
    )
    return SimpleNamespace(
        _config=BenchConfig(), _recorder=recorder, _result=found, n_reported=n_reported, **parts
    )


def test_kernels_that_cannot_be_timed_leave_the_others_and_are_told_part_by_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy, small, overlay = (
        row_of(replace(NETWORK, group="kernel", name=name))
        for name in ("copy", "choice", "overlay")
    )

    def fails() -> list[Row]:
        raise RuntimeError("out of memory\nand a long story")

    def parts(*arguments: Any) -> dict[str, Any]:
        return {
            "kernels": lambda: [small],
            "kernels at 1280×720": fails,
            "kernels at 1920×1080": lambda: [copy, overlay],
            "kernels at 3840×2160": lambda: [copy],
        }

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("stream_cam.bench.kernels.kernel_parts", parts)
    made = bench()
    _Bench._measure_kernels(made)
    assert made._result.rows == [small, copy, overlay]
    assert made.n_reported == [1, 3, 3]
    assert made._result.left_out == [{"what": "kernels at 1280×720", "why": "out of memory"}]


def test_failed_graphs_are_left_out_by_their_engine() -> None:
    frames = [picture(seed, (48, 64)) for seed in range(3)]
    on_gpu = SimpleNamespace(device="cuda:0")
    stages = SimpleNamespace(info=on_gpu, explainer=explainer(), verification=None)
    made = bench(_frames=frames)
    assert _Bench._plan_graphs(made, "eager:fp16", stages)  # type: ignore[arg-type]
    assert "graph, on device" in {subject.name for subject in made._recorder._planned}
    stages.explainer.graphs = None
    assert not _Bench._plan_graphs(made, "eager:fp16", stages)  # type: ignore[arg-type]
    assert [one["what"] for one in made._result.left_out] == [f"eager:fp16, {GRAPHS}"]


def test_per_item_timer_divides_the_time() -> None:
    class Fixed:
        name, is_asynchronous = "fixed", True

        def time_ms(self, call: object, n_calls: int = 1) -> float:
            return 30.0 * n_calls

    clock = PerItemTimer(Fixed(), 10)
    assert clock.time_ms(lambda: None) == 3.0
    assert not clock.is_asynchronous
    assert clock.name == "fixed"

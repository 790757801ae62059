"""Whole frames as CUDA graphs; run by scripts/gpu_check.py where there is a GPU."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from support.graph_parts import assert_drawn_as_on_the_cpu, frame, picture, taken
from support.networks import LABELS, small_network
from support.steady_parts import Steady

from stream_cam.config import EngineName, Fit, LookConfig, Precision
from stream_cam.draw.renderer import Renderer
from stream_cam.explain.explainer import Explainer
from stream_cam.frame import BgrImage, Explanation, Frame
from stream_cam.queues import OrderedGate, Ticket
from stream_cam.settings import SettingsSnapshot

pytestmark = pytest.mark.needs_gpu

FULL_HD = (1080, 1920)
LOOK = LookConfig()
CLEAR = LookConfig(alpha=0.0)
"""With it the picture is the frame itself, to the bit."""
DEADLINE_SECONDS = 300.0
TOLERANCE = {"fp32": 0.02, "fp16": 0.03}
"""Shares of the largest value: the CPU path's input went through uint8; plus the precision's
gate."""


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    pytest.importorskip("triton", reason="no Triton for this system")


def explainer(
    precision: Precision = "fp32", *, engine: EngineName = "eager", fit: Fit = "stretch"
) -> Explainer:
    return Explainer.from_module(
        small_network(),
        labels=LABELS,
        engine=engine,
        device="cuda",
        precision=precision,
        input_size=224,
        fit=fit,
    )


def on_cpu(fit: Fit = "stretch") -> Explainer:
    return Explainer.from_module(
        small_network(), labels=LABELS, engine="eager", device="cpu", input_size=224, fit=fit
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox"])
def test_a_gpu_takes_the_graph_by_itself_and_agrees_with_the_cpu(
    fit: Fit, precision: Precision
) -> None:
    made, alone = explainer(precision, fit=fit), on_cpu(fit)
    for seed, size_hw in enumerate([FULL_HD, (721, 1283), (97, 61)]):
        image = picture(seed, size_hw)
        got, expected = made.explain_drawn(image), alone.explain(image)
        assert made.graphs is not None
        largest = float(np.abs(expected.cams).max())
        own = alone.explain(image, got.targets[0].index)
        assert np.abs(got.cams - own.cams).max() <= TOLERANCE[precision] * largest
        limit = TOLERANCE[precision] * float(np.abs(expected.logits).max())
        assert np.abs(got.logits - expected.logits).max() <= limit
        assert_drawn_as_on_the_cpu(taken(got, image, LOOK)[0], image, got, LOOK)


@pytest.mark.parametrize(
    "look",
    [
        LookConfig(layout="heatmap", colormap="jet"),
        LookConfig(alpha=0.8, alpha_mode="heat", relu=True),
        LookConfig(upsampling="nearest", colormap="viridis"),
        LookConfig(upsampling="bicubic", colormap="magma"),
    ],
    ids=lambda look: f"{look.layout}-{look.colormap}",
)
def test_looks_agree_with_the_cpu(look: LookConfig) -> None:
    image, made = picture(1, FULL_HD), explainer()
    got = made.explain_drawn(image, SettingsSnapshot(look))
    assert_drawn_as_on_the_cpu(taken(got, image, look)[0], image, got, look)


def test_panels_agree_with_the_cpu() -> None:
    made, big = explainer(), frame(2, FULL_HD)
    look = LookConfig(layout="top5", hud=False)
    got = made.explain_drawn(big, SettingsSnapshot(look))
    renderer, settings = Renderer(), SettingsSnapshot(look)
    by_graph = renderer.render(big, got, settings).astype(int)
    by_cpu = renderer.render(big, got, settings).astype(int)  # its pictures are given away
    assert (np.abs(by_graph - by_cpu).max(axis=2) <= 1).mean() > 0.95
    assert np.abs(by_graph - by_cpu).max() <= 10


def test_a_thousand_replays_are_equal_bit_for_bit() -> None:
    made, image = explainer("fp16"), picture(3, FULL_HD)
    first = made.explain_drawn(image)
    expected = taken(first, image, LOOK)[0].copy()
    for _ in range(1000):
        got = made.explain_drawn(image)
        assert np.array_equal(got.logits, first.logits)
        assert np.array_equal(got.cams, first.cams)
        assert np.array_equal(taken(got, image, LOOK)[0], expected)


def test_a_thousand_frames_allocate_nothing() -> None:
    made, images = explainer("fp16"), [picture(seed, FULL_HD) for seed in range(3)]
    for image in images:
        made.explain_drawn(image)
    before = torch.cuda.memory_stats()
    for number in range(1000):
        made.explain_drawn(images[number % 3], SettingsSnapshot(LookConfig(alpha=number / 1000)))
    after = torch.cuda.memory_stats()
    for name in ("allocation.all.allocated", "segment.all.allocated", "num_alloc_retries"):
        assert after[name] == before[name], name


def explained(made: Explainer, images: list[BgrImage], n_threads: int) -> list[Explanation]:
    with ThreadPoolExecutor(n_threads) as pool:
        waiting = [
            pool.submit(made.explain_drawn, image, SettingsSnapshot(CLEAR)) for image in images
        ]
        return [one.result(DEADLINE_SECONDS) for one in waiting]


def test_under_load_everyone_gets_the_own_frame() -> None:
    made = explainer("fp16")
    images = [picture(seed, (720, 1280)) for seed in range(40)]
    alone = [made.explain_drawn(image, SettingsSnapshot(CLEAR)).logits for image in images]
    for _ in range(10):
        for image, logits, got in zip(images, alone, explained(made, images, 6), strict=True):
            assert np.array_equal(taken(got, image, CLEAR)[0], image)
            assert np.array_equal(got.logits, logits)


def test_frames_that_change_their_size_in_flight_are_all_right() -> None:
    made = explainer("fp16")
    sizes = [(480, 640), (1080, 1920), (333, 501)]
    images = [picture(seed, sizes[seed // 4 % 3]) for seed in range(60)]
    for image, got in zip(images, explained(made, images, 4), strict=True):
        assert np.array_equal(taken(got, image, CLEAR)[0], image)


def test_steady_frames_in_flight_follow_one_another() -> None:
    made, alone = explainer(), on_cpu()
    frames = [frame(number, (480, 640)) for number in range(60)]
    steady, line = Steady(smooth_seconds=0.3, hold_seconds=0.1), OrderedGate()
    wanted = [steady.update(alone.explain(each, keep_features=True)) for each in frames]

    def work(each: Frame, ticket: Ticket) -> Explanation:
        return made.explain_drawn(each, SettingsSnapshot(steady.look), ticket=ticket)

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(work, each, line.join()) for each in frames]
        found = [one.result(DEADLINE_SECONDS) for one in waiting]
    same = [
        [t.index for t in got.targets] == [t.index for t in one.targets]
        for got, one in zip(found, wanted, strict=True)
    ]
    assert np.mean(same) > 0.9  # two classes may be as likely, but for rounding
    for got, one, is_same in zip(found, wanted, same, strict=True):
        if is_same:
            largest = float(np.abs(one.cams).max())
            assert np.abs(got.cams - one.cams).max() <= 0.05 * largest


FAILS = """
import numpy as np
import torch
from support.graph_parts import frame
from support.networks import LABELS, small_network
from stream_cam.errors import EngineError
from stream_cam.explain.explainer import Explainer

made = Explainer.from_module(
    small_network(), labels=LABELS, engine="eager", device="cuda", precision="fp32", input_size=224
)
pool = made._engines.sessions((224, 224))
engine = pool.engine

class Fragile:
    info = engine.info
    def session(self):
        session = engine.session()
        def run(batch, logits, features):
            session(batch, logits, features)
            torch._assert_async((batch.max() < 2.6).all())
        return run

pool.engine = Fragile()
image = np.full((480, 640, 3), 90, np.uint8)
assert made.explain_drawn(image).drawn is not None
bright = np.full((480, 640, 3), 255, np.uint8)
for broken in (bright, image, image):
    try:
        made.explain_drawn(broken)
    except EngineError as error:
        print("told:", error, flush=True)
    else:
        print("nothing told", flush=True)
try:
    made.explain(image)
except EngineError as error:
    print("told:", error, flush=True)
"""
FAILS_IN_FLIGHT = f"""{FAILS.partition("bright = ")[0]}
from stream_cam.settings import SettingsSnapshot

bright = np.full((480, 640, 3), 255, np.uint8)
with made.graphs.begun(pool.engine, made.plan((480, 640)), bright, SettingsSnapshot()):
    for size_hw in ((333, 500), (480, 640)):
        try:
            made.explain_drawn(np.full((*size_hw, 3), 90, np.uint8))
        except EngineError as error:
            print("told:", error, flush=True)
"""


@pytest.mark.parametrize(("script", "n_told"), [(FAILS, 4), (FAILS_IN_FLIGHT, 2)])
def test_an_engine_that_fails_in_flight_is_told_to_all_who_come_after(
    script: str, n_told: int
) -> None:
    """In a process of its own, which has no GPU after it, and which ends in order."""
    tests = Path(__file__).resolve().parents[1]
    code = f"import sys\nsys.path[:0] = [{str(tests)!r}, {str(tests.parent)!r}]\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )
    told = [line for line in done.stdout.splitlines() if line.startswith(("told", "nothing"))]
    assert len(told) == n_told, done.stdout + done.stderr
    assert all("told: the GPU failed while it worked on a frame" in line for line in told)
    assert done.returncode == 0, done.stderr

"""The picture in docs/gpu.md: it follows from the rules, and the script drew it."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from draw_gpu_frame import N_SLOTS, Step, schedule, svg  # noqa: E402


def overlap(one: Step, other: Step) -> bool:
    return one.start_us < other.end_us and other.start_us < one.end_us


def test_the_picture_is_the_scripts() -> None:
    kept = (ROOT / "docs" / "images" / "gpu-frame.svg").read_text(encoding="utf-8")
    assert kept == svg(), "python scripts/draw_gpu_frame.py"
    assert ElementTree.fromstring(kept).tag.endswith("svg")
    assert "not measured" in kept


def test_steps_keep_their_order_and_share_nothing() -> None:
    steps = schedule(20)
    for one in steps:
        for other in steps:
            if one is other:
                continue
            if one.kind == other.kind:
                assert not overlap(one, other)
            if one.slot == other.slot:
                assert not overlap(one, other)
    for frame in range(20):
        up, work, down = (step for step in steps if step.frame == frame)
        assert up.end_us <= work.start_us
        assert work.end_us <= down.start_us
    assert {step.slot for step in steps} == set(range(N_SLOTS))


def test_three_slots_let_all_parts_work_at_once() -> None:
    def busy(n_slots: int, at_us: float) -> int:
        return sum(step.start_us <= at_us < step.end_us for step in schedule(20, n_slots))

    moments = range(0, 2000, 10)
    assert max(busy(1, at) for at in moments) == 1
    assert max(busy(3, at) for at in moments) == 3
    last = max(step.end_us for step in schedule(20, 3))
    assert last < max(step.end_us for step in schedule(20, 2))

"""Figures, their file, their comparison, their pictures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.bench_parts import DECODE, NETWORK, PEER, result, row

from stream_cam.bench.compare import compare, print_comparison
from stream_cam.bench.machine import gpus, machine_lines
from stream_cam.bench.plot import svg, ticks_ms
from stream_cam.bench.result import BenchResult, Row
from stream_cam.bench.table import (
    PRECISIONS,
    footer,
    header,
    markdown,
    milliseconds,
    percent,
    print_result,
)
from stream_cam.bench.timing import Measurement
from stream_cam.errors import BenchError


def test_row_has_the_percentiles_of_its_samples() -> None:
    samples = tuple(float(value) for value in range(1, 102))
    made = Row.of(replace(NETWORK, batch=4), "region", Measurement(samples, 20.0))
    assert (made.n, made.p50_ms, made.p90_ms) == (101, 51.0, 91.0)
    assert (made.min_ms, made.max_ms, made.mean_ms) == (1.0, 101.0, 51.0)
    assert made.spread == pytest.approx((91 - 11) / 51)
    assert made.p99_ms is None
    assert made.drift == pytest.approx((76.5 - 26) / 51)
    assert made.images_per_second == 80.0


@pytest.mark.parametrize(
    ("n_calls", "known"),
    [
        (1, set()),
        (2, set()),
        (4, set()),
        (5, {"p50_ms"}),
        (10, {"p50_ms", "drift"}),
        (19, {"p50_ms", "drift"}),
        (20, {"p50_ms", "drift", "p90_ms", "spread"}),
        (199, {"p50_ms", "drift", "p90_ms", "spread"}),
        (200, {"p50_ms", "drift", "p90_ms", "spread", "p99_ms"}),
    ],
)
def test_figures_need_samples_enough(
    n_calls: int, known: set[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = Row.of(NETWORK, "region", Measurement((2.0,) * n_calls, 500.0))
    names = ("p50_ms", "p90_ms", "p99_ms", "spread", "drift")
    assert {name for name in names if getattr(made, name) is not None} == known
    result(made).write(tmp_path / "a.json")
    written = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["rows"][0]
    assert {name for name in names if written[name] is not None} == known
    print_result(result(made))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("eager")]
    cells = line.split()
    assert cells[5:10] == [
        "launch",
        str(n_calls),
        *("2" if name in known else "-" for name in names[:3]),
    ]


def test_written_file_is_read_again(tmp_path: Path) -> None:
    found = result(row(), row(DECODE, 1.0, 2.0), row(PEER, 30.0), seconds=1.5)
    found.leave_out("eager:bf16", "no such thing")
    found.write(tmp_path / "a.json")
    assert BenchResult.read(tmp_path / "a.json") == found
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_file_has_the_documented_fields(tmp_path: Path) -> None:
    said = json.loads(result(row()).to_json())
    documented = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
    fields = [*said, *said["rows"][0], *said["rows"][0]["subject"]]
    assert [name for name in fields if f"`{name}`" not in documented] == []
    assert (said["format"], said["version"]) == ("stream-cam bench", 2)


def broken(**changes: Any) -> str:
    return json.dumps({**json.loads(result(row()).to_json()), **changes})


def broken_row(**changes: Any) -> str:
    said = json.loads(result(row()).to_json())
    said["rows"][0].update(changes)
    return json.dumps(said)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", '"format"'),
        ('{"a": 1}', '"format"'),
        (broken(version=3), "version is 3"),
        (broken(rows=7), "field"),
        (broken(rows=[{}]), "field"),
        (broken(machine={}), "field"),
        (broken(machine={"gpus": [3]}), "field"),
        (broken(left_out=[{}]), "field"),
        (broken(seconds="x"), "field"),
        (broken_row(images_per_second="1"), "field"),
        (broken_row(images_per_second=float("nan")), "field"),
        (broken_row(samples_ms=[0.0]), "field"),
        (broken_row(samples_ms=[]), "field"),
        (broken_row(samples_ms=[-1.0]), "field"),
        (broken_row(verification={"nonsense": 1}), "field"),
        (broken_row(subject={"group": "engine"}), "field"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match=why) as caught:
        BenchResult.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="No such file"):
        BenchResult.read(tmp_path / "a.json")


def test_older_files_are_read_and_their_figures_computed_anew(tmp_path: Path) -> None:
    old = json.loads(result(row(NETWORK, 10.0, 30.0)).to_json())
    del old["method"]
    old["version"] = 1
    old["rows"][0].update(p50_ms=20.0, p90_ms=28.0, p99_ms=29.8, spread=0.8, drift=1.0)
    (tmp_path / "a.json").write_text(json.dumps(old), encoding="utf-8")
    (made,) = BenchResult.read(tmp_path / "a.json").rows
    assert (made.n, made.p50_ms, made.p99_ms, made.drift) == (2, None, None, None)
    assert made.images_per_second == pytest.approx(50.0)


def test_slower_faster_and_same() -> None:
    old = result(row(), row(DECODE, *[5.0] * 20), row(PEER, *[100.0] * 20))
    new = result(row(), row(DECODE, *[5.6] * 20), row(PEER, *[80.0] * 20))
    comparison = compare(old, new, tolerance=0.1)
    verdicts = {change.new.subject.name: change.verdict for change in comparison.changes}
    assert verdicts == {"network": "same", "decode": "slower", "torch-cam": "faster"}
    assert [change.ratio for change in comparison.slower] == [pytest.approx(1.12)]
    assert comparison.warnings == ()
    assert not compare(old, new, tolerance=0.13).slower


STEADY = (10.0, 10.1, 9.9, 10.0, 10.05) * 10


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (STEADY, tuple(1.3 * each for each in STEADY), "slower"),
        (tuple(1.3 * each for each in STEADY), STEADY, "faster"),
        (STEADY, tuple(1.05 * each for each in STEADY), "same"),
        # Parts of the new file are as fast as the old one: something else ran.
        (STEADY, (10.0,) * 15 + (14.0,) * 35, "not told apart"),
        ((9.0,) * 25 + (12.0,) * 25, (11.0,) * 10 + (13.0,) * 40, "not told apart"),
        # It drifted by more than it differs, though no part overlaps.
        ((10.0,) * 25 + (12.5,) * 25, (12.6,) * 25 + (13.0,) * 25, "not told apart"),
        ((10.0,) * 19, (20.0,) * 19, "too few calls"),
        (STEADY, (20.0,) * 3, "too few calls"),
    ],
)
def test_only_distinguishable_rows_are_judged(
    old: tuple[float, ...],
    new: tuple[float, ...],
    verdict: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    comparison = compare(result(row(DECODE, *old)), result(row(DECODE, *new)), tolerance=0.1)
    (change,) = comparison.changes
    assert change.verdict == verdict
    print_comparison(comparison)
    said = capsys.readouterr().out
    ratio = f"{change.ratio:.2f}"
    drifts = f"{percent(change.old.drift)} / {percent(change.new.drift)}"
    noise = "-" if len(old) < 20 else "±"
    assert f" {ratio} {drifts} {noise}" in " ".join(said.split())
    unclear = verdict in ("not told apart", "too few calls")
    assert f"1 compared, {verdict == 'slower':d} slower, {unclear:d} not told apart" in said


def test_rows_that_only_one_has_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = compare(result(row(), row(DECODE, 5.0)), result(row(), row(PEER, 9.0)), 0.1)
    assert comparison.only_old == (DECODE,)
    assert comparison.only_new == (PEER,)
    print_comparison(comparison)
    said = capsys.readouterr().out
    assert "only in the old file: stage: decode" in said
    assert "only in the new file: peer: torch-cam" in said


@pytest.mark.parametrize("part", ["batch", "input_hw", "mode", "precision", "device"])
def test_rows_of_another_subject_are_not_compared(part: str) -> None:
    other: dict[str, Any] = {"batch": 8, "input_hw": (32, 32), "mode": "graph", "precision": "bf16"}
    changed: dict[str, Any] = {part: other.get(part, "cuda")}
    subject = replace(NETWORK, **changed)
    with pytest.raises(BenchError, match="nothing to compare"):
        compare(result(row()), result(row(subject)), 0.1)


def test_other_machines_networks_frames_and_versions_are_warned_of() -> None:
    old = result(row())
    machine = {**old.machine, "cpu": "other cpu", "gpus": [{"name": "H"}]}
    machine["versions"] = {"torch": "3.0"}
    new = result(row(), machine=machine, network={**old.network, "model": "m"}, source="else")
    warnings = compare(old, new, 0.1).warnings
    assert len(warnings) == 4
    assert "toy cpu / other cpu" in warnings[0]
    assert "gpus  / H" in warnings[0]
    assert "torch 2.0 / 3.0" in warnings[3]


@pytest.mark.parametrize(
    ("load", "is_said"), [(0.9, False), (1.1, True), (None, False), ("?", False)]
)
def test_busy_machine_is_said(load: Any, is_said: bool) -> None:
    found = result(row())
    found.machine["load"] = load
    assert ("the machine was busy" in markdown(found)) is is_said
    assert bool(compare(result(row()), found, 0.1).warnings) is is_said


def test_table_and_markdown_have_every_row_and_gap(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = result(row(), row(DECODE, *[5.25] * 5), row(PEER, *[123.4] * 5))
    found.leave_out("openvino:fp32", "it is [not] here")
    print_result(found)
    printed = capsys.readouterr().out
    for text in (printed, markdown(found)):
        for value in ("10.0", "5.25", "123", "eager fp32", "one call; host clock", "toy cpu"):
            assert value in text
        assert "left out: openvino:fp32: it is [not] here" in text
    assert "| torch-cam | fp32 | cpu | 5 | 123 | - | - |" in markdown(found)


def test_missing_features_are_one_line_without_verbose() -> None:
    found = result(row())
    for engine, precisions in (("tensorrt", PRECISIONS), ("openvino", ["fp16", "int8"])):
        for precision in precisions:
            what = f"{engine}:{precision}, a frame's stages"
            found.leave_out(what, f"no {engine}", not_here=True)
    found.leave_out("openvino:fp32, batch 8, 64×64", "one frame at a time", not_here=True)
    found.leave_out("eager:fp32, 64×64", "out of memory")
    told = [line for line in footer(found) if line.startswith("left out: ")]
    assert told == [
        "left out: eager:fp32, 64×64: out of memory",
        "left out: 7 that this machine or their engine does not have (tensorrt, openvino:fp16, "
        "openvino:int8, openvino:fp32 batch 8); --verbose gives each reason",
    ]
    assert len([line for line in footer(found, verbose=True) if "left out" in line]) == 8


def test_the_header_says_how_it_was_measured() -> None:
    found = result(row())
    assert len(header(found)) == 6  # of an older file, which does not say it
    found.method = {
        **{"samples": 200, "seconds": 10.0, "turns": 10, "warm_ups": 10, "settle": 1},
        **{"in_turns": True, "threads": {"torch": "2", "openvino fp32": "2, not pinned"}},
        **{"pinning": "pinned to cores 0, 2 of 4"},
    }
    said = "\n".join(header(found))
    assert "at most 200 calls or 10 s a row, in 10 turns, all rows of a table in turns" in said
    assert "untimed: 10 calls before the first turn" in said
    assert "threads: torch: 2; openvino fp32: 2, not pinned; this process: pinned to cores" in said


def test_three_digits_count() -> None:
    assert [milliseconds(value) for value in (0.01234, 1.234, 12.34, 123.4, 1234.5)] == [
        *("0.0123", "1.23", "12.3", "123", "1234")
    ]


def test_plot_is_an_svg_with_every_row_and_sample() -> None:
    found = result(row(), row(DECODE, *[5.0 + i / 10 for i in range(1000)]), row(PEER, 1e4))
    found.network["model"] = "<toy> & 'co'"
    picture = ElementTree.fromstring(svg(found))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text or "" for text in picture.iter(f"{space}text")]
    for label in ("network eager:fp32 cpu 64×64", "decode cpu", "torch-cam fp32 cpu"):
        assert label in texts
    assert any("<toy> & 'co'" in text for text in texts)
    circles = list(picture.iter(f"{space}circle"))
    assert len(circles) == 20 + 250 + 1
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    for circle in circles:
        assert 300 <= float(circle.attrib["cx"]) <= width - 110
        assert 0 < float(circle.attrib["cy"]) < height


def test_plot_of_equal_samples_has_a_scale() -> None:
    ElementTree.fromstring(svg(result(row(NETWORK, 3.0, 3.0))))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.9, 6.0, [1, 2, 5]), (3.0, 4.0, [pytest.approx(12**0.5)]), (0.05, 150, [0.1, 1, 10, 100])],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks_ms(low, high) == expected


GPU = "NVIDIA H200, 580.1, P0, 1980, 1980, 3201, 410.55, 700.00, [N/A], 143771\n"


def test_gpus_are_read_as_nvidia_smi_tells_them() -> None:
    asked: list[list[str]] = []

    def ask(command: list[str]) -> str:
        asked.append(command)
        return GPU * 2 + "something else\n"

    found = gpus(ask)
    assert len(found) == 2
    assert found[0]["name"] == "NVIDIA H200"
    assert (found[0]["sm_mhz"], found[0]["power_w"]) == (1980.0, 410.55)
    assert found[0]["temperature_c"] == "[N/A]"
    assert not {"-pm", "-r", "-lgc"} & set(asked[0])  # asks, and sets nothing
    (line,) = [
        text for text in machine_lines({**result().machine, "gpus": found[:1]}) if "GPU" in text
    ]
    assert "NVIDIA H200, driver 580.1" in line


def test_nvidia_smi_that_fails_tells_of_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpus(lambda command: "") == []


def test_without_nvidia_smi_the_header_has_the_facts_of_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    properties = SimpleNamespace(
        name="NVIDIA H200", major=9, minor=0, multi_processor_count=132, total_memory=139 << 30
    )
    monkeypatch.setattr("shutil.which", lambda program: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda place: properties)
    found = gpus()
    assert [one["name"] for one in found] == ["NVIDIA H200"] * 2
    machine = {**result().machine, "gpus": found, "after": {"gpus": found}}
    lines = [line for line in machine_lines(machine) if line.startswith("GPU")]
    assert len(lines) == 2
    assert (
        "NVIDIA H200, compute capability 9.0, multiprocessors: 132, memory: 142336 MiB" in lines[0]
    )
    assert "no nvidia-smi" in lines[0]

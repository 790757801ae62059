"""Predictions, raw maps and timelines: their contents, and that they belong to the right frame."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.videos import numbered_picture, picture_number

from stream_cam.cli import main
from stream_cam.config import RecordConfig
from stream_cam.errors import SinkError, UsageError
from stream_cam.frame import Explanation, FloatArray, Frame, Prediction, Region
from stream_cam.results import result_paths
from stream_cam.results.boxes import hot_box
from stream_cam.results.cams import CamsSink
from stream_cam.results.predictions import VERSION, PredictionsSink, row_of
from stream_cam.results.timeline import TimelineSink
from stream_cam.sinks import Picture, SegmentSink, StreamInfo
from stream_cam.sinks.video.segments import Segment
from stream_cam.sources.video import VideoSource

LABELS = ("cat", 'a "dog", maybe', "<bird>")
SIZE_HW = (70, 140)


def peaked(row: int, column: int, size_hw: tuple[int, int] = (7, 7)) -> FloatArray:
    cam = np.zeros(size_hw, np.float32)
    cam[row, column] = 2.0
    return cam


def explained(
    cam: FloatArray, best: int = 0, index: int = 0, region: Region | None = None
) -> Explanation:
    """As if the network had found `best` 90 % likely in frame `index`."""
    order = [best, *(n for n in range(3) if n != best)]
    likely = (0.9, 0.08, 0.02)
    predictions = tuple(
        Prediction(LABELS[n], n, probability) for n, probability in zip(order, likely, strict=True)
    )
    return Explanation(
        logits=np.zeros(3, np.float32),
        predictions=predictions,
        targets=predictions[:1],
        cams=cam[None],
        region=region or Region.whole(SIZE_HW),
        frame_size_hw=SIZE_HW,
        frame_index=index,
    )


def picture(explanation: Explanation | None, index: int) -> Picture:
    image = np.zeros((*SIZE_HW, 3), np.uint8)
    frame = Frame(image, index, index * 2, Fraction(1, 10), 1)
    return Picture(image, frame, explanation)


def test_hot_box_is_around_the_peak_where_the_map_lies() -> None:
    # A lone cell's bilinear bump is hotter than half from the middle of one neighbour's side to
    # the other's: as wide as the cell.
    box = hot_box(explained(peaked(2, 3)))
    assert box == pytest.approx((60, 20, 80, 30), abs=1.3)
    shifted = hot_box(explained(peaked(2, 3), region=Region(35, 0, 105, 70)))
    assert shifted == pytest.approx((65, 20, 75, 30), abs=1.3)


def test_hot_box_ends_at_the_frame_and_is_none_without_relief() -> None:
    letterbox = Region(0, -35, 140, 105)  # bars above and below
    box = hot_box(explained(peaked(1, 0), region=letterbox))
    assert box is not None
    assert box[:2] == (0, 0)
    assert hot_box(explained(peaked(0, 0), region=letterbox)) is None
    assert hot_box(explained(np.ones((7, 7), np.float32))) is None


def test_hot_box_leaves_other_hot_places_out() -> None:
    two = peaked(2, 1) + 0.9 * peaked(5, 5)
    box = hot_box(explained(two))
    assert box is not None
    assert box[2] <= 60


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_predictions_are_a_row_a_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    sink = PredictionsSink(path)
    with sink:
        sink.write(picture(None, 0))  # nothing has been explained yet
        for number in (1, 2):
            # Live: frame 2 is drawn with the explanation of frame 1.
            sink.write(picture(explained(peaked(2, 3), best=1, index=1), number))
            text = path.read_text(encoding="utf-8")  # before it is closed
            assert len(text.splitlines()) == number + (suffix == ".csv")
            assert text.endswith("\n")
    text = path.read_text(encoding="utf-8")
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        assert [row["peak"] for row in rows] == [[70.0, 25.0]] * 2
        assert rows[0]["box"] == pytest.approx([60, 20, 80, 30], abs=1.3)
        assert [best["index"] for best in rows[0]["top"]] == [1, 0, 2]
        assert rows[0]["top"][0] == {"label": LABELS[1], "index": 1, "probability": 0.9}
        assert [row["v"] for row in rows] == [VERSION, VERSION]
        assert [row["method"] for row in rows] == ["cam", "cam"]
    else:
        rows = list(csv.DictReader(text.splitlines()))
        assert (rows[0]["peak_x"], rows[0]["peak_y"]) == ("70.0", "25.0")
        assert float(rows[0]["box_x0"]) == pytest.approx(60, abs=1.3)
        assert (rows[0]["top3_label"], rows[0]["top4_label"]) == ("<bird>", "")
    assert [int(row["frame"]) for row in rows] == [1, 2]
    assert [float(row["time"]) for row in rows] == [0.2, 0.4]
    assert [int(row["explained_frame"]) for row in rows] == [1, 1]
    assert {row["label"] for row in rows} == {LABELS[1]}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_rows_on_a_disk_that_fills_up_are_whole(tiny_disk: Path, suffix: str) -> None:
    path, written = tiny_disk / f"p{suffix}", []
    (tiny_disk / "filling").write_bytes(bytes(1_020_000))

    def write_rows() -> None:
        with PredictionsSink(path) as sink:
            for number in range(1000):
                sink.write(picture(explained(peaked(2, 3), index=number), number))
                written.append(number)

    with pytest.raises(SinkError, match="cannot be written: No space left on device"):
        write_rows()
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    rows: list[Any]
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = list(csv.DictReader(text.splitlines()))
    assert [int(row["frame"]) for row in rows] == written
    assert len(written) > 10


def test_schema_is_the_documented_one(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "recording.md").read_text(encoding="utf-8")
    table = docs[docs.index(f"Version {VERSION} of the schema:") :]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| ", table, re.MULTILINE)
    documented = [name for keys, _ in rows for name in re.findall(r"`(\w+)`", keys)]
    row = row_of(picture(None, 0).frame, explained(peaked(2, 3)))
    assert documented == list(row)
    with PredictionsSink(tmp_path / "p.csv") as sink:
        sink.write(picture(explained(peaked(2, 3)), 0))
    columns = (tmp_path / "p.csv").read_text().splitlines()[0].split(",")
    in_csv = [
        name
        for keys, cells in rows
        for name in re.findall(r"`(\w+)`", cells) or re.findall(r"`(\w+)`", keys)
    ]
    assert [name for name in columns if name in in_csv] == in_csv
    others = {name for name in columns if name not in in_csv}
    assert others == {"box_y0", "box_x1"} | {
        f"top{place}_{what}" for place in range(1, 6) for what in ("label", "index", "probability")
    } - {"top1_label", "top5_probability"}


def test_parquet_has_the_columns_of_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("stream_cam.results.predictions._ROWS_AT_ONCE", 2)
    path, part = tmp_path / "p.parquet", tmp_path / "p.part.jsonl"
    flat = np.zeros((7, 7), np.float32)
    with PredictionsSink(path) as sink:
        for number in range(5):
            cam = flat if number == 4 else peaked(2, 3)
            sink.write(picture(explained(cam, best=1, index=number), number))
            # After a kill the rows are valid as they are.
            assert [json.loads(line)["frame"] for line in part.read_text().splitlines()] == list(
                range(number + 1)
            )
            assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.parquet"]
    rows = parquet.read_table(path).to_pylist()
    with PredictionsSink(tmp_path / "p.csv") as sink:
        sink.write(picture(explained(peaked(2, 3), best=1, index=0), 0))
    columns = (tmp_path / "p.csv").read_text().splitlines()[0].split(",")
    assert list(rows[0]) == columns
    assert [row["frame"] for row in rows] == list(range(5))
    assert rows[0]["box_x0"] == pytest.approx(60, abs=1.3)
    assert rows[4]["box_x0"] is None
    assert (rows[0]["top1_label"], rows[0]["top4_label"]) == (LABELS[1], None)


def test_parquet_that_cannot_be_written_leaves_its_rows(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "p.parquet"
    sink = PredictionsSink(path)
    sink.write(picture(explained(peaked(2, 3)), 0))
    path.mkdir()
    with pytest.raises(SinkError, match=r"its rows are in .*p\.part\.jsonl"):
        sink.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["p.parquet", "p.part.jsonl"]


def test_parquet_needs_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_cam.results.paths.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"p\.parquet needs pyarrow: pip install pyarrow, or"):
        list(result_paths(RecordConfig(predictions=Path("p.parquet"))))
    assert list(result_paths(RecordConfig(predictions=Path("p.csv"))))


def test_maps_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    cams = np.random.default_rng(0).normal(size=(3, 7, 12)).astype(np.float32)
    with CamsSink(path) as sink:
        for number, cam in enumerate(cams):
            region = Region(0, -3.5, 140, 73.5)
            sink.write(picture(explained(cam, best=number % 2, region=region), number + 5))
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.npz"]
    kept = np.load(path)
    np.testing.assert_array_equal(kept["cams"], cams.astype(np.float16))
    assert kept["class_index"].tolist() == [0, 1, 0]
    assert kept["labels"].tolist() == list(LABELS[:2])
    assert kept["frame"].tolist() == [5, 6, 7]
    assert kept["time"].tolist() == [1.0, 1.2, 1.4]
    assert kept["region"].tolist() == [[0, -3.5, 140, 73.5]] * 3
    assert kept["frame_size"].tolist() == [list(SIZE_HW)] * 3


PICTURES = ("cat.jpg", "cat.png", "sub/cat.jpg")


def named(number: int) -> Picture:
    """The picture of a folder's n-th file."""
    plain = picture(explained(peaked(2, 3), best=number), number)
    frame = replace(plain.frame, name=PICTURES[number])
    return Picture(plain.image_bgr, frame, plain.explanation)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_each_row_names_its_source(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    with PredictionsSink(path, "clip.mp4") as sink:
        for number in range(3):
            sink.write(named(number))
        sink.write(picture(explained(peaked(2, 3)), 3))
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = parquet.read_table(path).to_pylist()
    else:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = list(csv.DictReader(lines)) if suffix == ".csv" else list(map(json.loads, lines))
    assert [row["source"] for row in rows] == [*PICTURES, "clip.mp4"]


def test_each_map_names_its_source(tmp_path: Path) -> None:
    with CamsSink(tmp_path / "c.npz", "clip.mp4") as sink:
        for number in (0, 1, 2, 1):
            sink.write(named(number))
        sink.write(picture(explained(peaked(2, 3)), 3))
    kept = np.load(tmp_path / "c.npz")
    sources = kept["sources"][kept["source_index"]].tolist()
    assert sources == [*PICTURES, PICTURES[1], "clip.mp4"]


def test_timeline_of_pictures_names_them(tmp_path: Path) -> None:
    path = tmp_path / "t.html"
    with TimelineSink(path) as sink:
        for number in range(3):
            sink.write(named(number))
    page = path.read_text(encoding="utf-8")
    for name in PICTURES:
        assert f"<tr><td>{name}<td>" in page
    assert f"up to 90% at {PICTURES[2]}" in page


def test_maps_of_another_shape_end_the_file_with_those_before(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    sink = CamsSink(path)
    sink.write(picture(explained(peaked(1, 1)), 0))
    with pytest.raises(SinkError, match="give --fit stretch"):
        sink.write(picture(explained(peaked(1, 1, (7, 12))), 1))
    sink.close()
    assert np.load(path)["cams"].shape == (1, 7, 7)


@pytest.mark.parametrize("name", ["p.jsonl", "c.npz", "t.svg"])
def test_no_frames_no_file(tmp_path: Path, name: str) -> None:
    sinks = {"p": PredictionsSink, "c": CamsSink, "t": TimelineSink}
    with sinks[name[0]](tmp_path / name) as sink:
        sink.write(picture(None, 0))
    assert list(tmp_path.iterdir()) == []


def shown_in_turn(path: Path, classes: list[int], recording: Path | None = None) -> TimelineSink:
    with TimelineSink(path, "a & b.mp4", recording) as sink:
        for number, best in enumerate(classes):
            sink.write(picture(explained(peaked(1, 1), best), number))
    return sink


def test_timeline_has_a_line_a_class_and_a_span_a_change(tmp_path: Path) -> None:
    path = tmp_path / "t.svg"
    sink = shown_in_turn(path, [0, 0, 2, 2, 0])
    assert [span.label for span in sink.spans()] == ["cat", "<bird>", "cat"]
    times = [(span.start_seconds, span.end_seconds) for span in sink.spans()]
    np.testing.assert_allclose(times, [(0.0, 0.4), (0.4, 0.8), (0.8, 0.8)])
    root = ET.parse(path).getroot()
    space = {"s": "http://www.w3.org/2000/svg"}
    assert root.findtext("s:title", namespaces=space) == "a & b.mp4"
    lines = {
        line.findtext("s:title", namespaces=space): [
            tuple(map(float, point.split(","))) for point in line.get("points", "").split()
        ]
        for line in root.findall("s:polyline", space)
    }
    assert set(lines) == set(LABELS)
    heights = [y for _, y in lines["cat"]]
    assert heights[0] == heights[1] < heights[2], "higher is more likely, and y points down"
    lefts = [x for x, _ in lines["cat"]]
    assert lefts == sorted(lefts)


def test_long_timelines_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "t.svg"
    shown_in_turn(path, [0, 1] * 2500)
    lines = ET.parse(path).getroot().findall("{http://www.w3.org/2000/svg}polyline")
    points = [line.get("points", "").split() for line in lines]
    # Eight frames a point: 1000 points of four would have been too few.
    assert [len(row) for row in points] == [5000 // 8] * len(points)
    levels = {point.split(",")[1] for row in points for point in row}
    assert len(levels) <= 3, "the mean of an even number of frames that take turns is the same"
    assert path.stat().st_size < 2_000_000


def test_page_links_into_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "t.html"
    shown_in_turn(path, [0, 2], tmp_path / "a film.mp4")
    text = path.read_text(encoding="utf-8")
    assert '<a href="a%20film.mp4#t=0.200">' in text
    assert "<td>&lt;bird&gt;<td>" in text
    assert "<bird>" not in text


def links_in(path: Path) -> list[str]:
    return re.findall(r'<a href="(.*?)">', path.read_text(encoding="utf-8"))


def test_links_count_from_the_recordings_first_picture(tmp_path: Path) -> None:
    """A live source's first pictures are drawn before anything has been explained."""
    path = tmp_path / "t.svg"
    with TimelineSink(path, "a", tmp_path / "out.mp4") as sink:
        for number in range(3, 5):
            sink.write(picture(None, number))
        sink.write(picture(explained(peaked(1, 1)), 5))
    assert links_in(path) == ["out.mp4#t=0.400"]


def test_moments_are_links_into_the_segments_that_hold_them(tmp_path: Path) -> None:
    """Each kind of result is closed by a thread of its own: the page may have to wait."""
    page, config = tmp_path / "t.svg", RecordConfig(segment="1", crf=1)
    recording = SegmentSink(
        str(tmp_path / "out.mp4"), StreamInfo(Fraction(5), False, False), config
    )
    timeline = TimelineSink(page, "a", recording.kept)
    for number in range(13):
        image = numbered_picture(number, SIZE_HW)
        shown = Picture(
            image,
            Frame(image, number, number * 2, Fraction(1, 10), 1),
            explained(peaked(1, 1), number // 2 % 3),
        )
        recording.write(Picture(image, shown.frame, None))
        timeline.write(shown)
    with ThreadPoolExecutor(1) as pool:
        drawn = pool.submit(timeline.close)
        recording.close()
        drawn.result(20)
    found = []
    for link in links_in(page):
        name, _, offset = link.partition("#t=")
        with VideoSource(str(tmp_path / name)) as source:
            shown_then = [f for f in source if f.pts_seconds <= float(offset)][-1]
        found.append(picture_number(shown_then.image_bgr))
    assert found == [0, 2, 4, 6, 8, 10, 12]


def test_moments_of_removed_segments_are_no_links(tmp_path: Path) -> None:
    page, recording = tmp_path / "t.html", Future[list[Segment]]()
    recording.set_result([Segment(Fraction(4, 10), tmp_path / "b.mp4")])
    with TimelineSink(page, "a", recording) as sink:
        for number in range(4):
            sink.write(picture(explained(peaked(1, 1), number % 2), number))
    assert links_in(page) == 2 * ["b.mp4#t=0.000", "b.mp4#t=0.200"]
    assert "Those without a link are in segments that have been removed" in page.read_text()


@pytest.mark.parametrize(
    "option", ["predictions=p.txt", "cams=c.npy", "timeline=t.png", "sheet=s.gif"]
)
def test_other_types_of_results_are_refused(option: str) -> None:
    name, _, path = option.partition("=")
    with pytest.raises(ValueError, match=rf"--{name} is a file in \..*, got {path}"):
        RecordConfig(**{name: Path(path)})  # type: ignore[arg-type]


def test_results_of_a_folder_are_matched_to_its_pictures(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    levels = {"cat.jpg": 40, "cat.png": 120, "sub/cat.jpg": 200}
    for name, level in levels.items():
        path = Path("pets", name)
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 60, 3), level, np.uint8))
    options = ["--weights", str(tiny), "--engine", "eager", "--input-size", "64", "--no-hud"]
    results = ["--predictions", "p.csv", "--alpha", "0"]
    assert main(["run", "pets/**/*.*g", "out/", *results, *options]) == 0
    rows = list(csv.DictReader(Path("p.csv").read_text().splitlines()))
    assert [row["source"] for row in rows] == list(levels)
    for name, level in levels.items():
        result = cv2.imread(str(Path("out", name if name == "cat.png" else f"{name}.png")))
        assert result is not None, name
        assert abs(float(result.mean()) - level) < 1


def test_results_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = "demo://shapes?size=160x90&fps=5&seconds=2"
    results = ["--predictions", "p.jsonl", "--cams", "c.npz", "--timeline", "t.html"]
    results += ["--sheet", "s.png"]
    command = ["run", source, "null", "--weights", "demo", "--engine", "eager", *results]
    assert main(command) == 0
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    kept = np.load("c.npz")
    assert [row["frame"] for row in rows] == kept["frame"].tolist() == list(range(10))
    assert [row["index"] for row in rows] == kept["class_index"].tolist()
    assert cv2.imread("s.png") is not None
    capsys.readouterr()
    assert main(command) == 1
    assert (
        "p.jsonl and c.npz and t.html and s.png exist; give --overwrite" in capsys.readouterr().err
    )
    assert main([*command, "--overwrite", "--report", "p.jsonl"]) == 2
    assert "is a source or an output already" in capsys.readouterr().err

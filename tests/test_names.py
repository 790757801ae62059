"""Names that are not UTF-8, as from old disks, and with control characters: in all that is text."""

from __future__ import annotations

import io
import json
import os
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.videos import numbered_picture, write_video
from support.web_parts import LABELS, Page, picture

from stream_cam.cli import main
from stream_cam.draw.text import shorten, text_mask
from stream_cam.errors import WeightsError
from stream_cam.model.checkpoint import read_checkpoint
from stream_cam.sinks.base import Picture
from stream_cam.uri import hide, json_text, printable, redact_uri, remember_secrets

NAME = os.fsdecode(b"b\xfcro")
SHOWN = r"b\xfcro"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("büro.mp4", "büro.mp4"),
        ("a\tb\nc", "a\tb\nc"),
        (f"{NAME}.mp4", rf"{SHOWN}.mp4"),
        ("\ud800", r"\ud800"),
        ("\x1b[31m\x00", r"\x1b[31m\x00"),
    ],
)
def test_unprintable_characters_are_escaped_in_one_way(name: str, shown: str) -> None:
    assert printable(name) == redact_uri(name) == hide(name) == shown
    assert json.loads(json_text({name: [name]})) in ({shown: [shown]}, {name: [name]})


@given(st.text(st.characters(codec=None, categories=None)))
def test_all_text_can_be_encoded(text: str) -> None:
    printable(text).encode()
    json.loads(json_text([text]).encode())
    ET.fromstring(f"<a>{printable(text).replace('&', '').replace('<', '')}</a>")


def test_a_password_that_is_not_utf8_stays_secret() -> None:
    url = f"rtsp://me:{NAME}secret9@cam/live"
    remember_secrets(url)
    assert "secret9" not in redact_uri(url)
    assert "secret9" not in hide(f"login with {NAME}secret9 failed")


def test_the_hud_draws_such_a_label() -> None:
    assert (text_mask(NAME, 20) == text_mask(SHOWN, 20)).all()
    assert shorten(NAME, 20, 1000) == SHOWN


def test_every_output_of_a_run_has_such_names(
    tmp_path: Path,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path(f"{NAME}.mp4"), n_frames=4)
    Path("labels.json").write_text(json.dumps([NAME] * 4))
    results = ["--predictions", "p.csv", "--timeline", "t.html", "--report", f"{NAME}.json"]
    options = ["--weights", str(tiny), "--engine", "eager", "--input-size", "64"]
    options += ["--labels", "labels.json", "--target", "1"]
    output = f"{NAME}/out.mkv"
    Path(NAME).mkdir()
    assert main(["run", f"{NAME}.mp4", output, *results, *options]) == 0
    assert rf"wrote {SHOWN}/out.mkv" in capsys.readouterr().out
    report = json.loads(Path(f"{NAME}.json").read_bytes())
    assert report["source"] == f"{SHOWN}.mp4"
    assert report["sinks"][0]["name"] == f"{SHOWN}/out.mkv"
    assert f",{SHOWN},1," in Path("p.csv").read_text(encoding="utf-8")
    page = Path("t.html").read_bytes().decode()
    assert f"<title>{SHOWN}.mp4</title>" in page
    link = page.partition('<video src="')[2].partition('"')[0]
    assert Path(os.fsdecode(unquote_to_bytes(link))).is_file()
    with av.open(output) as container:
        assert f"map of {SHOWN}" in container.metadata["COMMENT"]


def test_tags_that_are_not_utf8_do_not_close_a_file(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with av.open("old.mkv", "w", metadata_encoding="latin-1") as out:
        out.metadata["title"] = "büro"
        stream = out.add_stream("libx264", rate=10)
        stream.metadata["title"] = "büro"
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        image = numbered_picture(1, (48, 64))
        frame = av.VideoFrame.from_ndarray(image, "bgr24").reformat(format="yuv420p")
        out.mux([*stream.encode(frame), *stream.encode(None)])
    options = ["--weights", str(tiny), "--engine", "eager", "--input-size", "64"]
    assert main(["run", "old.mkv", "out.mp4", *options]) == 0
    with av.open("out.mp4") as container:
        assert container.metadata["title"] == SHOWN


def test_a_terminal_of_any_encoding_takes_such_names(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(raw, "ascii", write_through=True))
    assert main(["run", f"{NAME}é.mp4", "null"]) == 1
    print(f"{NAME} → é")
    said = raw.getvalue().decode("ascii")
    assert said.startswith(rf"stream-cam: {SHOWN}\xe9.mp4 does not exist")
    assert said.endswith(SHOWN + " \\u2192 \\xe9\n")


def test_the_page_answers_for_such_a_source() -> None:
    page = Page(labels=(NAME, *LABELS[1:]), source=NAME)
    page.settings.change(target=0)
    page.sink.attach_stats(lambda: {"source": NAME})
    explanation = picture(0).explanation
    assert explanation is not None
    best = (replace(explanation.predictions[0], label=NAME),)
    explanation = replace(explanation, predictions=best, targets=best)
    with page.sink, page.talk() as talk:
        assert talk.hear("hello")["source"] == SHOWN
        shown = picture(0)
        page.sink.write(Picture(shown.image_bgr, shown.frame, explanation))
        assert talk.see()[0]["top"] == [[SHOWN, 0, 0.8]]
        for path in ("/stats", "/settings", "/labels"):
            status, _, body = page.ask(path)
            assert status == 200, path
            assert json.dumps(SHOWN) in body.decode()
        status, _, body = page.ask("/metrics")
        assert status == 200
        assert f"source={json.dumps(SHOWN)}" in body.decode()


def test_safetensors_of_such_a_name_are_not_called_damaged(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / f"{NAME}.safetensors"
    path.symlink_to(tiny)
    with pytest.raises(WeightsError, match="rename the file"):
        read_checkpoint(path)

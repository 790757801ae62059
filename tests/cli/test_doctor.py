from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stream_cam.cli import doctor, probes
from stream_cam.cli.doctor import examine, print_table
from stream_cam.cli.probes import Finding
from stream_cam.engine import machine
from stream_cam.sources import camera


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    return examine()


def the_one(found: Iterator[Finding], area: str) -> Finding:
    (finding,) = [one for one in found if one.area == area]
    return finding


def test_examine_covers_every_area(findings: list[Finding]) -> None:
    areas = {finding.area for finding in findings}
    assert {area for area, _ in probes.PROBES} <= areas
    for finding in findings:
        assert finding.what
        assert "could not be examined" not in finding.what
        assert finding.advice or finding.status != "missing"
        assert "\n" not in finding.what + finding.advice


def test_examine_says_nothing_itself(capfd: pytest.CaptureFixture[str]) -> None:
    examine()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [RuntimeError("on\nfire"), OSError(5, "I/O error"), KeyError()])
def test_probe_that_breaks_is_a_finding(error: Exception) -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("area", "ok", "before")
        raise error

    first, second = doctor._run_probe("area", broken)
    assert first.what == "before"
    assert second.status == "note"
    assert type(error).__name__ in second.what
    assert "\n" not in second.what


def test_table_shows_all_and_takes_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Finding("a", "missing", "[/red] what", "pip install 'x[y]'")])
    said = capsys.readouterr().out
    assert "[/red] what" in said
    assert "pip install 'x[y]'" in said
    assert "1 missing" in said


def test_finding_can_be_json() -> None:
    assert dataclasses.asdict(Finding("a", "ok", "b"))["advice"] == ""


def fake_versions(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    def version(package: str) -> str:
        name = package.replace("-", "_")
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(package)
        return found[name]

    monkeypatch.setattr(probes, "version", version)
    monkeypatch.setattr(machine, "version", version)


def test_both_opencvs_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, opencv_python="5.0", opencv_python_headless="4.9")
    finding = the_one(probes._opencv(), "OpenCV")
    assert finding.status == "note"
    assert "pip uninstall -y opencv-python-headless opencv-python" in finding.advice


def test_placeholder_and_rival_tensorrts_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, torch_tensorrt="0.0.1")
    finding = the_one(probes._tensorrt(), "TensorRT")
    assert (finding.status, "placeholder" in finding.what) == ("missing", True)
    assert finding.advice == machine.TENSORRT_INSTALL
    fake_versions(monkeypatch, torch_tensorrt="2.14.0", torch_tensorrt_rtx="2.14.0")
    finding = the_one(probes._tensorrt(), "TensorRT")
    assert (finding.status, "same files" in finding.what) == ("missing", True)
    assert "uninstall both" in finding.advice


def test_tensorrt_that_cannot_be_imported_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, torch_tensorrt_rtx="2.14.0")
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    finding = the_one(probes._tensorrt(), "TensorRT")
    assert "but not tensorrt_rtx" in finding.what
    assert finding.advice == "pip install --force-reinstall torch-tensorrt-rtx"


@pytest.mark.parametrize("has_gpu", [False, True])
def test_tensorrt_is_advised_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool
) -> None:
    fake_versions(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    finding = the_one(probes._tensorrt(), "TensorRT")
    assert finding.status == "note"
    assert finding.advice == (machine.TENSORRT_INSTALL if has_gpu else "")
    assert ("slower engines" in finding.what) == has_gpu


@pytest.mark.parametrize("has_gpu", [False, True])
def test_installed_tensorrt_is_named_with_its_versions(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool
) -> None:
    fake_versions(monkeypatch, torch_tensorrt="2.14.0", torch="2.14.1")
    library = types.ModuleType("tensorrt")
    library.__version__ = "10.9.0.34"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.setattr(machine, "find_spec", lambda name: library)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    finding = the_one(probes._tensorrt(), "TensorRT")
    assert finding.status == ("ok" if has_gpu else "note")
    assert finding.what.startswith("tensorrt 10.9.0.34 with torch-tensorrt 2.14.0")


def test_missing_packages_are_named_with_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch)
    assert [finding.advice for finding in probes._torch()] == [
        "pip install torch",
        "pip install torchvision",
    ]
    assert "pip install opencv-python" in the_one(probes._opencv(), "OpenCV").advice


def test_camera_that_may_not_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unprivileged: None
) -> None:
    device = tmp_path / "video0"
    monkeypatch.setattr(camera, "list_cameras", lambda: [str(device)])
    monkeypatch.setattr(sys, "platform", "linux")
    finding = the_one(probes._cameras(), "cameras")
    assert finding.status == "missing"
    assert "usermod -aG video" in finding.advice


@pytest.mark.skipif(sys.platform != "linux", reason="X11 is looked for on Linux")
def test_no_display_is_told_with_the_other_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    finding = the_one(probes._display(), "display")
    assert finding.what == "no display: DISPLAY is not set"
    others = "watch in the browser with -o web://, or write to a file with -o out.mp4"
    assert finding.advice == others


def test_cameras_are_listed_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    devices = [str(tmp_path / "video0"), str(tmp_path / "video2")]
    for device in devices:
        Path(device).touch()
    names = {"/sys/class/video4linux/video2/name": "Logitech BRIO"}
    monkeypatch.setattr(camera, "list_cameras", lambda: devices)
    monkeypatch.setattr(probes, "_text", names.get)
    monkeypatch.setattr(sys, "platform", "linux")
    said = [finding.what for finding in probes._cameras()]
    assert said == [f"{devices[0]}: unnamed", f"{devices[1]}: Logitech BRIO"]


def test_engine_folder_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = tmp_path / "resnet18-openvino-0"
    entry.mkdir()
    (entry / "manifest.json").write_text("{}")
    (entry / "engine.blob").write_bytes(bytes(2_000_000))
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tmp_path))
    said = [finding.what for finding in probes._engines()]
    assert f"kept in {tmp_path}: 1, 2 MB" in said
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tmp_path / "not" / "yet"))
    assert f"kept in {tmp_path / 'not' / 'yet'}: 0, 0 MB" in [f.what for f in probes._engines()]

"""Libraries are loaded in an order that works, whoever asks first; each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ORDER = "\nimport sys\nprint([name for name in sys.modules if name in ('av', 'cv2')])"


@pytest.mark.parametrize(
    "code",
    [
        "import stream_cam, av",
        "from stream_cam import open_source",
        "import stream_cam.sinks.video.sink",
        "import stream_cam.cli.recover",
        "from stream_cam import Explainer, open_sink",
    ],
)
def test_opencv_is_loaded_before_pyav(code: str) -> None:
    loaded = run(code + "; import av" + ORDER)
    assert loaded == "['cv2', 'av']"


@pytest.mark.skipif(sys.platform != "linux", reason="only X11 is concerned")
@pytest.mark.parametrize(("first", "hangs"), [("cv2", False), ("stream_cam", False), ("av", True)])
def test_window_refuses_an_import_order_that_hangs(first: str, hangs: bool) -> None:
    code = f"import {first}, av, cv2, stream_cam\nfrom stream_cam.sinks import display_problem\n"
    problem = run(code + "print(display_problem())")
    if "opens no windows" in problem:
        pytest.skip("this OpenCV is the headless build, which has no Qt to hang")
    assert ("PyAV was imported before OpenCV" in problem) is hangs, problem


def test_pyav_works_without_opencv() -> None:
    code = "import sys; sys.modules['cv2'] = None\nimport stream_cam, av\nprint(av.__name__)"
    assert run(code) == "av"


def test_openvino_is_loaded_without_its_telemetry() -> None:
    code = (
        "import sys, stream_cam, openvino\n"
        "from openvino.tools.ovc.telemetry_utils import init_ovc_telemetry\n"
        "print(type(init_ovc_telemetry()).__module__, sys.modules['openvino_telemetry'])"
    )
    assert run(code) == "openvino.tools.ovc.telemetry_stub None"


@pytest.mark.needs_nncf
def test_nncf_is_loaded_without_its_telemetry() -> None:
    pytest.importorskip("nncf", reason="NNCF is not installed")
    code = (
        "import stream_cam, nncf\n"
        "from nncf.telemetry.wrapper import telemetry\n"
        "print(type(telemetry).__name__)"
    )
    assert run(code).splitlines()[-1] != "NNCFTelemetry"


def test_telemetry_that_is_loaded_already_is_silenced() -> None:
    """Under another program that has imported OpenVINO, and has sent something already."""
    code = (
        "from openvino_telemetry.utils.sender import TelemetrySender\n"
        "TelemetrySender.send = lambda *_: None\n"
        "import openvino\n"
        "from openvino.tools.ovc.telemetry_utils import init_ovc_telemetry\n"
        "import stream_cam\n"
        "def send(*_): raise SystemExit('sent')\n"
        "TelemetrySender.send = send\n"
        "telemetry = init_ovc_telemetry()\n"
        "telemetry.start_session('ovc')\n"
        "telemetry.send_event('ovc', 'version', '1', force_send=True)\n"
        "telemetry.end_session('ovc')\n"
        "print('silent')"
    )
    assert run(code) == "silent"

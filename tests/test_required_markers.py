import os
import subprocess
import sys
from pathlib import Path

SKIPPING = """
import pytest

@pytest.fixture
def server():
    pytest.skip("not here")

@pytest.mark.needs_gpu
def test_skips_inside():
    pytest.skip("no GPU")

@pytest.mark.needs_rtsp_server
def test_skips_in_a_fixture(server):
    pass

def test_needs_nothing():
    pytest.skip("whatever")
"""


def run(folder: Path, required: str) -> tuple[int, str]:
    here = Path(__file__).parent
    (folder / "test_skipping.py").write_text(SKIPPING)
    options = [
        "-c",
        str(here.parent / "pyproject.toml"),
        "--rootdir",
        str(folder),
        "-p",
        "no:cacheprovider",
        "-p",
        "pytest_timeout",  # pyproject.toml has options of it
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "support.required_markers",
            *options,
            str(folder),
        ],
        env={
            **os.environ,
            "STREAM_CAM_REQUIRE": required,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(here),
        },
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_required_test_may_not_skip(tmp_path: Path) -> None:
    code, output = run(tmp_path, "gpu, rtsp_server")
    assert code == 1
    assert "1 failed, 1 skipped, 1 error" in output, output
    assert "but the test skips: Skipped: no GPU" in output


def test_unknown_requirements_are_refused(tmp_path: Path) -> None:
    code, output = run(tmp_path, "gpuu")
    assert code == 4
    assert "no marker needs_gpuu" in output

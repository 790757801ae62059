"""The line that tells how a live run goes."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction

import pytest

from stream_cam.cli.progress import StatusLine, progress_on_terminal
from stream_cam.config import RunConfig
from stream_cam.pipeline.counters import Progress
from stream_cam.sources.base import Outage, SourceInfo

START = Progress(
    captured=0,
    explained=0,
    superseded=0,
    rendered=0,
    fps=0.0,
    dropped=0,
    age_seconds=None,
    connections=None,
    away=None,
    last=None,
)
AWAY = Outage(True, 3.2, 1, 0.5, "lost", "the connection was cut")
INFO = SourceInfo("camera", (48, 64), Fraction(25), None, True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class OrderedGate:
    """A status line, its lines, and the time that it believes."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self.tell = StatusLine(self.lines.append, lambda: self.now)

    def after(self, seconds: float, progress: Progress) -> None:
        self.now += seconds
        self.tell(progress)


def test_status_comes_once_a_second_and_has_the_rates_of_that_second() -> None:
    line = OrderedGate()
    line.after(0.5, replace(START, captured=10))
    assert line.lines == []
    counted = replace(START, captured=60, rendered=58, explained=24, superseded=35, dropped=7)
    line.after(1.5, replace(counted, age_seconds=0.084))
    assert line.lines == [
        "fps 30.0 captured, 29.0 drawn, 12.0 explained · age 0.08 s · 35 superseded · "
        "7 dropped by outputs"
    ]
    for _ in range(7):
        line.after(0.125, replace(counted, captured=90))
    assert len(line.lines) == 1
    line.after(0.125, replace(counted, captured=90, rendered=58, explained=25))
    assert line.lines[1].startswith("fps 30.0 captured, 0.0 drawn, 1.0 explained · age -")


def test_rate_of_a_source_that_stands_still_is_zero() -> None:
    line = OrderedGate()
    for _ in range(2):
        line.after(1.0, replace(START, captured=30, rendered=30, explained=30))
    assert line.lines[1].startswith("fps 0.0 captured, 0.0 drawn, 0.0 explained")


@pytest.mark.parametrize(
    ("connections", "away", "expected"),
    [
        (None, None, "fps"),
        (1, None, "connected, 0 reconnections · fps"),
        (4, None, "connected, 3 reconnections · fps"),
        (4, AWAY, "reconnecting, last frame 3.2 s ago, 3 reconnections · fps"),
        (1, replace(AWAY, reconnecting=False), "no picture, last frame 3.2 s ago, 0 reconn"),
    ],
)
def test_state_of_the_connection_comes_first(
    connections: int | None, away: Outage | None, expected: str
) -> None:
    line = OrderedGate()
    line.after(1.0, replace(START, connections=connections, away=away))
    assert line.lines[0].startswith(expected)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(("terminal", "quiet"), [(False, False), (True, True)])
def test_nothing_is_shown_without_a_terminal_or_when_quiet(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, quiet: bool, live: bool
) -> None:
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    with progress_on_terminal(INFO, RunConfig(quiet=quiet), live) as on_tick:
        assert on_tick is None
    assert stderr.getvalue() == ""


@pytest.mark.parametrize("live", [False, True])
def test_terminal_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, live: bool) -> None:
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    with progress_on_terminal(INFO, RunConfig(), live) as on_tick:
        assert on_tick is not None
        on_tick(replace(START, rendered=3))
    assert stderr.getvalue().count("\x1b[?25l") == stderr.getvalue().count("\x1b[?25h")

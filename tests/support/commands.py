"""The real `stream-cam` command in a fresh process and an empty folder, as its user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from support.waiting import wait_until

START_SECONDS = 150.0
"""Libraries are loaded, and perhaps an engine is built, on a machine that does other things too."""
STOP_SECONDS = 30.0
"""From a signal to the end of the process, every file finished."""
_PROGRAM = Path(sys.executable).with_name("stream-cam")
_WORDS_OF_A_BUG = ("Traceback", "this is a bug", "Exception ignored")


class Command:
    """A running `stream-cam`.

    Args:
        folder: the working directory, which also gets files with its output.
        arguments: as typed.
        environment: changes to this process's.
    """

    def __init__(self, folder: Path, *arguments: str, environment: dict[str, str] | None = None):
        program = [str(_PROGRAM)] if _PROGRAM.exists() else [sys.executable, "-m", "stream_cam"]
        root = str(Path(__file__).resolve().parents[2])
        self.folder = folder
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*program, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": root, **(environment or {})},
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if error is not None:
            error.add_note(f"stdout: {self.out}\nstderr: {self.err}")

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8", errors="replace")

    def said(self, pattern: str) -> re.Match[str]:
        """Waits until stdout has it."""

        def there() -> bool:
            assert self.process.poll() is None or re.search(pattern, self.out), self.process.poll()
            return re.search(pattern, self.out) is not None

        wait_until(there, START_SECONDS)
        found = re.search(pattern, self.out)
        assert found
        return found

    def wrote(self, name: str, size: int = 1, count: int = 1) -> None:
        """Waits for `count` files of at least `size` bytes in its folder; `name` may be a glob."""

        def there() -> bool:
            assert self.process.poll() is None, self.process.poll()
            return sum(path.stat().st_size >= size for path in self.folder.glob(name)) >= count

        wait_until(there, START_SECONDS)

    def end(self) -> int:
        """Waits for its own end; the exit code."""
        return self._ended(START_SECONDS)

    def stop(self, number: signal.Signals) -> int:
        """Sends a signal once; the exit code."""
        self.process.send_signal(number)
        return self._ended(STOP_SECONDS)

    def _ended(self, seconds: float) -> int:
        code = self.process.wait(seconds)
        assert not any(word in self.out + self.err for word in _WORDS_OF_A_BUG)
        return code

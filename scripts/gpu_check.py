"""Everything that a GPU has to answer, in two calls of a few minutes: tests, kernels, frames.

    python scripts/gpu_check.py --stage first --out DIR [--triton-cache FOLDER]
    python scripts/gpu_check.py --stage second --out DIR --after DIR_OF_THE_FIRST

Each step is a process of its own with a limit of its own, and appends each result to its file in
DIR, a line of JSON, the moment it has it. So a step that is killed keeps its results, and so does a
check that is killed. DIR never holds more than eight files. `summary.md` is written anew after each
step; `--summarise` writes it from the other files.

PyTorch is imported once, and steps are forks of that process: on such a machine each import takes
seconds. It needs PyTorch, torchvision, OpenCV, safetensors, pytest and hypothesis, and a C compiler
for Triton. `scripts/gpu_precompile.py` fills a Triton cache before, on a machine without a GPU.

`--device simulated` rehearses all on the CPU, with the tests' simulated GPU; `--short` makes
every size small.

Ends with 1 if a step failed, was killed or left out, or a test failed; with 2 for a wrong command.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Nothing is installed on that machine: the checkout is put on the path.
for place in (ROOT, ROOT / "tests", ROOT / "scripts"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

from gpu_records import Records, read_records  # noqa: E402
from gpu_summary import SUMMARY, is_good, write_summary  # noqa: E402

_LAST_WORDS_SECONDS = 2.0
"""Between SIGTERM and SIGKILL, both before the limit."""
_POLL_SECONDS = 0.02
_TAIL_CHARACTERS = 3000
_MOST_FILES = 8


@dataclass(frozen=True)
class Step:
    """One process."""

    name: str
    limit_seconds: float
    """The time that earlier steps did not need is added."""
    work: str = ""
    """Name of its function in `gpu_steps`; default: its own."""
    file: str = ""
    """Stem of the file for its results; default: its name."""

    @property
    def function(self) -> str:
        return self.work or self.name

    def path(self, out: Path) -> Path:
        return out / f"{self.file or self.name}.jsonl"


FIRST = (
    Step("machine", 15),
    Step("correct", 30),
    Step("kernels", 35),
    Step("frames", 60),
    Step("sweeps", 40),
    Step("ncu", 30),
    Step("tests", 100),
)
_REST = (
    Step("kernels4k", 40),
    Step("batches", 65),
    Step("sanitizer", 60),
    Step("ring", 35),
    Step("peers", 40),
    Step("inductor", 30),
)
"""The second stage, after the steps that failed in the first."""
START_SECONDS = 20.0
"""Reckoned for importing PyTorch on a machine that has just started; no step may use it."""
_AGAIN_SECONDS = 75.0
"""For all steps that are repeated."""


def plan(stage: str, after: Path | None) -> tuple[Step, ...]:
    """The steps of a stage; the second begins with the first one's that are not good."""
    if stage == "first":
        return FIRST
    if after is None:
        return _REST
    failed = [step for step in FIRST if not is_good(read_records(step.path(after)))]
    share = _AGAIN_SECONDS / max(1, len(failed))
    again = [
        Step(f"again: {step.name}", min(share, step.limit_seconds), step.name, "again")
        for step in failed
    ]
    return (*again, *_REST)


def main() -> int:
    options = _options()
    if options.summarise:
        print(write_summary(options.out, options.stage))
        return 0
    problem = _problem(options)
    if problem:
        print(f"gpu_check: {problem}", file=sys.stderr)
        return 2
    steps = _selected(plan(options.stage, options.after), options.steps)
    if not steps:
        print(f"gpu_check: no step of stage {options.stage} is named so: {options.steps}")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    assert len({step.path(options.out) for step in steps}) < _MOST_FILES
    with tempfile.TemporaryDirectory(prefix="gpu_check-") as scratch:
        return _Check(options, Path(scratch)).run(steps)


class _Check:
    """The steps of one stage, one after the other."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self._options, self._scratch = options, scratch
        self._kernels = scratch / "kernels.jsonl"
        self._group: int | None = None
        self._has_no_gpu = False
        signal.signal(signal.SIGTERM, self._stopped)
        signal.signal(signal.SIGINT, self._stopped)

    def run(self, steps: Sequence[Step]) -> int:
        started = time.monotonic()
        import gpu_cache
        import gpu_steps

        gpu_steps.steps()  # imports all that they need, before the forks
        gpu_cache.count_kernels(self._kernels)
        if self._options.triton_cache is not None:
            gpu_cache.carry(self._options.triton_cache, self._scratch / "triton")
        out, deadline = self._options.out, time.monotonic()
        command = shlex.join(["python", "scripts/gpu_check.py", *sys.argv[1:]])
        shared = gpu_steps.Settings(
            device=self._options.device,
            short=self._options.short,
            scratch=self._scratch,
            after=self._options.after,
            command=command,
        )
        for step in steps:
            deadline += step.limit_seconds * self._options.limit_scale
            limit = deadline - time.monotonic()
            print(f"{time.monotonic() - started:5.0f} s  {step.name} ({limit:.0f} s)", flush=True)
            records = Records(step.path(out))
            try:
                if limit > _LAST_WORDS_SECONDS:
                    self._run_step(step, shared, records, limit)
                else:
                    records.add(end=step.name, state="left out", code=None, seconds=0.0)
            finally:
                self._kill_group()
                text = write_summary(out, self._options.stage, command)
            if self._has_no_gpu:
                break
        print(f"{time.monotonic() - started:5.0f} s  all steps are over\n\n{text}", flush=True)
        return 0 if all(is_good(read_records(path)) for path in _files(steps, out)) else 1

    def _run_step(self, step: Step, shared: Any, records: Records, limit: float) -> None:
        import gpu_cache
        import gpu_steps

        began, log = time.monotonic(), self._scratch / "log"
        n_kernels = len(read_records(self._kernels))
        log.write_bytes(b"")
        end: dict[str, Any] = {"end": step.name, "state": "killed", "code": None}
        lifeline = os.pipe()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _become_step(step, shared, records, log, lifeline)
        os.close(lifeline[0])
        with suppress(OSError):  # the child does the same, and may have ended
            os.setpgid(child, child)
        self._group = child
        try:
            end["code"] = self._wait(child, began + limit)
            self._has_no_gpu = end["code"] == gpu_steps.NO_GPU
            if end["code"] is not None:
                end["state"] = "done" if end["code"] == 0 else "failed"
        finally:
            os.close(lifeline[1])
            end["seconds"] = round(time.monotonic() - began, 2)
            tail = log.read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARACTERS:]
            end["cache"] = gpu_cache.report(self._kernels, n_kernels)
            if end["state"] != "done":
                end["tail"] = tail
                print(tail, flush=True)
            records.add(**end)

    def _wait(self, child: int, deadline: float) -> int | None:
        """The exit code of the step; None if it was killed at its limit."""
        for number, at in (
            (signal.SIGTERM, deadline - _LAST_WORDS_SECONDS),
            (signal.SIGKILL, deadline),
        ):
            code = _exit_code(child, at)
            if code is not None:
                return code if number == signal.SIGTERM else None
            os.killpg(child, number)
        _exit_code(child, time.monotonic() + _LAST_WORDS_SECONDS)  # a hung driver may keep it
        return None

    def _kill_group(self) -> None:
        """Ends all processes of the present step, those that it started too."""
        if self._group is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, signal.SIGKILL)
        self._group = None

    def _stopped(self, number: int, _: object) -> None:
        raise SystemExit(128 + number)


def _become_step(
    step: Step, shared: Any, records: Records, log: Path, lifeline: tuple[int, int]
) -> None:
    """In the fork: does the step's work, and ends."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(lifeline[1])
        threading.Thread(target=_end_with_the_driver, args=(lifeline[0],), daemon=True).start()
        output = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        import gpu_steps

        code = gpu_steps.run_step(step.function, shared, records)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_with_the_driver(lifeline: int) -> None:
    """Ends this group when the driver is gone, however that ended."""
    os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)


def _exit_code(child: int, until: float) -> int | None:
    """None if the process is still there at that moment, which may have passed."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(_POLL_SECONDS)


def _files(steps: Sequence[Step], out: Path) -> list[Path]:
    return list(dict.fromkeys(step.path(out) for step in steps))


def _selected(steps: tuple[Step, ...], names: Sequence[str]) -> tuple[Step, ...]:
    return tuple(step for step in steps if not names or step.name in names)


def _problem(options: argparse.Namespace) -> str | None:
    """The reason why this cannot begin."""
    if options.out.exists() and any(options.out.iterdir()):
        return f"{options.out} holds files; give an empty folder, since eight files come back"
    if options.after is not None and not (options.after / SUMMARY).is_file():
        return f"{options.after} holds no {SUMMARY}; give the --out of the first stage"
    cache = options.triton_cache
    if cache is not None and not cache.is_dir():
        return f"there is no Triton cache at {cache}; make it with scripts/gpu_precompile.py"
    return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stage", choices=("first", "second"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for at most eight files")
    parser.add_argument("--after", type=Path, help="results of the first stage: repeat its faults")
    parser.add_argument("--triton-cache", type=Path, help="made by scripts/gpu_precompile.py")
    parser.add_argument("--steps", nargs="*", default=[], help="these steps only")
    parser.add_argument("--device", choices=("cuda", "simulated"), default="cuda")
    parser.add_argument("--short", action="store_true", help="small sizes, few samples")
    parser.add_argument("--limit-scale", type=float, default=1.0, help="of all limits")
    parser.add_argument("--summarise", action="store_true", help=f"only write {SUMMARY} of --out")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

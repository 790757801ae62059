"""`stream-cam doctor`: the abilities of this machine, and a command for each missing one."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict

from stream_cam.cli.options import DoctorCommand
from stream_cam.cli.probes import PROBES, Finding, Findings
from stream_cam.uri import json_text

_MARKS = {"ok": "[green]ok[/]", "missing": "[red]missing[/]", "note": "[yellow]note[/]"}


def examine() -> list[Finding]:
    """Runs all probes; never raises, takes a few seconds and writes nothing."""
    found: list[Finding] = []
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for area, probe in PROBES:
                found += _run_probe(area, probe)
    finally:
        logging.disable(disabled)
    return found


def print_table(findings: Sequence[Finding]) -> None:
    """Prints the findings as a table, each with its advice below."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    last = None
    for finding in findings:
        text = escape(finding.what)
        if finding.advice:
            text += f"\n[cyan]→ {escape(finding.advice)}[/]"
        area = "" if finding.area == last else escape(finding.area)
        table.add_row(area, _MARKS[finding.status], text)
        last = finding.area
    # In a file or a pipe, commands are not broken over lines.
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)
    n_missing = sum(finding.status == "missing" for finding in findings)
    print(f"\n{n_missing} missing" if n_missing else "\nnothing is missing")


def doctor_command(command: DoctorCommand) -> None:
    """Prints the findings as a table or as JSON."""
    findings = examine()
    if command.json:
        print(json_text([asdict(finding) for finding in findings], indent=2))
    else:
        print_table(findings)


def _run_probe(area: str, probe: Callable[[], Findings]) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(probe())
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        found.append(Finding(area, "note", f"could not be examined ({reason})"))
    return found

"""`stream-cam batch --cluster`: the plan, the terminal and the account of a run on a cluster."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from stream_cam.cli.batch.jobs import check_distinct, check_options
from stream_cam.cli.batch.results import NAME, named, results_of
from stream_cam.cli.batch.videos import find_videos
from stream_cam.cli.options import BatchCommand
from stream_cam.cli.signals import Signals
from stream_cam.cluster import Archive, Clip, Outcome, storage
from stream_cam.config import ModelConfig, PipelineConfig
from stream_cam.errors import ClusterError, SourceNotFoundError, UsageError
from stream_cam.sources.paths import VIDEO_SUFFIXES, natural_key
from stream_cam.uri import json_text, printable, redact, redact_uri, result_name

logger = logging.getLogger(__name__)


def cluster_batch(command: BatchCommand, signals: Signals) -> None:
    """Annotates the videos on a cluster, and prints a line for each.

    Raises:
        ClusterError: one or more have failed; each failure has been printed.
        StreamCamError: as `Archive`.
    """
    if command.batch.jobs != 1:
        raise UsageError("--jobs is for this machine alone: with --cluster give --max-workers")
    model = _absolute(command.model)
    config = PipelineConfig(model, command.look, command.run, record=command.record)
    check_options(config, command.batch)
    clips = find_clips(command, config)
    as_json, quiet = command.cluster.json, config.run.quiet
    if command.batch.dry_run:
        for clip in clips:
            print(_shown(f"{clip.source} → {clip.output}"))
        return
    archive = Archive(clips, _place(command.output), config, command.cluster)
    signals.watch(archive.stop)
    states: Counter[str] = Counter()
    failed: list[Outcome] = []

    with _progress(archive, quiet=quiet, as_json=as_json) as (show, on_tick):

        def on_end(outcome: Outcome) -> None:
            states[outcome.state] += 1
            if outcome.state in ("failed", "poison"):
                failed.append(outcome)
            show(outcome)

        archive.run(on_end, on_tick)
    left = len(clips) - sum(states.values())
    if left:
        states["stopped"] = left
    if as_json:
        print(json_text({"run": dict(states), **asdict(archive.standing)}), flush=True)
    elif not quiet:
        print(", ".join(f"{count} {state}" for state, count in states.items()), flush=True)
    if failed:
        reason = failed[0].reason
        if failed[0].clip not in reason:
            reason = f"{failed[0].clip}: {reason}"
        raise ClusterError(_shown(f"{len(failed)} of {len(clips)} videos failed: {reason}"))


def find_clips(command: BatchCommand, config: PipelineConfig) -> list[Clip]:
    """The clips at all sources, in natural order, with the places of their results.

    Raises:
        UsageError: no source is given, two have one recording, or a result has no place.
        SourceNotFoundError: there are no videos.
    """
    found: dict[str, str] = {}
    output = _place(command.output)
    leave_out = storage.as_path(output) if storage.is_local(output) else None
    recursive = command.batch.recursive
    places = [place for place in command.source if storage.is_local(place)]
    if places or not command.source:
        paths = [str(storage.as_path(os.path.expanduser(place))) for place in places]
        local = find_videos(paths, recursive=recursive, leave_out=leave_out)
        found |= {str(path): name for path, name in local.items()}
    for place in command.source:
        if not storage.is_local(place):
            found |= _at_url(place, recursive)
    suffix = f".{command.batch.container}"
    names = {source: result_name(name, suffix) for source, name in found.items()}
    outputs = {source: storage.join(output, name) for source, name in names.items()}
    check_distinct(outputs)
    return [
        Clip(source, outputs[source], _results(config, output, name[: -len(suffix)], len(names)))
        for source, name in names.items()
    ]


def _at_url(place: str, recursive: bool) -> dict[str, str]:
    def is_video(path: str) -> bool:
        return Path(path).suffix.lower() in VIDEO_SUFFIXES

    found = storage.find_files(place, is_video, recursive=recursive)
    if not found:
        hint = "" if recursive else "; --recursive searches its folders too"
        raise SourceNotFoundError(f"there are no videos at {redact_uri(place)}{hint}")
    return {url: found[url] for url in sorted(found, key=natural_key)}


def _results(config: PipelineConfig, output: str, name: str, n_clips: int) -> dict[str, str]:
    """The place of each result; they lie below the recordings' folder."""
    places = {}
    for option, pattern in results_of(config).items():
        if pattern.is_absolute():
            raise UsageError(
                f"--{option} {pattern}: on a cluster results lie below the recordings; give a "
                f"relative path, such as {NAME}{pattern.suffix}"
            )
        if NAME not in str(pattern) and pattern.suffix.lower() == ".parquet":
            # One data set: a folder of files, which readers of Parquet take for one table.
            places[option] = storage.join(output, f"{pattern}/{name}.parquet")
            continue
        if NAME not in str(pattern) and n_clips > 1:
            raise UsageError(
                f"--{option} {pattern} is one file for {n_clips} videos: put {NAME} into it, "
                f"such as {pattern.with_name(NAME + pattern.suffix)}"
            )
        places[option] = storage.join(output, str(named(pattern, name)))
    return places


def _place(text: str) -> str:
    return str(storage.as_path(os.path.expanduser(text))) if storage.is_local(text) else text


def _absolute(model: ModelConfig) -> ModelConfig:
    """The options with absolute paths: workers have folders of their own."""
    labels = model.labels and Path(os.path.abspath(model.labels.expanduser()))
    weights = model.weights
    if weights not in ("auto", "imagenet", "demo"):
        weights = os.path.abspath(os.path.expanduser(weights))
    own = model.own
    if own.module is not None:
        file, _, function = own.module.rpartition(":")
        own = replace(own, module=f"{os.path.abspath(os.path.expanduser(file))}:{function}")
    return replace(model, weights=weights, labels=labels, own=own)


def _shown(text: str) -> str:
    return redact(printable(text))


def _line(outcome: Outcome) -> str:
    where = f" on {outcome.node}" if outcome.node else ""
    took = f", {outcome.frames} frames in {outcome.seconds:.1f} s" if outcome.frames else ""
    reason = f" ({outcome.reason})" if outcome.reason else ""
    return _shown(f"{outcome.state}: {outcome.clip}{where}{took}{reason}")


@contextmanager
def _progress(
    archive: Archive, *, quiet: bool, as_json: bool
) -> Iterator[tuple[Callable[[Outcome], None], Callable[[], None]]]:
    """One bar for the run; a line or an object for each clip."""
    if as_json:
        yield (lambda outcome: print(json_text(asdict(outcome)), flush=True)), lambda: None
        return
    if quiet or not sys.stderr.isatty():
        yield (lambda end: None if quiet else print(_line(end), flush=True)), lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("clips"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("clips", total=archive.standing.n_clips, now="connecting")

        def on_tick() -> None:
            bars.update(bar, completed=archive.standing.n_ended, now=_now(archive))

        def on_end(outcome: Outcome) -> None:
            bars.console.print(_line(outcome), markup=False, highlight=False)

        yield on_end, on_tick


def _now(archive: Archive) -> str:
    now = archive.standing
    left = "" if now.seconds_left is None else f", {_duration(now.seconds_left)} left"
    return (
        f"{now.frames_per_second:.0f} frames/s, {now.n_nodes} nodes, {now.n_workers} workers, "
        f"{now.n_failed} failed{left}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"

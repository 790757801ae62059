"""From names and options to a running pipeline, with progress on the terminal."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from stream_cam.config import (
    DemoConfig,
    LookConfig,
    ModelConfig,
    PipelineConfig,
    RunConfig,
    WebConfig,
)
from stream_cam.errors import SinkError, StreamCamError
from stream_cam.host import parallel_choices
from stream_cam.pipeline.checks import check_run
from stream_cam.pipeline.progress import progress_on_terminal
from stream_cam.pipeline.report import Report, versions
from stream_cam.pipeline.watching import Watching
from stream_cam.results import open_results, result_paths
from stream_cam.results.sheet import SheetSink
from stream_cam.settings import Settings
from stream_cam.sinks import check_outputs, kind_of, open_sink
from stream_cam.sinks.base import Sink, StreamInfo, Waiting
from stream_cam.sinks.pipe import messages_to_stderr
from stream_cam.sinks.recorder import RecorderSink
from stream_cam.sinks.score import TruthScore
from stream_cam.sinks.video.recording_names import finished_path
from stream_cam.sinks.video.segments import Segment, SegmentSink, check_segments
from stream_cam.sinks.window import display_problem
from stream_cam.sources import open_source
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.sources.cut import cut_out
from stream_cam.sources.pace import PacedSource
from stream_cam.uri import hide, redact_uri
from stream_cam.web.address import WebAddress, listen

if TYPE_CHECKING:
    from stream_cam.explain.explainer import Explainer
    from stream_cam.pipeline.pipeline import Pipeline

logger = logging.getLogger(__name__)

_DEMO_SECONDS = 10.0


def run_session(
    source_uri: str,
    outputs: Sequence[str],
    config: PipelineConfig,
    *,
    extra_sinks: Sequence[Sink] = (),
    on_open: Callable[[Sequence[str], Settings], None] | None = None,
    on_wait: Callable[[Waiting], bool] | None = None,
    on_start: Callable[[Pipeline], None] | None = None,
    on_end: Callable[[Report], None] | None = None,
) -> Report:
    """Opens what people watch, then the source, runs the pipeline, closes everything.

    Args:
        source_uri, outputs: as on the command line; no output: a window, or where there is no
            display a page.
        extra_sinks: further sinks, already made.
        on_open: gets the links of the pages and the settings, before the source is opened.
        on_wait: told why there is no picture yet; False ends the run.
        on_start: gets the pipeline before it runs.
        on_end: gets the report, also that of a run that failed.

    Raises:
        StreamCamError: as its message says; the report is still written if one was asked for.
    """
    uris = list(outputs) or [_default_output()]
    config = replace(config, model=config.model.for_source(source_uri))
    check_run(uris, source_uri, config)
    with messages_to_stderr(uris), ExitStack() as closing:
        try:
            pipeline = _opened(closing, source_uri, uris, config, extra_sinks, on_open, on_wait)
        except (StreamCamError, KeyboardInterrupt) as error:
            _write_report(_report_of_nothing(source_uri, config, error), config.run.report)
            raise
        if pipeline is None:
            return _ended_before(source_uri, config, on_end)
        if on_start is not None:
            on_start(pipeline)
        try:
            with progress_on_terminal(pipeline.info, config.run, pipeline.report.live) as on_tick:
                report = pipeline.run(on_tick)
        except Exception:
            _write_report(pipeline.report, config.run.report)
            if on_end is not None:
                on_end(pipeline.report)
            raise
        finally:
            if pipeline.source_hangs:
                closing.pop_all()
        if config.run.report is not None:
            report.write(config.run.report)
        if on_end is not None:
            on_end(report)
        return report


def _opened(
    closing: ExitStack,
    source_uri: str,
    uris: Sequence[str],
    config: PipelineConfig,
    extra_sinks: Sequence[Sink],
    on_open: Callable[[Sequence[str], Settings], None] | None,
    on_wait: Callable[[Waiting], bool] | None,
) -> Pipeline | None:
    """Opens pages and windows, the source, the network; None if a viewer left meanwhile."""
    settings = Settings(config.look)
    whole = open_source(source_uri, config.capture, config.run.live)
    watching = Watching(uris, settings, redact_uri(source_uri), config.web, on_wait)
    closing.enter_context(watching)
    if on_open is not None:
        on_open(watching.urls, settings)
    source = watching.open(cut_out(whole, config.record), whole)
    if source is None:
        return None
    closing.push(source)
    info = source.info
    live = info.live if config.run.live is None else config.run.live
    if not info.live and (live or _only_watched(uris)):
        limited = config.run.limit is not None
        counted = live or limited or any(result_paths(config.record))
        source = PacedSource(source, once=counted)
    watching.tell(Waiting("loading the network"))
    pipeline = _pipeline(source, uris, config, extra_sinks, settings, watching.sinks)
    watching.release()
    return pipeline


def _ended_before(
    source_uri: str, config: PipelineConfig, on_end: Callable[[Report], None] | None
) -> Report:
    """The report of a run whose viewer left before the first picture."""
    report = _report_of_nothing(source_uri, config, "stopped before the first picture")
    if config.run.report is not None:
        report.write(config.run.report)
    if on_end is not None:
        on_end(report)
    return report


def _pipeline(
    source: Source,
    uris: Sequence[str],
    config: PipelineConfig,
    extra_sinks: Sequence[Sink],
    settings: Settings,
    watched: Mapping[str, Sink],
) -> Pipeline:
    """Loads the model, once the source is known to work, and puts the stages together."""
    # Not before: whoever mistypes a name need not wait for torch.
    from stream_cam.cam.steady import SteadyMaps
    from stream_cam.draw.layouts import Renderer
    from stream_cam.explain.explainer import Explainer
    from stream_cam.pipeline.pipeline import Pipeline

    info, look, run = source.info, config.look, config.run
    live = info.live if run.live is None else run.live
    videos = [Path(os.path.expanduser(uri)) for uri in uris if kind_of(uri).name == "video"]
    if config.record.segment is not None:
        for path in videos:
            check_segments(path, config.record, live=live, overwrite=run.overwrite)
    explainer = Explainer.from_config(config.model, look, parallel=parallel_frames(info, live))
    targets = [explainer.resolve(target) for target in config.model.target]
    stream = StreamInfo(
        fps=None if info.fps is None else info.fps / config.record.every,
        still=info.still,
        live=live,
        colour=info.colour,
        audio_lead_seconds=info.audio_lead_seconds if config.record.audio else Fraction(0),
        file=None if live else info.file,
        duration_seconds=info.duration_seconds,
        description=_description(explainer, [explainer.labels[index] for index in targets]),
    )
    settings.begin(explainer.labels, targets)
    now = settings.now
    renderer = Renderer(explainer, look.layout, hud=look.hud)
    renderer.show(now.look, cam=now.cam, n_targets=len(now.targets), divider=now.divider)

    def make(uri: str) -> Sink:
        if uri in watched:
            return watched[uri]
        record, overwrite = config.record, run.overwrite
        return open_sink(uri, stream, overwrite=overwrite, record=record, settings=settings)

    sinks = _sinks(uris, make)
    if any(sink.watched for sink in sinks):  # who watches may want to keep it
        sinks.append(RecorderSink(settings, Path.cwd(), stream, config.record))
    recording = _linked(sinks, videos)
    results = open_results(config.record, info.name, recording, stream.audio_lead_seconds)
    return Pipeline(
        source,
        [*sinks, *results, *extra_sinks],
        explainer,
        renderer,
        targets=targets,
        live=live,
        limit=run.limit,
        queue_frames=config.capture.queue_frames,
        steady=SteadyMaps(smooth_seconds=now.look.smooth, hold_seconds=now.look.hold),
        strict=run.strict,
        settings=settings,
    )


def _sinks(uris: Sequence[str], make: Callable[[str], Sink]) -> list[Sink]:
    """All that the user asked for; none stays open if one of them cannot be made."""
    with ExitStack() as made:
        sinks = [made.enter_context(closing(make(uri))) for uri in uris]
        made.pop_all()
    return sinks


def _only_watched(uris: Sequence[str]) -> bool:
    """Whether the run is for people's eyes, and not for files."""
    kinds = [kind_of(uri) for uri in uris]
    watched = any(kind.watched for kind in kinds)
    return watched and all(kind.watched or kind.discards for kind in kinds)


def _linked(sinks: Sequence[Sink], videos: Sequence[Path]) -> Path | Future[list[Segment]] | None:
    """What moments may be links into: the first recording, or the segments it will have."""
    segmented = [sink for sink in sinks if isinstance(sink, SegmentSink)]
    if segmented:
        return segmented[0].there
    return finished_path(videos[0]) if videos else None


def _description(explainer: Explainer, targets: Sequence[str]) -> str:
    """What a recording says of itself: model, weights and class."""
    weights = explainer.weights
    return (
        f"{explainer.model_name} with weights {weights.name} (sha256 {weights.sha256[:16]}), "
        f"map of {', '.join(targets) or 'the best class'}"
    )


def run_demo(
    demo: DemoConfig,
    outputs: Sequence[str],
    look: LookConfig,
    run: RunConfig,
    web: WebConfig | None = None,
    *,
    on_open: Callable[[Sequence[str], Settings], None] | None = None,
    on_start: Callable[[Pipeline], None] | None = None,
    on_end: Callable[[Report], None] | None = None,
) -> tuple[Report, TruthScore]:
    """The demo: drawn shapes, scored against the ground truth.

    Args:
        outputs: where they go; none: `demo.mp4`, and six moments of it in `demo.png`. If people
            only watch, it runs as a camera does, until it is stopped.

    Returns:
        What was done, and how often the model was right.
    """
    watched = bool(outputs) and _only_watched(outputs)
    seconds = demo.seconds if demo.seconds is not None or watched else _DEMO_SECONDS
    uri = f"demo://shapes?size={demo.size}&fps={demo.fps}&seed={demo.seed}&live={watched:d}"
    uri += f"&seconds={seconds:g}" if seconds is not None else ""
    score = TruthScore()
    extra: list[Sink] = [score]
    if not outputs:
        sheet = Path("demo.png")
        outputs = ["demo.mp4"]
        check_outputs([*outputs, str(sheet)], overwrite=run.overwrite)
        extra.append(SheetSink(sheet, 6, captions=False, only_with_truth=True))
    model = ModelConfig(weights="demo", engine=demo.engine)
    config = PipelineConfig(model, look, run, web=web or WebConfig())
    report = run_session(
        uri,
        outputs,
        config,
        extra_sinks=extra,
        on_open=on_open,
        on_start=on_start,
        on_end=on_end,
    )
    return report, score


def _report_of_nothing(
    source_uri: str, config: PipelineConfig, error: StreamCamError | KeyboardInterrupt | str
) -> Report:
    """Of a run whose source never came, or whose network cannot be had."""
    why = "interrupted" if isinstance(error, KeyboardInterrupt) else hide(str(error))
    return Report(
        source=redact_uri(source_uri),
        live=bool(config.run.live),
        model=config.model.model,
        weights=config.model.weights,
        weights_sha256="",
        ended_by=why,
        versions=versions(),
    )


def _write_report(report: Report, path: Path | None) -> None:
    """After a failure, whose message is not to be hidden by another one."""
    if path is None:
        return
    try:
        report.write(path)
    except StreamCamError as error:
        logger.warning("%s", error)


def _default_output() -> str:
    """A window; where there is no display a page, at the usual port if that is free."""
    problem = display_problem()
    if problem is None:
        return "window"
    logger.info("a page instead of a window: %s", problem)
    address = WebAddress()
    try:
        listen(address).close()
    except SinkError:
        address = WebAddress(port=0)
    return f"web://{address}"


def parallel_frames(info: SourceInfo, live: bool) -> int:
    """Live video and pictures want the lowest latency, files the highest throughput."""
    lowest_latency, *highest_throughput = parallel_choices()
    if live or info.still or not highest_throughput:
        return lowest_latency
    return highest_throughput[0]

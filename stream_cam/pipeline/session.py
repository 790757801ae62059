"""One run from its names and options: opens everything, runs the pipeline, closes everything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stream_cam.config import ModelConfig, ModuleConfig, PipelineConfig, RunConfig
from stream_cam.errors import SinkError, StreamCamError
from stream_cam.host import parallel_choices
from stream_cam.pipeline.checks import check_recordings, check_run, only_watched, video_paths
from stream_cam.pipeline.report import Report, failed_report
from stream_cam.pipeline.watched_sinks import WatchedSinks
from stream_cam.results import open_results, result_paths
from stream_cam.settings import Settings
from stream_cam.sinks import open_sink
from stream_cam.sinks.base import Sink, StreamInfo, Waiting
from stream_cam.sinks.pipe import messages_to_stderr
from stream_cam.sinks.recorder import RecorderSink
from stream_cam.sinks.video.recording_names import finished_path
from stream_cam.sinks.video.segments import Segment, SegmentSink
from stream_cam.sinks.window import display_problem
from stream_cam.sources import open_source
from stream_cam.sources.base import Source, SourceInfo
from stream_cam.sources.pacing import PacedSource
from stream_cam.sources.trim import trim
from stream_cam.uri import redact_uri
from stream_cam.web.address import WebAddress, listen

if TYPE_CHECKING:
    from stream_cam.explain.frame_explainer import FrameExplainer
    from stream_cam.pipeline.counters import Progress
    from stream_cam.pipeline.pipeline import Pipeline

    OnTick = Callable[[Progress], None]
    ShowProgress: TypeAlias = Callable[
        [SourceInfo, RunConfig, bool], AbstractContextManager[OnTick | None]
    ]

logger = logging.getLogger(__name__)


@contextmanager
def no_progress(info: SourceInfo, run: RunConfig, live: bool) -> Iterator[OnTick | None]:
    """Shows nothing while a run is going."""
    yield None


def run_session(
    source_uri: str,
    outputs: Sequence[str],
    config: PipelineConfig,
    *,
    explainer: FrameExplainer | None = None,
    extra_sinks: Sequence[Sink] = (),
    settings: Settings | None = None,
    on_open: Callable[[Sequence[str], Settings], None] | None = None,
    on_wait: Callable[[Waiting], bool] | None = None,
    on_start: Callable[[Pipeline], None] | None = None,
    on_end: Callable[[Report], None] | None = None,
    show_progress: ShowProgress = no_progress,
) -> Report:
    """Opens windows and pages, then the source, runs the pipeline, closes everything.

    Args:
        source_uri, outputs: as on the command line. Without an output: a window, or a page where
            there is no display.
        explainer: runs in place of the network that the options name.
        extra_sinks: further sinks, already made.
        settings: how frames are drawn, as viewers have set it; default: as the options say.
        on_open: gets the links of the pages and the settings, before the source is opened.
        on_wait: gets the reason why there is no picture yet; False ends the run.
        on_start: gets the pipeline before it runs.
        on_end: gets the report once the pipeline has ended, also after a failure.
        show_progress: a context around the run, made from the source, the options and whether the
            run is live. It gives a callback for each tick, or None.

    Raises:
        StreamCamError: as its message says. A report that was asked for is written before.
    """
    uris = list(outputs) or [_default_output()]
    config = replace(config, model=_named_model(config.model, source_uri, explainer))
    check_run(uris, source_uri, config)
    with messages_to_stderr(uris), ExitStack() as stack:
        try:
            pipeline = _open(
                stack,
                source_uri,
                uris,
                config,
                explainer,
                extra_sinks,
                settings or Settings(config.look),
                on_open,
                on_wait,
            )
        except (StreamCamError, KeyboardInterrupt) as error:
            _write_report(failed_report(source_uri, config, error), config, failed=True)
            raise
        if pipeline is None:
            report = failed_report(source_uri, config, "stopped before the first picture")
            _write_report(report, config, on_end)
            return report
        if on_start is not None:
            on_start(pipeline)
        try:
            with show_progress(pipeline.info, config.run, pipeline.report.live) as on_tick:
                report = pipeline.run(on_tick)
        except Exception:
            _write_report(pipeline.report, config, on_end, failed=True)
            raise
        finally:
            if pipeline.source_hangs:
                stack.pop_all()
        _write_report(report, config, on_end)
        return report


def _named_model(
    model: ModelConfig, source_uri: str, explainer: FrameExplainer | None
) -> ModelConfig:
    """The options with the names of the network that runs, for reports."""
    if explainer is None:
        return model.for_source(source_uri)
    return replace(
        model, model=explainer.model_name, weights=explainer.weights.name, own=ModuleConfig()
    )


def _write_report(
    report: Report,
    config: PipelineConfig,
    on_end: Callable[[Report], None] | None = None,
    *,
    failed: bool = False,
) -> None:
    """Writes the report if one was asked for, and passes it on.

    Args:
        failed: the run failed; an error of the report must not hide the run's own.
    """
    if config.run.report is not None:
        try:
            report.write(config.run.report)
        except StreamCamError as error:
            if not failed:
                raise
            logger.warning("%s", error)
    if on_end is not None:
        on_end(report)


def _open(
    stack: ExitStack,
    source_uri: str,
    uris: Sequence[str],
    config: PipelineConfig,
    explainer: FrameExplainer | None,
    extra_sinks: Sequence[Sink],
    settings: Settings,
    on_open: Callable[[Sequence[str], Settings], None] | None,
    on_wait: Callable[[Waiting], bool] | None,
) -> Pipeline | None:
    """Opens pages, windows, the source and the network; None if a viewer left meanwhile."""
    whole = open_source(source_uri, config.capture, config.run.live)
    watched = WatchedSinks(uris, settings, redact_uri(source_uri), config.web, on_wait)
    stack.enter_context(watched)
    if on_open is not None:
        on_open(watched.urls, settings)
    source = watched.open(trim(whole, config.record), whole)
    if source is None:
        return None
    stack.push(source)
    live = source.info.live if config.run.live is None else config.run.live
    if not source.info.live and (live or only_watched(uris)):
        counted = live or config.run.limit is not None or any(result_paths(config.record))
        source = PacedSource(source, once=counted)
    watched.notify(Waiting("loading the network"))
    pipeline = _build_pipeline(
        source, uris, config, explainer, extra_sinks, settings, watched.sinks, live
    )
    watched.release()
    return pipeline


def _build_pipeline(
    source: Source,
    uris: Sequence[str],
    config: PipelineConfig,
    explainer: FrameExplainer | None,
    extra_sinks: Sequence[Sink],
    settings: Settings,
    watched: Mapping[str, Sink],
    live: bool,
) -> Pipeline:
    """Loads the model, once the source is known to work, and puts the stages together."""
    # Imported late: a mistyped name is told before torch is loaded.
    from stream_cam.explain.explainer import Explainer
    from stream_cam.pipeline.pipeline import Pipeline

    info = source.info
    check_recordings(uris, config, live=live)
    if explainer is None:
        explainer = Explainer.from_config(config.model, parallel=parallel_frames(info, live))
    targets = [explainer.resolve(target) for target in config.model.target]
    stream = _stream_info(info, config, live, _describe(explainer, targets, config.model.against))
    settings.begin(explainer.labels, targets, config.model.against)
    on_a_wall = any(sink.watched for sink in extra_sinks)
    sinks = _open_sinks(uris, watched, stream, config, settings, watched_elsewhere=on_a_wall)
    results = open_results(
        config.record, info.name, _recording(sinks, uris), stream.audio_lead_seconds
    )
    return Pipeline(
        source,
        [*sinks, *results, *extra_sinks],
        explainer,
        settings=settings,
        live=live,
        limit=config.run.limit,
        queue_frames=config.capture.queue_frames,
        strict=config.run.strict,
    )


def _stream_info(
    info: SourceInfo, config: PipelineConfig, live: bool, description: str
) -> StreamInfo:
    return StreamInfo(
        fps=None if info.fps is None else info.fps / config.record.every,
        still=info.still,
        live=live,
        colour=info.colour,
        audio_lead_seconds=info.audio_lead_seconds if config.record.audio else Fraction(0),
        file=None if live else info.file,
        duration_seconds=info.duration_seconds,
        description=description,
    )


def _open_sinks(
    uris: Sequence[str],
    watched: Mapping[str, Sink],
    stream: StreamInfo,
    config: PipelineConfig,
    settings: Settings,
    *,
    watched_elsewhere: bool = False,
) -> list[Sink]:
    """The sinks of all outputs; none stays open if one of them cannot be made.

    Args:
        watched: pages and windows, which are open already, by URI.
        watched_elsewhere: people look at pictures that none of these sinks shows.
    """

    def make(uri: str) -> Sink:
        if uri in watched:
            return watched[uri]
        record, overwrite = config.record, config.run.overwrite
        return open_sink(uri, stream, overwrite=overwrite, record=record, settings=settings)

    with ExitStack() as made:
        sinks = [made.enter_context(closing(make(uri))) for uri in uris]
        made.pop_all()
    if watched_elsewhere or any(sink.watched for sink in sinks):  # a viewer may want to record
        sinks.append(RecorderSink(settings, Path.cwd(), stream, config.record))
    return sinks


def _recording(sinks: Sequence[Sink], uris: Sequence[str]) -> Path | Future[list[Segment]] | None:
    """The target of links from results: the first recording, or the segments it will have."""
    segmented = [sink for sink in sinks if isinstance(sink, SegmentSink)]
    if segmented:
        return segmented[0].kept
    videos = video_paths(uris)
    return finished_path(videos[0]) if videos else None


def _describe(
    explainer: FrameExplainer, targets: Sequence[int], against: Sequence[str] = ()
) -> str:
    """A recording's own description: model, weights and class."""
    weights = explainer.weights
    classes = ", ".join(explainer.labels[index] for index in targets) or "the best class"
    if against:
        classes += f", not {', '.join(against)}"
    return (
        f"{explainer.model_name} with weights {weights.name} (sha256 {weights.sha256[:16]}), "
        f"map of {classes}"
    )


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
    """Frames explained at once: live video and pictures want low latency, files throughput."""
    lowest_latency, *highest_throughput = parallel_choices()
    if live or info.still or not highest_throughput:
        return lowest_latency
    return highest_throughput[0]

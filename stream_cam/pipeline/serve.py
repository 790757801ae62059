"""A run with a page, started from a notebook or a program in one line."""

from __future__ import annotations

import html
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stream_cam.closing import Closeable
from stream_cam.config import LookConfig, ModelConfig, PipelineConfig
from stream_cam.errors import StreamCamError
from stream_cam.pipeline.pipeline import Pipeline
from stream_cam.pipeline.report import Report
from stream_cam.pipeline.session import run_session
from stream_cam.settings import Settings
from stream_cam.sinks.base import Sink, Waiting

if TYPE_CHECKING:
    from stream_cam.explain.explainer import Explainer

_STOP_SECONDS = 15.0
"""Longest wait for a stop: the stages take two seconds, and files are finished."""


class Served(Closeable):
    """A run with its page, on its own thread, until `stop` or the end of a `with` block.

    A notebook shows the page below the cell.

    Args:
        source: as in `run_session`, like the other arguments.

    Raises:
        StreamCamError: the run could not start.
    """

    def __init__(
        self,
        source: str,
        outputs: Sequence[str],
        config: PipelineConfig,
        extra_sinks: Sequence[Sink] = (),
        explainer: Explainer | None = None,
    ) -> None:
        self._pipeline: Pipeline | None = None
        self._report: Report | None = None
        self._waiting: Waiting | None = None
        self._stopping = False
        self._failure: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(
            target=self._run,
            args=(source, outputs, config, extra_sinks, explainer),
            name="serve",
            daemon=True,
        )
        self._thread.start()
        self._started.wait()
        if self._pipeline is None and self._waiting is None:
            raise self._failure or StreamCamError("the run ended before its start")

    @property
    def pipeline(self) -> Pipeline:
        """The run itself.

        Raises:
            StreamCamError: the source has given no picture yet.
        """
        if self._pipeline is None:
            waiting = self._waiting.lines if self._waiting is not None else []
            raise StreamCamError(f"there is no picture yet: {'; '.join(waiting)}")
        return self._pipeline

    @property
    def url(self) -> str:
        """The page's link."""
        return self._urls[0]

    @property
    def settings(self) -> Settings:
        """The settings of the run, which may change: `served.settings.alpha = 0.6`."""
        return self._settings

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stats(self) -> dict[str, object]:
        """The progress; before the first picture, why there is none."""
        if self._pipeline is None and self._waiting is not None:
            return {"waiting": asdict(self._waiting)}
        return self.pipeline.stats()

    def wait(self, seconds: float | None = None) -> Report | None:
        """Waits for the end of the run; None if it is not over after this many seconds.

        Raises:
            StreamCamError: the error of a run that failed.
        """
        self._thread.join(seconds)
        if self._thread.is_alive():
            return None
        if self._failure is not None:
            raise self._failure
        return self._report

    def stop(self) -> Report | None:
        """Ends the run and the page; returns the report."""
        self._stopping = True
        if self._pipeline is not None:
            self._pipeline.stop()
        return self.wait(_STOP_SECONDS)

    def close(self) -> None:
        self.stop()

    def __repr__(self) -> str:
        place = self.url.partition("?")[0]
        return f"<stream-cam at {place}{'' if self.running else ', ended'}>"

    def _repr_html_(self) -> str:
        if "?" in self.url:  # the token must not be saved in the notebook
            return html.escape(f"{self!r}: open the link in served.url")
        url = html.escape(self.url, quote=True)
        return f'<iframe src="{url}" width="100%" height="600" style="border:0"></iframe>'

    def _run(
        self,
        source: str,
        outputs: Sequence[str],
        config: PipelineConfig,
        extra_sinks: Sequence[Sink],
        explainer: Explainer | None,
    ) -> None:
        try:
            self._report = run_session(
                source,
                outputs,
                config,
                explainer=explainer,
                extra_sinks=extra_sinks,
                on_open=self._open,
                on_wait=self._wait,
                on_start=self._start,
            )
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    def _open(self, urls: Sequence[str], settings: Settings) -> None:
        self._urls, self._settings = urls, settings

    def _wait(self, waiting: Waiting) -> bool:
        if waiting.reason:
            self._waiting = waiting
            self._started.set()
        return not self._stopping

    def _start(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        if self._stopping:
            pipeline.stop()
        self._started.set()


def serve(
    source: str | int,
    *,
    weights: str = "auto",
    model: str = "resnet18",
    explainer: Explainer | None = None,
    look: LookConfig | None = None,
    address: str = "web://127.0.0.1:0",
    outputs: Sequence[str] = (),
    config: PipelineConfig | None = None,
) -> Served:
    """Explains a source and serves the page; returns once the run has started.

    It also returns while a live source is away: the page and `stats()` then say why.

        stream_cam.serve(0, weights="demo")     # in a notebook: shows the page below the cell

    Args:
        source: as on the command line; a number is a camera.
        weights: as on the command line.
        model: as on the command line.
        explainer: a network of your own, in place of `weights` and `model`.
        look: as on the command line.
        address: the address of the page; port 0 takes a free one.
        outputs: further outputs, such as `out.mp4`.
        config: all options; `weights`, `model` and `look` are then ignored.

    Raises:
        StreamCamError: as its message says.
    """
    config = config or PipelineConfig(ModelConfig(model, weights), look or LookConfig())
    config = replace(
        config,
        run=replace(config.run, quiet=True),
        web=replace(config.web, web_embed=True),
    )
    return Served(str(source), [address, *outputs], config, explainer=explainer)


def run(
    explainer: Explainer,
    source: str | int,
    outputs: Sequence[str] = ("null",),
    *,
    predictions: Path | str | None = None,
    config: PipelineConfig | None = None,
) -> Report:
    """Explains a whole source with a network of your own; returns at its end.

        explainer = stream_cam.Explainer.from_module(network, labels=["intact", "damaged"])
        report = stream_cam.run(explainer, "clip.mp4", ["out.mp4"], predictions="out.jsonl")

    Args:
        explainer: the network.
        source: as on the command line; a number is a camera.
        outputs: as on the command line; default: none.
        predictions: a file for each frame's classes, as `--predictions`.
        config: all other options; its network is not loaded.

    Raises:
        StreamCamError: as its message says.
    """
    config = config or PipelineConfig()
    if predictions is not None:
        config = replace(config, record=replace(config.record, predictions=Path(predictions)))
    return run_session(str(source), outputs, config, explainer=explainer)

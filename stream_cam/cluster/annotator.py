"""The work on a node: one clip into one recording with its results."""

from __future__ import annotations

import errno
import getpass
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stream_cam._version import __version__
from stream_cam.cluster import storage
from stream_cam.cluster.clip import Clip, Outcome
from stream_cam.config import RESULT_SUFFIXES, PipelineConfig, RunConfig
from stream_cam.errors import StreamCamError
from stream_cam.sources.base import SourceInfo

if TYPE_CHECKING:
    from stream_cam.explain.explainer import Explainer
    from stream_cam.pipeline.counters import Progress

Tell = Callable[[str, int], None]
_TELL_SECONDS: Final = 1.0


class Annotator:
    """Annotates clips one after another with one network, which is loaded with the first.

    Args:
        config: the options of each run.
        node: this node's name.
        tell: gets a clip's source and its frames so far, about once a second.
    """

    def __init__(self, config: PipelineConfig, node: str, tell: Tell) -> None:
        self._config, self._node, self._tell = config, node, tell
        self._explainer: Explainer | None = None

    def load(self) -> str:
        """Loads the network, and builds its engine if this kind of node has none.

        Returns:
            The version of stream-cam here.

        Raises:
            StreamCamError: the network cannot be loaded here.
        """
        from stream_cam.explain.explainer import Explainer
        from stream_cam.host import parallel_choices

        if self._explainer is None:
            model = self._config.model.for_source("")
            self._explainer = Explainer.from_config(model, parallel=parallel_choices()[-1])
        return __version__

    def annotate(self, clip: Clip) -> Outcome:
        """Makes and publishes a clip's results, its recording last; a failure is an outcome."""
        started = time.monotonic()
        frames = 0
        try:
            with scratch_folder() as folder:
                frames = self._annotate(clip, folder)
            outcome = Outcome(clip.source, "done", frames=frames)
        except (StreamCamError, OSError) as error:
            outcome = Outcome(clip.source, "failed", reason=self._reason(error))
        return replace(outcome, node=self._node, seconds=round(time.monotonic() - started, 3))

    def _annotate(self, clip: Clip, folder: Path) -> int:
        from stream_cam.pipeline.session import run_session
        from stream_cam.results.predictions import PredictionsSink

        self.load()
        source = storage.fetch(clip.source, folder)
        (folder / "made").mkdir()
        recording = folder / "made" / Path(clip.output).name
        made = {
            name: folder / "made" / _file_name(name, place) for name, place in clip.results.items()
        }
        predictions = made.get("predictions")
        # The session would name the local copy as the source of each row.
        extra = [] if predictions is None else [PredictionsSink(predictions, clip.source)]
        report = run_session(
            str(source),
            [str(recording)],
            _own_results(self._config, {**made, "predictions": None}),
            explainer=self._explainer,
            extra_sinks=extra,
            show_progress=self._progress_of(clip),
        )
        for name, path in made.items():
            if path.exists():  # a clip without a frame has no result
                storage.publish(path, clip.results[name])
        storage.publish(recording, clip.output)
        return report.rendered

    def _progress_of(self, clip: Clip) -> Callable[..., Any]:
        @contextmanager
        def show(info: SourceInfo, run: RunConfig, live: bool) -> Iterator[Callable[..., None]]:
            told_at = time.monotonic()

            def on_tick(progress: Progress) -> None:
                nonlocal told_at
                if time.monotonic() - told_at >= _TELL_SECONDS:
                    told_at = time.monotonic()
                    self._tell(clip.source, progress.rendered)

            yield on_tick

        return show

    def _reason(self, error: StreamCamError | OSError) -> str:
        said = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return f"the disk of node {self._node} is full; free some space in {_scratch_root()}"
        return said


def _file_name(option: str, place: str) -> str:
    return f"{option}.result{Path(place).suffix}"


def _own_results(config: PipelineConfig, paths: dict[str, Path | None]) -> PipelineConfig:
    """The options of one clip, with its results in a local folder."""
    results: dict[str, Any] = {name: paths.get(name) for name in RESULT_SUFFIXES}
    run = replace(config.run, quiet=True, overwrite=True, report=paths.get("report"))
    return replace(config, run=run, record=replace(config.record, **results))


def _scratch_root() -> Path:
    return Path(tempfile.gettempdir()) / f"stream-cam-cluster-{getpass.getuser()}"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder on the node's own disk; folders of workers that were killed are removed."""
    root = _scratch_root()
    root.mkdir(mode=0o700, exist_ok=True)
    for other in root.iterdir():
        if (
            not Path(f"/proc/{other.name.partition('-')[0]}").exists()
            and Path("/proc/self").exists()
        ):
            shutil.rmtree(other, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
    try:
        yield folder
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)

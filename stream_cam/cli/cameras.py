"""`stream-cam cameras`: many cameras, one network, one wall."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from stream_cam.cameras.camera_config import CameraConfig
from stream_cam.cameras.config_file import CamerasFile, make_camera, read_cameras
from stream_cam.cli.messages import print_error, print_line
from stream_cam.cli.options import CamerasCommand
from stream_cam.cli.signals import Signals
from stream_cam.config import CameraShare, ModelConfig, PipelineConfig
from stream_cam.errors import SinkError, UsageError
from stream_cam.pipeline.checks import check_run
from stream_cam.sinks import check_outputs
from stream_cam.sources import check_source
from stream_cam.uri import redact_uri
from stream_cam.web.address import WebAddress, listen


def cameras_command(command: CamerasCommand, signals: Signals) -> None:
    """Runs all cameras until a signal, or until every one of them has ended.

    Raises:
        UsageError: the file or the line has faults; all are told.
    """
    path = config_path(command.source)
    file = _read(command, path)
    outputs = command.sink or (_default_page(),)
    check_outputs(outputs, overwrite=command.run.overwrite, record=command.record, web=command.web)
    if command.check:
        for camera in file.cameras:
            print_line(f"{camera.name}: {redact_uri(camera.source)}")
        print_line(f"{len(file.cameras)} cameras, no fault")
        return
    run_cameras(command, file, outputs, signals, path)


def run_cameras(
    command: CamerasCommand,
    file: CamerasFile,
    outputs: Sequence[str],
    signals: Signals,
    path: Path | None = None,
) -> None:
    """Loads the network, starts the cameras and shows the wall.

    Args:
        path: of the file; it is read again when it changes.
    """
    from stream_cam.cameras.cameras import Cameras, shared_model
    from stream_cam.cameras.open_network import open_network
    from stream_cam.cameras.wall_run import WallRun

    quiet = command.run.quiet
    with ExitStack() as stack:
        model = shared_model(file.network, file.cameras)
        shared = stack.enter_context(
            open_network(model, len(file.cameras), command.cameras.limit_ms)
        )
        cameras = stack.enter_context(Cameras(shared))
        wall = WallRun(
            cameras,
            outputs,
            command.cameras,
            command.web,
            command.record,
            overwrite=command.run.overwrite,
        )
        for url in wall.urls:
            print_line(f"watch at {url}   (Ctrl-C ends it)")
        signals.watch(cameras.stop)
        cameras.apply(file.cameras)
        if path is None:
            wall.run()
        else:
            wall.run(_Reloader(command, path, file, lambda new: str(cameras.apply(new.cameras))))
        if not quiet:
            _print_summary(cameras)


def config_path(source: Sequence[str]) -> Path | None:
    """The file, if the line names one, not cameras.

    Raises:
        UsageError: it names nothing, or both.
    """
    if not source:
        raise UsageError("give a TOML file, or cameras as NAME=URI, such as door=0")
    if len(source) == 1 and "=" not in source[0]:
        return Path(os.path.expanduser(source[0]))
    wrong = next((one for one in source if not one.partition("=")[2]), None)
    if wrong is not None:
        raise UsageError(f"{redact_uri(wrong)} is no camera; give NAME=URI, such as door=0")
    return None


def base_options(command: CamerasCommand) -> PipelineConfig:
    """The options of the command line, for every camera."""
    return PipelineConfig(
        command.model, command.look, command.run, command.capture, command.record, command.web
    )


def _read(command: CamerasCommand, path: Path | None) -> CamerasFile:
    base = base_options(command)
    if path is not None:
        if command.camera_sink:
            raise UsageError("--camera-sink is for NAME=URI; in a file give [defaults] sink")
        try:
            return read_cameras(path, base, check_camera)
        except UsageError as error:
            *others, last = str(error).splitlines()
            for other in others:  # a line each: an error is printed as one
                print_error(other)
            raise UsageError(last) from error
    cameras: dict[str, CameraConfig] = {}
    for one in command.source:
        name, _, uri = one.partition("=")
        if name in cameras:
            raise UsageError(f"there are two cameras {name}; give each a name of its own")
        sections = {
            "look": base.look,
            "capture": base.capture,
            "record": base.record,
            "share": CameraShare(),
            "run": base.run,
        }
        shown = ModelConfig(target=base.model.target, against=base.model.against)
        try:
            camera = make_camera(name, uri, base, sections, shown, command.camera_sink)
        except ValueError as error:
            raise UsageError(str(error)) from error
        check_camera(camera)
        cameras[name] = camera
    return CamerasFile(base.model, tuple(cameras.values()))


def check_camera(camera: CameraConfig) -> None:
    """Checks a camera's source and outputs before anything is started.

    Raises:
        StreamCamError: as its message says.
    """
    named = camera.named()
    check_source(named.source)
    check_run(named.sink or ("null",), named.source, named.pipeline)


class _Reloader:
    """Reads the file again after a change or SIGUSR1; a faulty version changes nothing.

    Args:
        apply: makes a version's cameras the running ones; says what changed.
    """

    def __init__(
        self,
        command: CamerasCommand,
        path: Path,
        file: CamerasFile,
        apply: Callable[[CamerasFile], str],
    ) -> None:
        self._command, self._path, self._file, self._apply = command, path, file, apply
        self._asked = threading.Event()
        self._version = self._stamp()
        self._ticks = 0
        number = getattr(signal, "SIGUSR1", None)  # Windows has none
        if number is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, lambda *_: self._asked.set())

    def __call__(self) -> None:
        self._ticks += 1
        if self._command.cameras.reload and self._ticks % 10 == 0:  # once a second
            version = self._stamp()
            if version not in (self._version, None):
                self._version = version
                self._asked.set()
        if self._asked.is_set():
            self._asked.clear()
            self._read()

    def _read(self) -> None:
        base = base_options(self._command)
        try:
            new = read_cameras(self._path, base, self._check)
            if new.network != self._file.network:
                raise UsageError(
                    f"{self._path}: [network] has changed; end this run and start it again"
                )
        except UsageError as error:
            for line in str(error).splitlines():
                print_error(line)
            print_error("the cameras go on as they were")
            return
        said = self._apply(new)
        self._file = new
        print_line(f"{self._path}: {said}")

    def _check(self, camera: CameraConfig) -> None:
        """As at the start; a running camera's own files are there, and are being written."""
        running = {one.name for one in self._file.cameras}
        if camera.name in running:
            check_source(camera.named().source)
        else:
            check_camera(camera)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None  # an editor is replacing it
        return found.st_mtime_ns, found.st_size


def _print_summary(cameras: object) -> None:
    from stream_cam.cameras.cameras import Cameras

    assert isinstance(cameras, Cameras)
    for camera in cameras.all:
        counts = camera.counts
        error = f" · {camera.error}" if camera.error else ""
        print_line(
            f"{camera.name}: {counts.captured} captured, {counts.explained} explained, "
            f"{counts.superseded} superseded, {counts.rendered} drawn · {camera.state}{error}"
        )


def _default_page() -> str:
    """A page at the usual port if that is free."""
    address = WebAddress()
    try:
        listen(address).close()
    except SinkError:
        address = WebAddress(port=0)
    return f"web://{address}"

"""The file of `stream-cam cameras`: read whole, and every fault told with its line.

[network]
weights = "shop.safetensors"

[defaults]
sink = ["recordings/{name}.mp4"]
segment = "10m"

[cameras.entrance]
source = "rtsp://192.168.1.20/stream1"
target = ["person"]
weight = 2
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import tomllib

from stream_cam.cameras.camera_config import CameraConfig
from stream_cam.cameras.option_values import option_name, option_types, option_value, with_options
from stream_cam.cameras.toml_lines import TomlLines
from stream_cam.config import (
    CameraShare,
    CaptureConfig,
    LookConfig,
    ModelConfig,
    PipelineConfig,
    RecordConfig,
    RunConfig,
)
from stream_cam.config.cameras import check_camera_name
from stream_cam.errors import StreamCamError, UsageError, unknown_name
from stream_cam.sinks import kind_of
from stream_cam.uri import hide, remember_secrets

_TABLES: Final = ("network", "defaults", "cameras")
_OWN: Final = {
    "source": str,
    "sink": tuple[str, ...],
    "target": tuple[str, ...],
    "against": tuple[str, ...],
}
_NOT_SHARED: Final = ("target", "against", "own")
"""Options of the network that [network] does not take."""
_RUN_OPTIONS: Final = ("overwrite", "report", "strict")
_SECTIONS: Final[Mapping[str, type[Any]]] = {
    "look": LookConfig,
    "capture": CaptureConfig,
    "record": RecordConfig,
    "share": CameraShare,
    "run": RunConfig,
}


@dataclass(frozen=True)
class CamerasFile:
    """The contents of a file without faults."""

    network: ModelConfig
    cameras: tuple[CameraConfig, ...]


class _Faults:
    """Collects faults, each with its line."""

    def __init__(self, path: Path, lines: TomlLines) -> None:
        self._path, self._lines = path, lines
        self._found: list[tuple[int, str]] = []

    def add(self, where: tuple[str, ...], text: str) -> None:
        self._found.append((self._lines.line(*where), text))

    def raise_if_any(self) -> None:
        if self._found:
            raise UsageError(
                "\n".join(f"{self._path}:{line}: {text}" for line, text in sorted(self._found))
            )


def read_cameras(
    path: Path,
    base: PipelineConfig,
    check: Callable[[CameraConfig], None] = lambda camera: None,
) -> CamerasFile:
    """Reads and checks a file.

    Args:
        base: the command line's options, which the file's own replace.
        check: raises a StreamCamError if a camera cannot run.

    Raises:
        UsageError: all faults, one a line, each with the file's name and its line.
    """
    text = _text(path)
    remember_secrets(*text.split('"'))
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: this is not TOML: {hide(str(error))}") from error
    faults = _Faults(path, TomlLines(text))
    reading = _Reading(data, base, faults)
    found = reading.read(check)
    faults.raise_if_any()
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give a file or NAME=URI") from (
            error
        )
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; give a TOML file or NAME=URI") from error


_Options = Mapping[str, tuple[tuple[tuple[str, ...], str], object]]
"""By name: the table and the key where it is written, and its value."""


class _Reading:
    """One pass through a file's tables."""

    def __init__(self, data: Mapping[str, Any], base: PipelineConfig, faults: _Faults) -> None:
        self._data, self._base, self._faults = data, base, faults
        self._places: dict[tuple[str, str], str] = {}

    def read(self, check: Callable[[CameraConfig], None]) -> CamerasFile:
        for name in self._data:
            if name not in _TABLES:
                self._faults.add((name,), str(unknown_name("table", name, _TABLES)))
        network = self._network()
        defaults = self._table("defaults")
        cameras = []
        tables = self._table("cameras")
        if not tables:
            self._faults.add(
                ("cameras",), 'there is no camera; add [cameras.NAME] with source = "URI"'
            )
        for name, table in tables.items():
            camera = self._camera(name, table, defaults)
            if camera is not None:
                self._check(camera, check)
                cameras.append(camera)
        return CamerasFile(network, tuple(cameras))

    def _table(self, name: str) -> Mapping[str, Any]:
        table = self._data.get(name, {})
        if not isinstance(table, dict):
            self._faults.add((name,), f"{name} is a table, such as [{name}]; got {table!r}")
            return {}
        return table

    def _network(self) -> ModelConfig:
        model, types = self._base.model, option_types(ModelConfig)
        for key, value in self._table("network").items():
            name = option_name(key)
            if name not in types or name in _NOT_SHARED:
                known = [one for one in types if one not in _NOT_SHARED]
                self._faults.add(("network", key), str(unknown_name("option", key, known)))
                continue
            try:
                model = with_options(model, {name: value})
            except ValueError as error:
                self._faults.add(("network", key), _without_dashes(error))
        return model

    def _camera(self, name: str, table: object, defaults: Mapping[str, Any]) -> CameraConfig | None:
        where = ("cameras", name)
        if not isinstance(table, dict):
            self._faults.add(where, f"{name} is a table, [cameras.{name}]; got {table!r}")
            return None
        try:
            check_camera_name(name)
        except ValueError as error:
            self._faults.add(where, str(error))
            return None
        if "source" in defaults:
            self._faults.add(("defaults", "source"), "each camera has a source of its own")
        options = {
            option_name(key): ((table_name, key), value)
            for table_name, one in ((("defaults",), defaults), (where, table))
            for key, value in one.items()
        }
        return self._with_options(name, options, where)

    def _with_options(
        self,
        name: str,
        options: _Options,
        where: tuple[str, ...],
    ) -> CameraConfig | None:
        sections: dict[str, Any] = {
            "look": self._base.look,
            "capture": self._base.capture,
            "record": self._base.record,
            "share": CameraShare(),
            "run": self._base.run,
        }
        model = self._base.model
        own: dict[str, Any] = {"target": model.target, "against": model.against, "sink": ()}
        grouped: dict[str, dict[str, object]] = {}
        for option, ((table, key), value) in options.items():
            try:
                if option in _OWN:
                    own[option] = option_value(option, _OWN[option], value)
                    continue
                section = _section_of(option)
                if section is None:
                    raise unknown_name("option", key, _known())
                option_value(option, option_types(_SECTIONS[section])[option], value)
                grouped.setdefault(section, {})[option] = value
            except (ValueError, UsageError) as error:
                self._faults.add((*table, key), f"{name}: {_without_dashes(error)}")
        for section, values in grouped.items():
            sections[section] = self._section(name, sections[section], values, options)
        if "source" not in own:
            self._faults.add(where, f'{name} has no source; add source = "rtsp://…"')
            return None
        shown = ModelConfig(target=own["target"], against=own["against"])
        return make_camera(name, own["source"], self._base, sections, shown, own["sink"])

    def _section(
        self,
        name: str,
        config: object,
        values: Mapping[str, object],
        options: _Options,
    ) -> object:
        """With all its values at once: keep needs segment."""
        try:
            return with_options(config, values)
        except ValueError as error:
            table, key = options[_named_in(error, values)][0]
            self._faults.add((*table, key), f"{name}: {_without_dashes(error)}")
            return config

    def _check(self, camera: CameraConfig, check: Callable[[CameraConfig], None]) -> None:
        where = ("cameras", camera.name)
        try:
            for uri in camera.named().sink:
                self._check_place(camera.name, uri)
            check(camera)
        except StreamCamError as error:
            key = "sink" if "output" in str(error) else "source"
            self._faults.add((*where, key), f"{camera.name}: {error}")

    def _check_place(self, name: str, uri: str) -> None:
        kind = kind_of(uri)
        if kind.watched:
            raise UsageError(f"{uri} is an output of the wall, not of a camera; give it with -o")
        place = kind.name, kind.place(uri)
        other = self._places.setdefault(place, name)
        if other != name and not kind.discards:
            raise UsageError(f"{uri} is an output of {other} as well; put {{name}} into its name")


def make_camera(
    name: str,
    source: str,
    base: PipelineConfig,
    sections: Mapping[str, Any],
    shown: ModelConfig,
    sink: tuple[str, ...] = (),
) -> CameraConfig:
    """A camera of its parts.

    Args:
        shown: its targets and what they are against.
    """
    pipeline = PipelineConfig(
        shown,
        sections["look"],
        replace(sections["run"], live=True, quiet=True),
        sections["capture"],
        sections["record"],
        base.web,
    )
    return CameraConfig(name, os.path.expanduser(source), pipeline, sink, sections["share"])


def _section_of(option: str) -> str | None:
    for section, kind in _SECTIONS.items():
        if option in option_types(kind) and (section != "run" or option in _RUN_OPTIONS):
            return section
    return None


def _known() -> list[str]:
    names = [name for kind in _SECTIONS.values() for name in option_types(kind)]
    return [*_OWN, *(name for name in names if _section_of(name) is not None)]


def _named_in(error: ValueError, values: Mapping[str, object]) -> str:
    """The option that a message is about: the one that it names first."""
    text = str(error)
    places = {name: text.find(f"--{name}") for name in values}
    named = {name: place for name, place in places.items() if place >= 0}
    return min(named, key=named.__getitem__) if named else next(iter(values))


def _without_dashes(error: Exception) -> str:
    """A message about options as one about keys."""
    return hide(str(error)).replace("--", "")

"""Files on disks, shared folders and object stores, through fsspec.

A place is a path or a URL (`s3://bucket/folder`). A file appears at its place whole or not at all.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stream_cam.atomic_files import replace_durably
from stream_cam.errors import ClusterError, StreamCamError, UsageError
from stream_cam.uri import local_path, redact_uri, scheme_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_WHOLE_OBJECTS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss"})
"""Stores whose objects appear once they are uploaded; a rename there is a second upload."""


def is_local(place: str) -> bool:
    """Whether a place is on a disk or a mounted folder."""
    return scheme_of(place) in ("", "file", "local")


def as_path(place: str) -> Path:
    """The absolute path of a local place."""
    path = local_path(place) if scheme_of(place) != "local" else Path(place[len("local://") :])
    return Path(os.path.abspath(path or place))


def join(place: str, name: str) -> str:
    """The place of a file below a folder."""
    return str(as_path(place) / name) if is_local(place) else f"{place.rstrip('/')}/{name}"


def open_store(place: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a place, and its path there.

    Raises:
        UsageError: there is no such kind of store, or a package for it is missing.
        ClusterError: the store cannot be opened.
    """
    scheme = scheme_of(place)
    try:
        from fsspec.core import url_to_fs
    except ImportError as exc:
        raise UsageError(
            f"{redact_uri(place)} needs fsspec: pip install 'stream-cam[cluster]'"
        ) from exc
    try:
        store, path = url_to_fs(str(as_path(place)) if is_local(place) else place)
    except ImportError as exc:
        raise UsageError(f"{scheme}:// needs another package on this machine: {exc}") from exc
    except ValueError as exc:
        raise UsageError(
            f"{redact_uri(place)} is no place that fsspec knows: {exc}; "
            "give a folder, or a URL such as s3://bucket/folder"
        ) from exc
    except Exception as exc:  # each store has exceptions of its own
        raise ClusterError(f"{redact_uri(place)} cannot be opened: {_said(exc)}") from exc
    return store, path


def make_folder(place: str) -> None:
    """Makes a folder and those above it, where the store has folders."""
    store, path = open_store(place)
    with _told(place, "made"):
        store.makedirs(path, exist_ok=True)


def files_below(place: str) -> set[str]:
    """The names of all files below a folder, relative to it; empty if it does not exist."""
    store, folder = open_store(place)
    with _told(place, "listed"):
        # Another machine may have written since an earlier listing.
        store.invalidate_cache()
        if not store.exists(folder):
            return set()
        return {_relative(path, folder) for path in store.find(folder)}


def find_files(place: str, wanted: Callable[[str], bool], *, recursive: bool) -> dict[str, str]:
    """Files at a URL: itself, those in a folder, or those of a pattern.

    Returns:
        The URL of each file, with its path relative to the folder.
    """
    store, path = open_store(place)
    with _told(place, "listed"):
        if "*" in path:
            folder = path.partition("*")[0].rpartition("/")[0]
            found = [each for each in store.glob(path) if wanted(each)]
        elif store.isdir(path):
            folder = path
            depth = None if recursive else 1
            found = [each for each in store.find(path, maxdepth=depth) if wanted(each)]
        elif store.exists(path):
            folder, found = path.rpartition("/")[0], [path]
        else:
            return {}
        return {store.unstrip_protocol(each): _relative(each, folder) for each in found}


def fetch(place: str, folder: Path) -> Path:
    """A file as a local one: itself, or a copy in the folder."""
    if is_local(place):
        return as_path(place)
    store, path = open_store(place)
    copy = folder / path.rpartition("/")[2]
    with _told(place, "read"):
        store.get_file(path, str(copy))
    return copy


def publish(made: Path, place: str) -> None:
    """Moves a finished local file to its place, in one step as readers see it."""
    store, path = open_store(place)
    folder, _, name = path.rpartition("/")
    part = f"{folder}/.{name}.{secrets.token_hex(4)}.part"
    with _told(place, "written"):
        store.makedirs(folder, exist_ok=True)
        if scheme_of(place) in _WHOLE_OBJECTS:
            store.put_file(str(made), path)
        else:
            try:
                store.put_file(str(made), part)
                if is_local(place):
                    replace_durably(Path(part), Path(path))
                else:
                    store.mv(part, path)
            except BaseException:
                with suppress(Exception):
                    store.rm_file(part)
                raise
    made.unlink()


def remove(place: str) -> None:
    """Removes a file, if it is there."""
    store, path = open_store(place)
    with _told(place, "removed"), suppress(FileNotFoundError):
        store.rm_file(path)


def read_text(place: str) -> str:
    """The text of a file; empty if there is none."""
    store, path = open_store(place)
    with _told(place, "read"):
        try:
            data: Any = store.cat_file(path)
        except FileNotFoundError:
            return ""
    return str(data, "utf-8", "replace")


def write_text(place: str, text: str) -> None:
    """Replaces a file of a store in one step."""
    store, path = open_store(place)
    with _told(place, "written"):
        store.makedirs(path.rpartition("/")[0], exist_ok=True)
        store.pipe_file(path, text.encode())


@contextmanager
def _told(place: str, verb: str) -> Iterator[None]:
    try:
        yield
    except StreamCamError:
        raise
    except Exception as exc:  # each store has exceptions of its own
        raise ClusterError(f"{redact_uri(place)} cannot be {verb}: {_said(exc)}") from exc


def _said(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(reason.split())


def _relative(path: str, folder: str) -> str:
    return path[len(folder.rstrip("/")) :].lstrip("/")

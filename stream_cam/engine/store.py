"""The store of built engines: one folder each, named by a hash over all that matters to it.

    <engines>/<model>-<backend>-<hash>/engine.blob      for the backend to read back
    <engines>/<model>-<backend>-<hash>/manifest.json    its description, in plain text
    <engines>/.<model>-<backend>-<hash>.lock            held while that engine is built
    <engines>/.<model>-<backend>-<hash>.<random>.tmp    not yet, or no longer, an engine
    <engines>/.<model>-<backend>-<hash>.refused.tmp     why that engine failed its verification

A folder appears under its name whole or not at all: it is written and synced under a temporary
name, then renamed. Reading takes no lock. Only the holder of the lock publishes, replaces or
removes. Nothing is unpickled, and no path is taken from a file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from stream_cam.atomic_files import sync_folder
from stream_cam.engine.manifest import EngineKey, Manifest, OutdatedFormatError

logger = logging.getLogger(__name__)

BLOB = "engine.blob"
MANIFEST = "manifest.json"

_PATIENCE_SECONDS = 900.0
"""The longest wait for another process that builds the same engine; the slowest take minutes."""
_MAX_MANIFEST_BYTES = 1_000_000
_ENTRY_NAME = re.compile(r"[\w-]+-[0-9a-f]{16}")
_LEFT_OVER_NAME = re.compile(r"\.([\w-]+-[0-9a-f]{16})\.\w+\.tmp")


class UnusableEngineError(Exception):
    """A stored engine must not be loaded; the message says why."""

    def __init__(self, kind: Literal["outdated", "damaged", "foreign"], why: str) -> None:
        super().__init__(why)
        self.kind: Literal["outdated", "damaged", "foreign"] = kind


def engines_folder() -> Path:
    """`$STREAM_CAM_ENGINES`, `engines/` of the clone that this runs from, or the user's cache."""
    named = os.environ.get("STREAM_CAM_ENGINES")
    if named:
        return Path(named)
    clone = Path(__file__).resolve().parents[2]
    if (clone / "engines").is_dir() and (clone / "pyproject.toml").is_file():
        return clone / "engines"
    from platformdirs import user_cache_path  # a clone runs without it (scripts/gpu_check.py)

    with suppress(RuntimeError):
        cache = user_cache_path("stream-cam", appauthor=False)
        if cache.is_absolute():
            return cache / "engines"
    # A user without a home folder, as in a container: nothing can be kept there.
    return Path(os.devnull) / "engines"


class EngineStore:
    """Reads and writes engines; if the folder is damaged, they are built again."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or engines_folder()

    def path(self, key: EngineKey) -> Path:
        """Where the engine with this key is, or would be."""
        name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{key.model[:60]}-{key.backend}")
        return self.folder / f"{name}-{key.digest()}"

    def read(self, key: EngineKey) -> tuple[bytes, Manifest] | None:
        """The engine kept under `key`; None if there is none.

        Raises:
            UnusableEngineError: there is one, but damaged or of another key.
        """
        path = self.path(key)
        # Path.is_dir raises where a folder above may not be entered.
        if not os.path.isdir(path):
            return None
        manifest = read_manifest(path)
        if manifest.key != key:
            raise UnusableEngineError("foreign", f"made for another {manifest.key.difference(key)}")
        return read_blob(path, manifest), manifest

    def entries(self) -> list[Path]:
        """All folders that are engines, whole or not; other files and folders are left out."""
        try:
            found = sorted(self.folder.iterdir())
        except OSError:
            return []
        return [path for path in found if _ENTRY_NAME.fullmatch(path.name) and _is_engine(path)]

    def manifests(self) -> Iterator[tuple[Path, Manifest]]:
        """All engines whose manifest can be read and is theirs, with it."""
        for path in self.entries():
            with suppress(UnusableEngineError):
                manifest = read_manifest(path)
                if self.path(manifest.key).name == path.name:
                    yield path, manifest

    def calibrated(self, key: EngineKey) -> EngineKey | None:
        """The key of the newest whole engine that differs from `key` in its calibration only."""
        found = [
            (manifest.built_unix_seconds, path.name, manifest)
            for path, manifest in self.manifests()
            if manifest.key.same_but_calibration(key)
        ]
        for _, name, manifest in sorted(found, key=lambda one: one[:2], reverse=True):
            try:
                read_blob(self.folder / name, manifest)
            except UnusableEngineError as error:
                logger.warning("a kept engine is passed over: %s is damaged (%s)", name, error)
                continue
            return manifest.key
        return None

    @contextmanager
    def building(self, key: EngineKey) -> Iterator[bool]:
        """Keeps other processes from building the same engine; waits while one does.

        Yields:
            Whether the lock is held; if not, a warning said why, and nothing may be published.
        """
        lock = self._lock(self.path(key).name)
        held = self._acquire(lock)
        try:
            if held:
                self._remove_left_overs(self.path(key).name)
            yield held
        finally:
            if held:
                lock.release()

    def publish(self, blob: bytes, manifest: Manifest) -> Path | None:
        """Keeps an engine under its manifest's key; the caller holds the lock.

        Returns:
            Its folder; None if it could not be kept, after a warning.
        """
        path = self.path(manifest.key)
        try:
            fresh = self._temporary(path.name)
            _write_synced(fresh / BLOB, blob)
            _write_synced(fresh / MANIFEST, manifest.to_json().encode())
            sync_folder(fresh)
            self._put(fresh, path)
            _discard(self._refusal_path(manifest.key))
        except OSError as error:
            _warn_not_kept(self.folder, error)
            return None
        finally:
            self._remove_left_overs(path.name)
        return path

    def refuse(self, key: EngineKey, why: str) -> None:
        """Keeps why an engine was not published; the caller holds the lock."""
        with suppress(OSError):  # then it is found out again
            self._refusal_path(key).write_text(why, encoding="utf-8")

    def refusal(self, key: EngineKey) -> str | None:
        """Why the engine with this key was not published when it was last built, if it was not."""
        try:
            return _read_plain(self._refusal_path(key), _MAX_MANIFEST_BYTES).decode("utf-8") or None
        except (OSError, UnicodeDecodeError):
            return None

    def remove(self, path: Path, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Removes an engine's folder; False if it is being built or may not be removed.

        Args:
            wanted: asked again under the lock, because the engine may just have been mended.
        """
        with self._try_lock(path.name) as held:
            if not held or not wanted():
                return False
            try:
                self._set_aside(path)
            except OSError:
                return False
            self._remove_left_overs(path.name)
            return not os.path.lexists(path)

    def remove_left_overs(self) -> int:
        """Removes the files of killed builders; returns the bytes freed."""
        freed = 0
        for path in self._left_overs():
            found = _LEFT_OVER_NAME.fullmatch(path.name)
            assert found is not None
            with self._try_lock(found[1]) as held:
                size_bytes = folder_bytes(path) if held else 0
                if held:
                    _discard(path)
                freed += 0 if os.path.lexists(path) else size_bytes
        return freed

    def _acquire(self, lock: FileLock) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                logger.warning("another process is building this engine; waiting for it")
                lock.acquire(timeout=_PATIENCE_SECONDS)
        except Timeout:
            logger.warning(
                "the engine is not kept: another process has been building it for %.0f s",
                _PATIENCE_SECONDS,
            )
            return False
        except (OSError, NotImplementedError) as error:
            _warn_not_kept(self.folder, error)
            return False
        return True

    @contextmanager
    def _try_lock(self, name: str) -> Iterator[bool]:
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError, NotImplementedError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _lock(self, name: str) -> FileLock:
        return FileLock(self.folder / f".{name}.lock")

    def _refusal_path(self, key: EngineKey) -> Path:
        return self.folder / f".{self.path(key).name}.refused.tmp"

    def _temporary(self, name: str) -> Path:
        # Not mkdtemp: if an administrator builds, other users could not read it.
        path = self.folder / f".{name}.{secrets.token_hex(4)}.tmp"
        path.mkdir()
        return path

    def _put(self, fresh: Path, path: Path) -> None:
        # A folder that is not empty cannot be replaced by a rename.
        if os.path.lexists(path):
            self._set_aside(path)
        os.rename(fresh, path)
        sync_folder(self.folder)

    def _set_aside(self, path: Path) -> None:
        # Not into a new folder: on a full disk there could be none.
        os.rename(path, self.folder / f".{path.name}.{secrets.token_hex(4)}.tmp")

    def _left_overs(self) -> list[Path]:
        try:
            found = list(self.folder.iterdir())
        except OSError:
            return []
        return [path for path in found if _LEFT_OVER_NAME.fullmatch(path.name)]

    def _remove_left_overs(self, name: str) -> None:
        for path in self._left_overs():
            if path.name.startswith(f".{name}.") and path.name != f".{name}.refused.tmp":
                _discard(path)


def read_manifest(path: Path) -> Manifest:
    """The manifest in an engine's folder.

    Raises:
        UnusableEngineError: it is missing, damaged or of another format.
    """
    try:
        text = _read_plain(path / MANIFEST, _MAX_MANIFEST_BYTES).decode("utf-8")
        return Manifest.from_json(text)
    except PermissionError as error:
        raise UnusableEngineError("foreign", f"{MANIFEST} may not be read by this user") from error
    except OSError as error:
        raise UnusableEngineError("damaged", f"{MANIFEST}: {_reason(error)}") from error
    except OutdatedFormatError as error:
        raise UnusableEngineError("outdated", str(error)) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UnusableEngineError("damaged", f"{MANIFEST} is not a manifest") from error


def read_blob(path: Path, manifest: Manifest) -> bytes:
    """The blob in an engine's folder, checked against its manifest.

    Raises:
        UnusableEngineError: it is missing, cut off or changed.
    """
    try:
        size_bytes = (path / BLOB).stat().st_size
        if size_bytes != manifest.size_bytes:
            raise UnusableEngineError(
                "damaged", f"{BLOB} has {size_bytes} bytes instead of {manifest.size_bytes}"
            )
        blob = _read_plain(path / BLOB, manifest.size_bytes)
    except PermissionError as error:
        raise UnusableEngineError("foreign", f"{BLOB} may not be read by this user") from error
    except OSError as error:
        raise UnusableEngineError("damaged", f"{BLOB}: {_reason(error)}") from error
    if hashlib.sha256(blob).hexdigest() != manifest.sha256:
        raise UnusableEngineError("damaged", f"{BLOB} does not match its checksum")
    return blob


def folder_bytes(path: Path) -> int:
    """The size of a folder's files, in bytes."""
    total = 0
    for file in path.rglob("*"):
        with suppress(OSError):
            total += file.lstat().st_size if not file.is_dir() else 0
    return total


def _read_plain(path: Path, max_bytes: int) -> bytes:
    # A pipe in a file's place would never end.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path.name} is not a file")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(f"{path.name} is longer than {max_bytes} bytes")
    return data


def _discard(path: Path) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _is_engine(path: Path) -> bool:
    """Whether a folder holds nothing but an engine's files; no other may ever be removed."""
    try:
        names = {entry.name for entry in path.iterdir()} if not path.is_symlink() else {"link"}
    except OSError:
        return False
    return names <= {BLOB, MANIFEST}


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()


def _warn_not_kept(folder: Path, error: Exception) -> None:
    logger.warning(
        "the engine is not kept: %s (%s); $STREAM_CAM_ENGINES names another folder",
        folder,
        _reason(error),
    )

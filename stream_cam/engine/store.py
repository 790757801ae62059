"""Where built engines are kept: a folder an engine, named by a hash over all that matters.

<engines>/<name>-<hash>/engine.blob      what the backend reads back
<engines>/<name>-<hash>/manifest.json    the key's parts, size, sha256 and build time
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FORMAT = 1
"""Goes into every key: raise it when what a blob means changes."""


def engines_folder() -> Path:
    """`$STREAM_CAM_ENGINES`, `engines/` of the clone that this runs from, or the user's cache."""
    named = os.environ.get("STREAM_CAM_ENGINES")
    if named:
        return Path(named)
    clone = Path(__file__).resolve().parents[2]
    if (clone / "engines").is_dir() and (clone / "pyproject.toml").is_file():
        return clone / "engines"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "stream-cam" / "engines"


class EngineStore:
    """Reads and writes engines; whatever is wrong with the folder, the answer is to build again."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or engines_folder()

    def read(self, key: Mapping[str, Any]) -> bytes | None:
        """The engine kept under `key`, or None if there is none that is whole."""
        entry = self._entry(key)
        if not entry.is_dir():
            return None
        try:
            manifest = json.loads((entry / "manifest.json").read_text(encoding="utf-8"))
            blob = (entry / "engine.blob").read_bytes()
            if manifest["sha256"] != hashlib.sha256(blob).hexdigest():
                raise ValueError("its checksum does not match")
            return blob
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("a damaged engine is rebuilt: %s (%s)", entry.name, error)
            return None

    def write(self, key: Mapping[str, Any], blob: bytes) -> None:
        """Keeps an engine; a folder that cannot be written to costs a warning, not the run."""
        entry = self._entry(key)
        manifest = {
            "key": {**key, "format": FORMAT},
            "size_bytes": len(blob),
            "sha256": hashlib.sha256(blob).hexdigest(),
            "built_unix_seconds": round(time.time()),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=self.folder))
        except OSError as error:
            logger.warning("the engine is not kept: %s (%s)", self.folder, error.strerror)
            return
        try:
            _write_synced(fresh / "engine.blob", blob)
            text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
            _write_synced(fresh / "manifest.json", text.encode())
            # A folder cannot be replaced by rename: what is there is old or damaged, or, if
            # another process was faster, the same engine.
            shutil.rmtree(entry, ignore_errors=True)
            os.rename(fresh, entry)
        except OSError as error:
            logger.warning("the engine is not kept: %s (%s)", entry, error.strerror)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _entry(self, key: Mapping[str, Any]) -> Path:
        text = json.dumps({**key, "format": FORMAT}, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.folder / f"{key['model']}-{key['engine']}-{digest}"


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

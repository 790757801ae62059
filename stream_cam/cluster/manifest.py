"""The outcome of each clip, one line of JSON each: the account by which a run resumes."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, fields
from typing import IO, Final

from stream_cam.cluster import storage
from stream_cam.cluster.clip import Outcome
from stream_cam.errors import ClusterError
from stream_cam.uri import json_text

NAME: Final = "manifest.jsonl"
_UPLOAD_SECONDS: Final = 10.0
"""Object stores cannot append: there the whole manifest is written again, at most so often."""


class Manifest:
    """Reads and continues the manifest at a destination; the last line of a clip is its state.

    On a disk each line is in the file at once. A line that was cut off by a kill is passed over.
    """

    def __init__(self, destination: str) -> None:
        self.place = storage.join(destination, NAME)
        self._text = storage.read_text(self.place)
        self.earlier = {line.clip: line for line in map(_parsed, self._text.splitlines()) if line}
        """The newest outcome of each clip, from earlier runs."""
        self._file: IO[str] | None = None
        self._written_at = time.monotonic()
        self._unwritten = False

    def append(self, outcome: Outcome) -> None:
        """Adds a line."""
        if self._text and not self._text.endswith("\n"):
            self._put("\n")
        self._put(json_text(asdict(outcome)) + "\n")

    def close(self) -> None:
        """Writes the lines that are not written yet."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._unwritten:
            self._upload()

    def _put(self, text: str) -> None:
        if not storage.is_local(self.place):
            self._text += text
            self._unwritten = True
            if time.monotonic() - self._written_at > _UPLOAD_SECONDS:
                self._upload()
            return
        self._text = text  # only its end is needed
        try:
            if self._file is None:
                path = storage.as_path(self.place)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a", encoding="utf-8")
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise ClusterError(
                f"{self.place} cannot be written: {error.strerror}; the results made so far are "
                "kept, and the same command goes on from them"
            ) from error

    def _upload(self) -> None:
        storage.write_text(self.place, self._text)
        self._written_at, self._unwritten = time.monotonic(), False


def _parsed(line: str) -> Outcome | None:
    """The outcome in a line; None for a line that is damaged or of another kind."""
    known = {field.name for field in fields(Outcome)}
    with suppress(ValueError, TypeError, AttributeError):
        return Outcome(**{k: v for k, v in json.loads(line).items() if k in known})
    return None

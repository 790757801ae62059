"""Pages and windows that are open before their source, and say why there is no picture yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, suppress
from typing import Final

from stream_cam.closing import Closeable
from stream_cam.config import WebConfig
from stream_cam.errors import SinkError
from stream_cam.settings import Settings
from stream_cam.sinks import Output, kind_of
from stream_cam.sinks.base import Sink, Waiting
from stream_cam.sources.base import Source

_TELL_SECONDS: Final = 0.1
_FIRST_SECONDS: Final = 0.4
"""A source that fails or opens within this time makes no window flash up."""


class Watching(Closeable):
    """The sinks of a run that people watch, from before its source is open.

    Args:
        uris: of all outputs of the run.
        settings: of the run.
        name: the source's, secrets redacted.
        web: how pages are served.
        on_wait: told what the sinks are told; False ends the wait as a closed window does.
    """

    def __init__(
        self,
        uris: Sequence[str],
        settings: Settings,
        name: str,
        web: WebConfig,
        on_wait: Callable[[Waiting], bool] | None = None,
    ) -> None:
        self._name = name
        self._on_wait = on_wait
        self._told: list[Sink] = []
        self.sinks: dict[str, Sink] = {}
        """By URI."""
        with ExitStack() as made:
            for uri in uris:
                sink = _sink(uri, settings, name, web)
                if sink is not None:
                    made.callback(sink.close)
                    self.sinks[uri] = sink
            self._open = made.pop_all()

    @property
    def urls(self) -> list[str]:
        """The links of the pages, tokens included."""
        return [sink.url for sink in self.sinks.values() if sink.url]

    def __enter__(self) -> Watching:
        for sink in self.sinks.values():
            # The pipeline opens it once more, and deals with what fails.
            with suppress(SinkError):
                self._told.append(sink.__enter__())
        return self

    def open(self, source: Source, whole: Source) -> Source | None:
        """Enter the source on a thread of its own; None if a viewer left before it was open.

        Args:
            whole: what `source` is a part of, or itself; it is asked and stopped.

        Raises:
            StreamCamError: it cannot be opened.
        """
        opened: Future[Source] = Future()

        def enter() -> None:
            try:
                opened.set_result(source.__enter__())
            except BaseException as error:
                opened.set_exception(error)

        threading.Thread(target=enter, name="open", daemon=True).start()
        try:
            seconds = _FIRST_SECONDS
            while not wait([opened], seconds).done:
                seconds = _TELL_SECONDS
                if not self.tell(self._waiting(whole)):
                    whole.stop()
                    return None
            return opened.result()
        except BaseException:
            whole.stop()
            raise

    def tell(self, waiting: Waiting) -> bool:
        """Why there is no picture yet, to all who watch; False if one of them has left."""
        stay = [sink.wait(waiting) for sink in self._told]
        if self._on_wait is not None:
            stay.append(self._on_wait(waiting))
        return all(stay)

    def release(self) -> None:
        """From now on the pipeline closes them."""
        self._open.pop_all()

    def close(self) -> None:
        self._open.close()

    def _waiting(self, source: Source) -> Waiting:
        what = f"waiting for {self._name}"
        away = source.outage()
        if away is None or not away.reconnecting:
            return Waiting(what)
        reason = away.reason.removeprefix(f"{self._name} ")
        return Waiting(what, reason, away.attempt, away.next_try_seconds)


def _sink(uri: str, settings: Settings, name: str, web: WebConfig) -> Sink | None:
    kind = kind_of(uri)
    if not kind.watched:
        return None
    return kind.make(Output(uri, source=name, web=web, settings=settings))

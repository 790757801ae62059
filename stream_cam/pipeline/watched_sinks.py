"""Pages and windows that open before the source, and say why there is no picture yet."""

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

_NOTIFY_SECONDS: Final = 0.1
_FIRST_SECONDS: Final = 0.4
"""A source that opens or fails within this time shows no waiting window."""


class WatchedSinks(Closeable):
    """The pages and windows of a run, opened before its source.

    Args:
        uris: all outputs of the run.
        settings: the settings of the run.
        name: the source's name, secrets redacted.
        web: how pages are served.
        on_wait: notified like the sinks; False ends the wait, as a closed window does.
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
        self._entered: list[Sink] = []
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

    def __enter__(self) -> WatchedSinks:
        for sink in self.sinks.values():
            # The pipeline opens it again, and reports the failure.
            with suppress(SinkError):
                self._entered.append(sink.__enter__())
        return self

    def open(self, source: Source, whole: Source) -> Source | None:
        """Opens the source on its own thread; None if a viewer left before that.

        Args:
            whole: the source itself, without the cut; it gives the reason of a wait, and is
                stopped.

        Raises:
            StreamCamError: the source cannot be opened.
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
                seconds = _NOTIFY_SECONDS
                if not self.notify(self._waiting(whole)):
                    whole.stop()
                    return None
            return opened.result()
        except BaseException:
            whole.stop()
            raise

    def notify(self, waiting: Waiting) -> bool:
        """Shows all viewers why there is no picture yet; False if one of them has left."""
        stay = [sink.wait(waiting) for sink in self._entered]
        if self._on_wait is not None:
            stay.append(self._on_wait(waiting))
        return all(stay)

    def release(self) -> None:
        """Leaves the closing to the pipeline."""
        self._open.pop_all()

    def close(self) -> None:
        self._open.close()

    def _waiting(self, source: Source) -> Waiting:
        title = f"waiting for {self._name}"
        outage = source.outage()
        if outage is None or not outage.reconnecting:
            return Waiting(title)
        reason = outage.reason.removeprefix(f"{self._name} ")
        return Waiting(title, reason, outage.attempt, outage.next_try_seconds)


def _sink(uri: str, settings: Settings, name: str, web: WebConfig) -> Sink | None:
    kind = kind_of(uri)
    if not kind.watched:
        return None
    return kind.make(Output(uri, source=name, web=web, settings=settings))

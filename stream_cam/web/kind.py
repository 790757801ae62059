"""Pages in the browser as a kind of output; the server is imported only for a run with a page."""

from __future__ import annotations

from typing import Final

from stream_cam.settings import Settings
from stream_cam.sinks.base import Sink
from stream_cam.sinks.kinds import Output, SinkKind
from stream_cam.uri import redact_uri
from stream_cam.web.address import parse_web_uri


def _check(output: Output) -> None:
    address = parse_web_uri(output.uri)
    from stream_cam.web.sink import check_page

    check_page(address, output.web)


def _make(output: Output) -> Sink:
    from stream_cam.web.sink import WebSink

    source = redact_uri(output.source or output.stream.file or "frames")
    settings = output.settings or Settings()
    return WebSink(parse_web_uri(output.uri), settings, source, output.web)


WEB: Final = SinkKind(
    "web",
    usage="web://HOST:PORT",
    make=_make,
    check=_check,
    schemes=("web",),
    place=lambda uri: str(parse_web_uri(uri)),
    watched=True,
)

"""The HTTP application: a route for each path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from stream_cam.errors import UsageError
from stream_cam.settings import SettingsSnapshot
from stream_cam.uri import json_text
from stream_cam.web.access import Access, Guard
from stream_cam.web.metrics import Metrics
from stream_cam.web.page_state import PageState
from stream_cam.web.websocket import MAX_MESSAGE_BYTES, change_settings, serve_websocket

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_STATS_SECONDS: Final = 1.0
_BODY_SECONDS: Final = 5.0
"""A request's body must be complete by then."""
_BOUNDARY: Final = b"frame"
_END: Final = b"Content-Length: 0\r\nX-About: null\r\n\r\n\r\n--" + _BOUNDARY + b"--\r\n"
_UNBUFFERED: Final = {"x-accel-buffering": "no"}
"""Lets nginx pass each picture on at once."""


def make_app(page_state: PageState, access: Access, *, guarded: bool = True) -> Starlette:
    """The application: the page, the pictures, the WebSocket, the statistics.

    Args:
        guarded: it decides itself who has access; False: the application around it does.
    """
    handlers = _Handlers(page_state, Metrics(page_state, access))
    return Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/page/{name}", handlers.file),
            Route("/stream.mjpg", handlers.stream),
            Route("/snapshot.jpg", handlers.snapshot_jpg),
            Route("/snapshot.png", handlers.snapshot_png),
            Route("/hello", handlers.hello),
            Route("/labels", handlers.labels),
            Route("/stats", handlers.stats),
            Route("/settings", handlers.settings, methods=["GET", "POST"]),
            Route("/metrics", handlers.metrics),
            Route("/healthz", handlers.healthz),
            WebSocketRoute("/ws", handlers.socket),
        ],
        middleware=[Middleware(Guard, access=access)] if guarded else [],
        lifespan=handlers.lifespan,
    )


@cache
def page_files() -> Mapping[str, bytes]:
    """All files of the pages, read once: no request ever opens a path."""
    return {
        file.name: file.read_bytes()
        for file in files("stream_cam").joinpath("assets", "page").iterdir()
        if file.is_file()
    }


def file_response(contents: Mapping[str, bytes], name: str) -> Response:
    """One of the pages' files, or 404."""
    content = contents.get(name)
    kind = _TYPES.get(name[name.rfind(".") :])
    if content is None or kind is None:
        return PlainTextResponse("there is no such file\n", 404)
    return Response(content, media_type=kind)


class _Handlers:
    """One method for each path."""

    def __init__(self, page_state: PageState, metrics: Metrics) -> None:
        self._page_state = page_state
        self._metrics = metrics
        self._snapshot_lock = asyncio.Lock()
        """One snapshot at a time, however many are asked for: the run needs the other threads."""
        self._files = page_files()

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """While the server runs, send changes to all viewers, and statistics once a second."""
        page_state = self._page_state
        page_state.viewers.attach(asyncio.get_running_loop())

        def changed(shown: SettingsSnapshot) -> None:
            # With the values as they are now: two changes at once may be reported in any order.
            message = {
                "type": "settings",
                "settings": page_state.settings_values(page_state.settings.now),
            }
            page_state.viewers.send("settings", json_text(message))

        def announced(text: str) -> None:
            page_state.viewers.send("announced", page_state.announce(text))

        leave = page_state.settings.subscribe(changed)
        leave_announcements = page_state.settings.on_announcement(announced)
        sending = asyncio.create_task(self._send_statistics())
        try:
            yield
        finally:
            leave()
            leave_announcements()
            sending.cancel()

    async def _send_statistics(self) -> None:
        while True:
            await asyncio.sleep(_STATS_SECONDS)
            if len(self._page_state.viewers):
                message = json_text({"type": "stats", **self._page_state.statistics()})
                self._page_state.viewers.send("stats", message)

    async def page(self, request: Request) -> Response:
        return self._file("index.html")

    async def file(self, request: Request) -> Response:
        return self._file(str(request.path_params["name"]))

    def _file(self, name: str) -> Response:
        return file_response(self._files, name)

    async def socket(self, socket: WebSocket) -> None:
        await serve_websocket(socket, self._page_state)

    async def stream(self, request: Request) -> Response:
        if self._page_state.viewers.is_full:
            return PlainTextResponse("too many viewers\n", 503)
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        if request.method == "HEAD":
            return Response(media_type=kind)
        pictures = self._pictures(with_about="about" in request.query_params, hud=_hud_of(request))
        return StreamingResponse(pictures, media_type=kind, headers=_UNBUFFERED)

    async def _pictures(self, *, with_about: bool, hud: bool | None) -> AsyncIterator[bytes]:
        viewers = self._page_state.viewers
        viewer = viewers.join(1, hud=hud)
        try:
            yield b"--" + _BOUNDARY + b"\r\n"
            while True:
                _, picture = await viewer.next()
                if viewer.ended:
                    if with_about:
                        yield _END
                    return
                if picture is None:
                    continue
                # The boundary follows at once: browsers show a picture when they see it.
                header = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n" % len(picture.jpeg)
                header += b"X-Age-Ms: %d\r\n" % picture.age_ms
                if with_about:
                    header += b"X-About: %s\r\n" % json_text(picture.header()).encode()
                yield header + b"\r\n" + picture.jpeg + b"\r\n--" + _BOUNDARY + b"\r\n"
                viewer.add_credit()
        finally:
            viewers.leave(viewer)

    async def snapshot_jpg(self, request: Request) -> Response:
        async with self._snapshot_lock:
            jpeg = await run_in_threadpool(self._page_state.snapshot)
        if jpeg is None:
            return PlainTextResponse("there is no picture yet\n", 503)
        return Response(jpeg, media_type="image/jpeg")

    async def snapshot_png(self, request: Request) -> Response:
        async with self._snapshot_lock:
            found = await run_in_threadpool(self._page_state.png, hud=_hud_of(request))
        if found is None:
            return PlainTextResponse("there is no picture yet\n", 503)
        name, png = found
        disposition = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(png, media_type="image/png", headers=disposition)

    async def hello(self, request: Request) -> Response:
        return _json(self._page_state.hello())

    async def labels(self, request: Request) -> Response:
        return _json(list(self._page_state.labels))

    async def stats(self, request: Request) -> Response:
        settings = self._page_state.settings_values(self._page_state.settings.now)
        return _json({**self._page_state.statistics(), "settings": settings})

    async def settings(self, request: Request) -> Response:
        if request.method == "POST":
            problem = await self._change(request)
            if problem is not None:
                return problem
        return _json(self._page_state.settings_values(self._page_state.settings.now))

    async def _change(self, request: Request) -> Response | None:
        """Makes the changes in the body; returns an error response if they are wrong."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _error(415, "settings are sent as application/json")
        try:
            body = await asyncio.wait_for(_body(request), _BODY_SECONDS)
            changes = json.loads(body)
            if not isinstance(changes, dict):
                raise UsageError('settings are an object, such as {"alpha": 0.6}')
            change_settings(self._page_state, changes)
        except OverflowError:
            return _error(413, f"settings have at most {MAX_MESSAGE_BYTES} bytes")
        except asyncio.TimeoutError:
            return _error(408, "the settings did not come")
        except UsageError as error:
            return _error(403 if self._page_state.viewer_only else 422, str(error))
        except (ValueError, RecursionError):
            return _error(400, "that is not JSON")
        return None

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")


def _hud_of(request: Request) -> bool | None:
    """The viewer's choice, `?hud=0` or `?hud=1`; None: by the settings of the run."""
    return {"0": False, "1": True}.get(request.query_params.get("hud", ""))


async def _body(request: Request) -> bytes:
    """Raises OverflowError when it becomes too long, before it is all read."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_MESSAGE_BYTES:
            raise OverflowError
    return body


def _json(value: object, status: int = 200) -> Response:
    return Response(json_text(value), status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return _json({"error": message}, status)

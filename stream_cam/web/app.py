"""What is answered at which path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from stream_cam.web.websocket import LONGEST_MESSAGE, change, talk

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_STATS_SECONDS: Final = 1.0
_BODY_SECONDS: Final = 5.0
"""How long a body may take to come."""
_BOUNDARY: Final = b"frame"
_END: Final = b"Content-Length: 0\r\nX-About: null\r\n\r\n\r\n--" + _BOUNDARY + b"--\r\n"
_UNBUFFERED: Final = {"x-accel-buffering": "no"}
"""nginx then passes each picture on at once."""


def make_app(page_state: PageState, access: Access) -> Starlette:
    """The application: the page, the pictures, the WebSocket, the figures."""
    answers = _Answers(page_state, Metrics(page_state, access))
    return Starlette(
        routes=[
            Route("/", answers.page),
            Route("/page/{name}", answers.part),
            Route("/stream.mjpg", answers.stream),
            Route("/snapshot.jpg", answers.snapshot_jpg),
            Route("/snapshot.png", answers.snapshot_png),
            Route("/hello", answers.hello),
            Route("/labels", answers.labels),
            Route("/stats", answers.stats),
            Route("/settings", answers.settings, methods=["GET", "POST"]),
            Route("/metrics", answers.metrics),
            Route("/healthz", answers.healthz),
            WebSocketRoute("/ws", answers.socket),
        ],
        middleware=[Middleware(Guard, access=access)],
        lifespan=answers.lifespan,
    )


class _Answers:
    """One method a path."""

    def __init__(self, page_state: PageState, metrics: Metrics) -> None:
        self._page_state = page_state
        self._metrics = metrics
        self._one_at_a_time = asyncio.Lock()
        """Snapshots are made by one thread, however many ask: the run needs the others."""
        # All there is, by name: no path is ever opened because somebody asked for it.
        self._parts = {
            part.name: part.read_bytes()
            for part in files("stream_cam").joinpath("assets", "page").iterdir()
            if part.is_file()
        }

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Between start and end: everybody hears of changes, and once a second of the figures."""
        page_state = self._page_state
        page_state.viewers.attach(asyncio.get_running_loop())

        def changed(shown: SettingsSnapshot) -> None:
            # As they are by now: two changes at once may be told in any order.
            message = {"type": "settings", "settings": page_state.plain(page_state.settings.now)}
            page_state.viewers.tell("settings", json_text(message))

        leave = page_state.settings.subscribe(changed)
        telling = asyncio.create_task(self._tell_figures())
        try:
            yield
        finally:
            leave()
            telling.cancel()

    async def _tell_figures(self) -> None:
        while True:
            await asyncio.sleep(_STATS_SECONDS)
            if len(self._page_state.viewers):
                figures = json_text({"type": "stats", **self._page_state.figures()})
                self._page_state.viewers.tell("stats", figures)

    async def page(self, request: Request) -> Response:
        return self._part("index.html")

    async def part(self, request: Request) -> Response:
        return self._part(str(request.path_params["name"]))

    def _part(self, name: str) -> Response:
        content = self._parts.get(name)
        kind = _TYPES.get(name[name.rfind(".") :])
        if content is None or kind is None:
            return PlainTextResponse("there is no such file\n", 404)
        return Response(content, media_type=kind)

    async def socket(self, socket: WebSocket) -> None:
        await talk(socket, self._page_state)

    async def stream(self, request: Request) -> Response:
        if self._page_state.viewers.is_full:
            return PlainTextResponse("too many viewers\n", 503)
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        if request.method == "HEAD":
            return Response(media_type=kind)
        pictures = self._pictures(with_about="about" in request.query_params)
        return StreamingResponse(pictures, media_type=kind, headers=_UNBUFFERED)

    async def _pictures(self, *, with_about: bool) -> AsyncIterator[bytes]:
        viewers = self._page_state.viewers
        viewer = viewers.join(1)
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
                # The boundary comes with the picture: browsers show it when they see that.
                header = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n" % len(picture.jpeg)
                header += b"X-Age-Ms: %d\r\n" % picture.age_ms
                if with_about:
                    header += b"X-About: %s\r\n" % json_text(picture.told()).encode()
                yield header + b"\r\n" + picture.jpeg + b"\r\n--" + _BOUNDARY + b"\r\n"
                viewer.returned()
        finally:
            viewers.leave(viewer)

    async def snapshot_jpg(self, request: Request) -> Response:
        async with self._one_at_a_time:
            jpeg = await run_in_threadpool(self._page_state.snapshot)
        if jpeg is None:
            return PlainTextResponse("there is no picture yet\n", 503)
        return Response(jpeg, media_type="image/jpeg")

    async def snapshot_png(self, request: Request) -> Response:
        async with self._one_at_a_time:
            found = await run_in_threadpool(self._page_state.png)
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
        settings = self._page_state.plain(self._page_state.settings.now)
        return _json({**self._page_state.figures(), "settings": settings})

    async def settings(self, request: Request) -> Response:
        if request.method == "POST":
            problem = await self._change(request)
            if problem is not None:
                return problem
        return _json(self._page_state.plain(self._page_state.settings.now))

    async def _change(self, request: Request) -> Response | None:
        """Does what the body asks for; gives what is wrong with it."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _error(415, "settings are sent as application/json")
        try:
            body = await asyncio.wait_for(_body(request), _BODY_SECONDS)
            changes = json.loads(body)
            if not isinstance(changes, dict):
                raise UsageError('settings are an object, such as {"alpha": 0.6}')
            change(self._page_state, changes)
        except OverflowError:
            return _error(413, f"settings have at most {LONGEST_MESSAGE} bytes")
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


async def _body(request: Request) -> bytes:
    """Raises OverflowError when it becomes too long, before it is all read."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_MESSAGE:
            raise OverflowError
    return body


def _json(value: object, status: int = 200) -> Response:
    return Response(json_text(value), status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return _json({"error": message}, status)

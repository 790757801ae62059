"""The wall in the browser: every camera's tile at `/`, each camera's own page below it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from stream_cam.cameras.camera import Camera
from stream_cam.cameras.cameras import Cameras
from stream_cam.cameras.tile_jpegs import TileJpegs
from stream_cam.cameras.wall_metrics import WallMetrics
from stream_cam.cameras.wall_socket import WallConnection
from stream_cam.closing import Closeable
from stream_cam.config import CamerasConfig, WebConfig
from stream_cam.uri import json_text
from stream_cam.web.access import Access, Guard
from stream_cam.web.address import WebAddress
from stream_cam.web.app import file_response, make_app, page_files
from stream_cam.web.sink import open_server

_SYNC_SECONDS: Final = 0.5
_FAREWELL_SECONDS: Final = 0.2
_MAX_WALL_VIEWERS: Final = 64
_TRY_LATER: Final = 1013


class WallPage(Closeable):
    """Serves the wall from entering its context until it is closed.

    Args:
        cameras: shown as they come and go.
        address: where to listen.
        config: how often tiles change.
        web: how pages are served.

    Raises:
        SinkError, UsageError: it cannot be served.
    """

    def __init__(
        self, cameras: Cameras, address: WebAddress, config: CamerasConfig, web: WebConfig
    ) -> None:
        self._cameras = cameras
        self._server, self.address, self.url = open_server(
            address, web, lambda access: _Wall(cameras, access, config, web).app
        )

    def __enter__(self) -> WallPage:
        self._server.start()
        return self

    def close(self) -> None:
        viewers = [camera.tile.page_state.viewers for camera in self._cameras.all]
        if any(len(one) for one in viewers):
            for one in viewers:
                one.end(json.dumps({"type": "end"}))
            time.sleep(_FAREWELL_SECONDS)  # lets viewers get the message before connections close
        self._server.stop()


class _CameraPage:
    """One camera's own page, and its tile's pictures."""

    def __init__(self, camera: Camera, access: Access, quality: int) -> None:
        self.camera = camera
        self.app = make_app(camera.tile.page_state, access, guarded=False)
        self.jpegs = TileJpegs(camera.tile, quality)
        self._lifespan: AbstractAsyncContextManager[object] | None = None

    async def open(self) -> None:
        self._lifespan = self.app.router.lifespan_context(self.app)
        await self._lifespan.__aenter__()

    async def close(self) -> None:
        if self._lifespan is not None:
            await self._lifespan.__aexit__(None, None, None)


class _Wall:
    """The application. Its pages follow the cameras twice a second, on the event loop's thread."""

    def __init__(
        self, cameras: Cameras, access: Access, config: CamerasConfig, web: WebConfig
    ) -> None:
        self._cameras, self._access = cameras, access
        self._config, self._web = config, web
        self._pages: dict[str, _CameraPage] = {}
        self._metrics = WallMetrics(cameras, access)
        self._viewers = 0
        self.app = Starlette(
            routes=[
                Route("/", self._file_of("wall.html")),
                Route("/page/{name}", self._file),
                Route("/cameras.json", self._json),
                Route("/metrics", self._prometheus),
                Route("/healthz", self._healthz),
                WebSocketRoute("/wall", self._socket),
                Route("/camera/{name}", self._with_slash),
                Mount("/camera/{name}", self._camera),
                Route("/stream/{name}.mjpg", _Forward(self, "/stream.mjpg")),
            ],
            middleware=[Middleware(Guard, access=access)],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self._follow()
        following = asyncio.create_task(self._keep_following())
        try:
            yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            for page in self._pages.values():
                await page.close()

    async def _keep_following(self) -> None:
        while True:
            await asyncio.sleep(_SYNC_SECONDS)
            await self._follow()

    async def _follow(self) -> None:
        """Opens pages of new cameras, and closes those of cameras that are gone."""
        now = {camera.name: camera for camera in self._cameras.all}
        for name, page in list(self._pages.items()):
            if now.get(name) is not page.camera:
                del self._pages[name]
                page.camera.tile.page_state.viewers.end(json.dumps({"type": "end"}))
                await page.close()
        for name, camera in now.items():
            if name not in self._pages:
                page = _CameraPage(camera, self._access, self._web.web_quality)
                await page.open()
                self._pages[name] = page

    def _file_of(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        async def file(request: Request) -> Response:
            return file_response(page_files(), name)

        return file

    async def _file(self, request: Request) -> Response:
        return file_response(page_files(), str(request.path_params["name"]))

    async def _json(self, request: Request) -> Response:
        return Response(json_text(self._values()), media_type="application/json")

    def _values(self) -> dict[str, object]:
        encoded = sum(page.jpegs.encoded for page in self._pages.values())
        return {**self._cameras.stats(), "viewers": self._viewers, "encoded_tiles": encoded}

    async def _prometheus(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _socket(self, socket: WebSocket) -> None:
        if self._viewers >= _MAX_WALL_VIEWERS:
            await socket.accept()
            await socket.close(_TRY_LATER, "too many viewers")
            return
        self._viewers += 1
        try:
            await WallConnection(
                socket,
                lambda: {name: page.jpegs for name, page in self._pages.items()},
                self._values,
                self._config.wall_fps,
            ).serve()
        finally:
            self._viewers -= 1

    async def _with_slash(self, request: Request) -> Response:
        # The page's own links are relative, and need the / after its path.
        return RedirectResponse(f"{request.path_params['name']}/", status_code=303)

    async def _camera(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = str(scope["path_params"]["name"])
        path = scope["path"].split(f"/camera/{name}", 1)[-1] or "/"
        await self.forward(name, path, scope, receive, send)

    async def forward(
        self, name: str, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Passes a request on to a camera's own page."""
        page = self._pages.get(name)
        if page is not None:
            inner = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
            await page.app(inner, receive, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(_TRY_LATER, "there is no such camera")
        else:
            await PlainTextResponse("there is no such camera\n", 404)(scope, receive, send)


class _Forward:
    """A route of the wall that is a camera's own."""

    def __init__(self, wall: _Wall, path: str) -> None:
        self._wall, self._path = wall, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = str(scope["path_params"]["name"])
        await self._wall.forward(name, self._path, scope, receive, send)

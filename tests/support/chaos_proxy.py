"""A loopback TCP proxy that damages the stream: flips, stalls, trickles, cuts."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from stream_cam.closing import Closeable

Fault = Literal["none", "flip", "stall", "trickle", "cut", "handshake"]

_TICK_SECONDS = 0.1
_CHUNK = 4096
_HANDSHAKE_BYTES = 200
"""RTSP's first answer is about that long: the connection closes in the middle of a dialogue."""


@dataclass
class Counts:
    connections: int = 0
    flipped: int = 0
    cut: int = 0


class ChaosProxy(Closeable):
    """Passes bytes to a server and back; `fault` selects the damage to the server's data.

    flip: one byte in each `every` is changed; stall: nothing passes; trickle: 50 bytes a tick;
    cut: connections are closed, new ones as well; handshake: closed after the first 200 bytes.
    """

    def __init__(self, server_port: int, *, every: int = 3000, seed: int = 0) -> None:
        self._server_port = server_port
        self._every = every
        self._random = random.Random(seed)
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self.fault: Fault = "none"
        self.counts = Counts()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_TICK_SECONDS)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> ChaosProxy:
        self._start(self._accept)
        return self

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, work: Callable[..., None], *args: object) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.counts.connections += 1
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        done = threading.Event()
        try:
            with client, socket.create_connection(("127.0.0.1", self._server_port), 2) as server:
                client.settimeout(_TICK_SECONDS)
                server.settimeout(_TICK_SECONDS)
                up = threading.Thread(target=self._pass, args=(client, server, done), daemon=True)
                up.start()
                self._pass(server, client, done, spoil=True)
                done.set()
                up.join()
        except OSError:
            pass  # the server is gone; so is the client, then

    def _pass(
        self,
        giver: socket.socket,
        taker: socket.socket,
        done: threading.Event,
        spoil: bool = False,
    ) -> None:
        passed = 0
        try:
            while not (done.is_set() or self._closing.is_set()):
                fault = self.fault if spoil else "none"
                if fault == "cut" or (fault == "handshake" and passed >= _HANDSHAKE_BYTES):
                    self.counts.cut += 1
                    return
                if fault in ("stall", "trickle") and self._closing.wait(_TICK_SECONDS):
                    return
                if fault == "stall":
                    continue
                try:
                    data = giver.recv(50 if fault in ("trickle", "handshake") else _CHUNK)
                except TimeoutError:
                    continue
                if not data:
                    return
                taker.sendall(self._flipped(data) if fault == "flip" else data)
                passed += len(data)
        except OSError:
            pass
        finally:
            done.set()

    def _flipped(self, data: bytes) -> bytes:
        spoiled = bytearray(data)
        for index in range(len(spoiled)):
            if self._random.randrange(self._every) == 0:
                spoiled[index] ^= 1 << self._random.randrange(8)
                self.counts.flipped += 1
        return bytes(spoiled)

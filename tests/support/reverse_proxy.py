"""A real nginx that shows a page under a path, as an intranet's portal does."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.rtsp_harness import free_port
from support.waiting import wait_until

_CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  proxy_http_version 1.1;
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $remote_addr;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
  server {{
    listen 127.0.0.1:{port};
    location /cam/ {{
      proxy_pass http://127.0.0.1:{page}/;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }}
    location /kept/ {{
      proxy_pass http://127.0.0.1:{page};
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }}
    location /nows/ {{
      proxy_pass http://127.0.0.1:{page}/;
      proxy_set_header Host $http_host;
    }}
    location / {{ return 200 "the portal's own start page"; }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, page_port: int) -> Iterator[str]:
    """Its address. /cam/ strips the path, /kept/ passes it on, /nows/ passes no WebSocket on."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(port=port, page=page_port))
    with subprocess.Popen(
        [program, "-p", str(folder), "-c", str(configuration)], stderr=subprocess.DEVNULL
    ) as server:

        def answers() -> bool:
            assert server.poll() is None, (folder / "error.log").read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        try:
            wait_until(answers)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()

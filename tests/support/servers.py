"""A web server in a thread on 127.0.0.1, as good or bad as a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What it serves, and how."""

    files: dict[str, bytes]
    ranges: bool = True
    drop_after: list[int] = field(default_factory=list)
    """Bytes of each reply's body before the connection is cut; then no more cuts."""
    says_size: bool = True
    """Whether replies have a Content-Length."""
    status: int = 0
    """Always answered, if not 0."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(path, Range header) of every request."""
    url: str = ""


@contextmanager
def serving(files: dict[str, bytes], **how) -> Iterator[Server]:
    server = Server(files, **how)
    with listening(ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))) as server.url:
        yield server


@contextmanager
def listening(http: ThreadingHTTPServer) -> Iterator[str]:
    """Serve in a thread, and yield the address."""
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range", "")
            server.asked.append((self.path, wanted))
            data = server.files.get(self.path)
            if server.status or data is None:
                return self.send_error(server.status or 404)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            if server.says_size:
                self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            cut = server.drop_after.pop(0) if server.drop_after else len(data)
            with suppress(ConnectionError):  # the client may leave
                self.wfile.write(data[start : start + cut])
            return None

        def log_message(self, *_):
            pass

    return Handler

"""/livez and /readyz for a kubelet (does the process answer, does it do its job), and /metrics for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST

from outgate.model.errors import IntentError, Refused


class Probes:
    """Answers while it is entered; an empty address answers nobody."""

    def __init__(
        self, address: str, *, is_alive: Callable[[], bool], is_ready: Callable[[], bool], metrics: Callable[[], bytes]
    ) -> None:
        """Describe it; `address` is ADDRESS:PORT.

        Raises:
            IntentError: it is no such address.
            Refused: somebody else listens there.
        """
        self._server: ThreadingHTTPServer | None = None
        if address:
            host, _, port = address.rpartition(":")
            if not port.isdigit():
                raise IntentError(f"{address!r} is no ADDRESS:PORT to answer probes on")
            asked = {"/livez": is_alive, "/readyz": is_ready}
            try:
                self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), _answering(asked, metrics))
            except OSError as error:
                raise Refused(f"listen on {address}", error.strerror or str(error)) from error

    def __enter__(self) -> Probes:
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, name="probes", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _answering(asked: Mapping[str, Callable[[], bool]], metrics: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._say(HTTPStatus.OK, metrics(), CONTENT_TYPE_LATEST)
                return
            ask = asked.get(self.path)
            if ask is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            holds = ask()
            status = HTTPStatus.OK if holds else HTTPStatus.SERVICE_UNAVAILABLE
            self._say(status, b"ok\n" if holds else b"no\n", "text/plain")

        def _say(self, status: HTTPStatus, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing: a kubelet asks every few seconds."""

    return Answer

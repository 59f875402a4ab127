"""/livez and /readyz for a kubelet: whether the process answers, and whether it does its job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from outgate.model.errors import IntentError


class Probes:
    """Answers while it is entered; an empty address answers nobody."""

    def __init__(self, address: str, is_ready: Callable[[], bool]) -> None:
        """Describe it; `address` is ADDRESS:PORT.

        Raises:
            IntentError: it is no such address.
        """
        self._server: ThreadingHTTPServer | None = None
        if address:
            host, _, port = address.rpartition(":")
            if not port.isdigit():
                raise IntentError(f"{address!r} is no ADDRESS:PORT to answer probes on")
            self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), _answering(is_ready))

    def __enter__(self) -> Probes:
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, name="probes", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _answering(is_ready: Callable[[], bool]) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"/livez": True, "/readyz": is_ready()}
            holds = known.get(self.path)
            status = (
                HTTPStatus.NOT_FOUND if holds is None else HTTPStatus.OK if holds else HTTPStatus.SERVICE_UNAVAILABLE
            )
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"ok\n" if holds else b"no\n")

        def log_message(self, *_: object) -> None:
            """Say nothing: a kubelet asks every few seconds."""

    return Answer

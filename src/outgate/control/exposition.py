"""The page that Prometheus scrapes: the metrics of `control.metrics`, served by a thread of its own.

The thread asks the loop for a view, waits a moment for it, and never touches what the loop works on: where nobody
scrapes, nobody counts, which for 4,000 tenants takes 0.1 s. While the loop is busy or hangs, a scrape shows the last
view with its age. It serves one scrape after the other: whoever holds it up delays other scrapes, not the gateway. On
the loopback only, unless somebody says otherwise in so many words: the page names every tenant and its traffic.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv6Address, ip_address
from socketserver import TCPServer

from prometheus_client import CollectorRegistry, MetricsHandler, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from outgate.control.metrics import METRICS, Definition, Kind, MetricsView
from outgate.model.errors import IntentError, Refused
from outgate.model.net import Address

_CLIENT_LIMIT_S = 2  # of silence of one scraper; stopping waits as long at most


class Exposition:
    """Serves metrics until it is closed. Readable when a scrape waits for `show`; before the first it says little."""

    def __init__(self, at: str, *, remote: bool = False, patience_s: float = 1.0) -> None:
        """Listen at ADDRESS:PORT; an IPv6 address stands in brackets. Port 0 takes a free one. A scrape waits for a new
        view as long as the patience lasts, and takes the last one then.

        Raises:
            IntentError: that is no address and port, or it is not of the loopback and `remote` was not said.
            Refused: something else listens there, or the address is not of this machine.
        """
        address, port = _parsed(at)
        if not (address.is_loopback or remote):
            raise IntentError(
                f"metrics name every tenant and its traffic, and {address} can be reached from outside; take "
                f"127.0.0.1:{port}, or allow it with --metrics-remote"
            )
        self._view: MetricsView | None = None
        self._patience_s = patience_s
        self._wanted = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._made = threading.Event()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Views(self._asked))
        ProcessCollector(registry=registry)
        answering = _Scrape.factory(registry)
        try:
            self._server = _Server(address, port, answering)
        except OSError as failed:
            os.close(self._wanted)
            raise Refused(f"serve metrics at {at}", failed.strerror or str(failed)) from failed
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Return a descriptor that is readable while a scrape waits for `show`."""
        return self._wanted

    def show(self, view: MetricsView) -> None:
        """Show this from now on."""
        self._view = view
        with suppress(BlockingIOError):
            os.eventfd_read(self._wanted)
        self._made.set()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        os.close(self._wanted)

    def _asked(self) -> MetricsView | None:
        self._made.clear()
        os.eventfd_write(self._wanted, 1)
        self._made.wait(self._patience_s)
        return self._view


class _Scrape(MetricsHandler):
    """One request, with an end to the patience of the library's."""

    timeout = _CLIENT_LIMIT_S


class _Server(HTTPServer):
    """The library's server knows one family per class, and asks for this machine's name in the DNS when it binds: ten
    seconds on a machine whose servers are silent, and the guards would stand that much later.
    """

    def __init__(self, address: Address, port: int, answering: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
        super().__init__((str(address), port), answering)

    def server_bind(self) -> None:
        """Bind, and take the address for the name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]


class _Views(Collector):
    """What the library asks at every scrape; it wants its own kind of class."""

    def __init__(self, view: Callable[[], MetricsView | None]) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Yield every metric that has a sample in the latest view; all of a page are of one view."""
        view, now_s = self._view(), time.monotonic()
        if view is not None:
            for definition in METRICS:
                yield _family(definition, view, now_s)


def _family(definition: Definition, view: MetricsView, now_s: float) -> Metric:
    name, text, labels = definition.name, definition.text, definition.labels
    match definition.kind:
        case Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(name, text, labels=labels)
            histogram.add_metric([], buckets=view.seconds.cumulated(), sum_value=view.seconds.total)
            return histogram
        case Kind.COUNTER:
            counter = CounterMetricFamily(name, text, labels=labels)
            for values, value in definition.read(view, now_s):
                counter.add_metric(values, value)
            return counter
        case Kind.GAUGE:
            gauge = GaugeMetricFamily(name, text, labels=labels)
            for values, value in definition.read(view, now_s):
                gauge.add_metric(values, value)
            return gauge


def _parsed(at: str) -> tuple[Address, int]:
    host, _, port = at.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        address, number = ip_address(host), int(port)
    except ValueError:
        number, address = -1, ip_address("127.0.0.1")
    if not 0 <= number < 65536:
        raise IntentError(f"{at!r} is no ADDRESS:PORT, such as 127.0.0.1:9461 or [::1]:9461")
    return address, number

"""The page that Prometheus scrapes: the metrics of `control.metrics`, served by a thread of its own.

The thread reads one attribute and never touches what the loop works on. It serves one scrape after the other: whoever
holds it up delays other scrapes, not the gateway. On the loopback only, unless somebody says otherwise in so many
words: the page names every tenant and its traffic.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
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
    """Serves metrics until it is closed. The loop sets `view` after a round; before the first it says little."""

    def __init__(self, at: str, *, remote: bool = False) -> None:
        """Listen at ADDRESS:PORT; an IPv6 address stands in brackets. Port 0 takes a free one.

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
        self.view: MetricsView | None = None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Views(lambda: self.view))
        ProcessCollector(registry=registry)
        answering = _Scrape.factory(registry)
        try:
            self._server = _Server(address, port, answering)
        except OSError as failed:
            raise Refused(f"serve metrics at {at}", failed.strerror or str(failed)) from failed
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


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

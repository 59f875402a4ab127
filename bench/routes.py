"""Return routes: reading and comparing 100,000 of them, and making 5,000 from nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Network, ip_address
from pathlib import Path

import msgspec

from bench.figure import Figure, at_most, faster, median, seconds
from bench.scene import INNER, gateway_machine
from outgate.compare.changes import changes_of, difference
from outgate.model.net import OWN_METRIC, Route, Via
from outgate.model.why import Because
from outgate.systems.kernel import uapi
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.read import read
from outgate.systems.kernel.write import write
from outgate.systems.netlink import NetlinkSocket

MANY, FEW, GATEWAYS = 100_000, 5_000, 4_000
BECAUSE = Because("bench", "measured")


def routes_read_and_compared() -> Iterator[Figure]:
    """100,000 routes of ours stand in the main table. A second reading and comparison with what is wanted, both beside
    the first ones, as in an audit that finds nothing changed; memory is what the process grows by meanwhile, beside
    what it holds idle. Rival: `ip -j route` decoded by msgspec, without any comparison.
    """
    wanted = dict.fromkeys(_routes(MANY), BECAUSE)
    with gateway_machine() as net, net.inside(), NetlinkSocket(uapi.NETLINK_ROUTE) as socket:
        cache = Cache()
        read(socket, cache)
        assert not write(socket, cache, list(wanted), ())
        found = difference(frozenset(wanted), read(socket, cache).actual)
        gc.collect()
        idle = _resident_mb()

        def look() -> None:
            assert not changes_of(difference(found.wanted, read(socket, cache).actual, found), wanted)

        took = median(7, lambda: seconds(look))
        grown = _resident_mb() - idle
        rival = median(3, lambda: seconds(lambda: msgspec.json.decode(net.run(["ip", "-j", "route"]).stdout)))
        assert len(found.actual) >= MANY
    yield at_most("routes.100000-read-and-compared", took, 0.1, "s", ("ip -j route + msgspec", rival))
    yield at_most("routes.100000-memory-over-idle", max(grown, 0.0), 60, "MB")


def routes_from_nothing() -> Iterator[Figure]:
    """5,000 routes by 4,000 gateways, written by us (nexthop objects where many gateways are in play); rival: `ip
    -batch` with `via`, its text made before the clock starts. Median of 3; all machines stand until the end, since the
    kernel holds its lock on links and routes for as long as it clears one away.
    """
    wanted = _routes(FEW)
    lines = "".join(f"route add {r.dst} {r.hop} proto 111 metric {r.metric}\n" for r in wanted)

    with ExitStack() as machines:

        def ours() -> float:
            net = machines.enter_context(gateway_machine())
            with net.inside(), NetlinkSocket(uapi.NETLINK_ROUTE) as socket:
                cache = Cache()
                read(socket, cache)
                return seconds(lambda: write(socket, cache, wanted, ()))

        def theirs() -> float:
            net = machines.enter_context(gateway_machine())
            return seconds(lambda: net.run(["ip", "-batch", "-"], input=lines))

        took, rival = median(3, ours), median(3, theirs)
    yield faster("routes.5000-from-nothing", took, ("ip -batch, via", rival), 3)


def _routes(count: int) -> list[Route]:
    base, hop = int(ip_address("10.128.0.0")), ip_address("10.64.1.0")
    return [
        Route(
            dst=IPv4Network((base + number * 16, 28)),
            hop=Via(address=hop + number % GATEWAYS, link=INNER),
            metric=OWN_METRIC,
        )
        for number in range(count)
    ]


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6

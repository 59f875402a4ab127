"""Ask who has some addresses on a LAN, and hear everybody who answers: two answers for one address are the trouble."""

from __future__ import annotations

import select
import time
from collections import defaultdict
from collections.abc import Collection, Mapping

from outgate.model.net import Address, LinkName, Mac
from outgate.systems.wire.probe import Prober

_PROBES, _INTERVAL_S = 3, 0.3


def who_has(link: LinkName, addresses: Collection[Address]) -> Mapping[Address, frozenset[Mac]]:
    """Return the MACs that answered for each address; those for which nobody did have none. It takes about a second.

    The machine itself does not hear its own question. Probes claim nothing: they name no sender (RFC 5227, RFC 4862).

    Raises:
        Unreachable: the link is gone, is no Ethernet link, or CAP_NET_RAW is missing.
    """
    heard: dict[Address, set[Mac]] = defaultdict(set)
    prober = Prober(link, probes=_PROBES, interval_s=_INTERVAL_S)
    try:
        prober.hold(addresses, ())  # go on listening to those that have answered already
        now_s = time.monotonic()
        prober.start(addresses, now_s)
        end_s = now_s + (_PROBES + 1) * _INTERVAL_S
        due_s = prober.tick(now_s).next_s
        while (now_s := time.monotonic()) < end_s:
            wait_s = min(end_s, due_s if due_s is not None else end_s) - now_s
            readable, _, _ = select.select([prober], [], [], max(0.0, wait_s))
            if readable:
                for conflict in prober.receive():
                    heard[conflict.address].add(conflict.mac)
            due_s = prober.tick(time.monotonic()).next_s
    finally:
        prober.close()
    return {address: frozenset(heard.get(address, ())) for address in addresses}

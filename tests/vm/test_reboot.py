"""The power of the gateway machine fails while pods send, again and again.

The guest boots the unit that is shipped, under Debian's kernel; pods, workers and the counters outside are on the host
and notice nothing but silence. In the worst case a worker sends to the MAC address of the machine itself, so that all
that its pods send arrives as something to route, from the first moment on in which the machine is able to.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outgate.lab.manifests import egress_gateway
from outgate.lab.node import Node
from outgate.lab.waiting import eventually
from tests.vm.gateway import Gateway
from tests.vm.traffic import Traffic

QUICK_PROBING = {"probes": 1, "probeIntervalMilliseconds": 50}  # these stories are not about asking for addresses
LIMIT_S = 240.0  # for steps of a few seconds: the guest is slow, and slower still beside others
ENOUGH = 100  # packets of pods that stood before the gateway and wanted through
WITHOUT_PROGRAM = "rm /opt/outgate/bin/outgate"  # as after an upgrade that was cut short
NETWORK_FIRST = "bash $network"  # as a kernel does that is told its addresses, or an initial ramdisk


@pytest.fixture
def traffic(gateway: Gateway) -> Iterator[Traffic]:
    """Pods that send without end, each promised an egress IP; worker n2 has stale neighbours."""
    gateway.manifests.put_all(gateway.lab)
    gateway.manifests.put(egress_gateway(announce=QUICK_PROBING))
    gateway.make_stale(gateway.lab.nodes["n2"])
    with Traffic(gateway.lab) as traffic:
        yield traffic


def wait_until_served(gateway: Gateway, traffic: Traffic, node: Node) -> None:
    """Return when the new connections of all pods of a worker are seen as their tenants' egress IPs."""
    try:
        eventually(lambda: all(map(traffic.served, node.pods)), f"the pods of {node.name} are served", within_s=LIMIT_S)
    except TimeoutError as error:
        error.add_note(gateway.log())
        raise


def test_after_every_power_cut_pods_are_served_as_before_and_nothing_leaks(gateway: Gateway, traffic: Traffic) -> None:
    fresh, stale = gateway.lab.nodes.values()
    macs = []
    for forwarding, before in ((False, ""), (True, ""), (False, NETWORK_FIRST)):
        gateway.boot(forwarding=forwarding, before=before)
        wait_until_served(gateway, traffic, fresh)
        macs.append([fresh.neighbour(hop) for hop in gateway.next_hops()])
        eventually(
            lambda: gateway.refused() >= ENOUGH, "what is sent to the machine itself is refused", within_s=LIMIT_S
        )
        answered = traffic.answered()
        gateway.heal(stale)
        wait_until_served(gateway, traffic, stale)
        eventually(
            lambda: all(now > answered[flow] for flow, now in traffic.answered().items()),  # noqa: B023 - ends in here
            "the flows that were there before the first boot are answered",
            within_s=LIMIT_S,
        )
        gateway.cut_power()
        gateway.make_stale(stale)
        assert gateway.leaked() == 0

    assert traffic.strangers() == {}
    assert macs == [macs[0]] * 3


def test_without_the_program_a_gateway_does_not_forward_unless_sysctl_makes_it(
    gateway: Gateway, traffic: Traffic
) -> None:
    gateway.boot(forwarding=False, before=WITHOUT_PROGRAM)
    eventually(lambda: gateway.received() >= ENOUGH, "pods' packets arrive", within_s=LIMIT_S)
    assert gateway.unit("network") == "active"
    assert gateway.leaked() == 0

    gateway.machine.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    eventually(
        lambda: len(gateway.lab.outside.seen()) >= 4, "both pods of n2 leak over both families", within_s=LIMIT_S
    )
    assert gateway.leaked() > 0

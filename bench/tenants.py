"""4,000 next-hop tenants from nothing: a whole round, beside a raw batch of the same and beside a process per step."""

from __future__ import annotations

import gc
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from socket import if_nametoindex

from bench.figure import Figure, at_most_times, faster
from bench.scene import FIRST_EGRESS, FIRST_HOP, INNER, UPLINK, gateway_machine, held, many_tenants
from outgate.control.round import Asked, decide, settle
from outgate.lab.namespace import Namespace
from outgate.model.net import LinkAddress, Setting, TenantLink
from outgate.model.state import Moment
from outgate.roles.machine import GatewayMachine
from outgate.systems.kernel import messages, sysctl, tenant, uapi
from outgate.systems.netlink import NetlinkSocket

COUNT = 4000
SCRIPT_COUNT = 100  # the script's processes are measured for so many and scaled linearly, which flatters it
MOMENT = Moment(now_s=1_000_000.0)


def tenants_from_nothing() -> Iterator[Figure]:
    """Round: read, allocate, plan, compare, write, read again; the cyclic collector is off, as in the daemon. Raw: the
    same links, names, settings and addresses as packed netlink batches, plus one `nft -f` of the table as nft lists it.
    Script: ip and iptables, one process a step, as it ran. Two runs of each, alternating, the faster of each counts:
    the machine is shared. All machines stand until the end, since the kernel holds its lock on links and routes for as
    long as it clears one away.
    """
    rounds, raws, shares = [], [], []
    with ExitStack() as machines:
        for _ in range(2):
            total, reading, table, wants = _round(machines.enter_context(gateway_machine()))
            rounds.append(total)
            shares.append(reading)
            raws.append(_raw(machines.enter_context(gateway_machine()), table, wants))
    ours, raw = min(rounds), min(raws)
    yield at_most_times("tenants.4000-from-nothing", ours, ("raw netlink batch + nft -f", raw), 1.2)
    yield Figure(name="tenants.4000-reading-and-verifying", value=min(shares), unit="s")
    yield faster("tenants.4000-against-the-script", ours, ("ip and iptables, a process a step", _script()), 20)


def _round(net: Namespace) -> tuple[float, float, str, tuple[object, ...]]:
    """Return the seconds of a round, the part that read, the table as text, and what was wanted."""
    intent = many_tenants(COUNT)
    ledger = held(intent)
    reading = 0.0
    with net.inside():
        machine = GatewayMachine()
        read = machine.read

        def timed(known: object) -> object:
            nonlocal reading
            began = time.perf_counter()
            found = read(known)  # type: ignore[arg-type]
            reading += time.perf_counter() - began
            return found

        machine.read = timed  # type: ignore[method-assign, assignment]
        gc.disable()
        began = time.perf_counter()
        decided = decide(machine, Asked(intent=intent, ledger=ledger, moment=MOMENT))
        outcome = settle(machine, decided, lambda _: None)
        took = time.perf_counter() - began
        gc.enable()
        assert outcome.converged, outcome.failures[:3]
        machine.close()
        table = subprocess.run(["nft", "list", "table", "inet", "outgate"], capture_output=True, text=True, check=True)
        return took, reading, table.stdout, tuple(decided.desired.wants)


def _raw(net: Namespace, table: str, wants: tuple[object, ...]) -> float:
    """Return the seconds that the same objects take when nothing is read, planned or compared."""
    links = [each for each in wants if isinstance(each, TenantLink)]
    addresses = [each for each in wants if isinstance(each, LinkAddress)]
    with net.inside():
        parent, uplink = if_nametoindex(INNER), if_nametoindex(UPLINK)
        with NetlinkSocket(uapi.NETLINK_ROUTE) as socket:
            began = time.perf_counter()
            subprocess.run(["nft", "-f", "-"], input=table, text=True, check=True)
            index = {link.name: tenant.FIRST_INDEX + number for number, link in enumerate(links)}
            socket.batch(m for link in links for m in tenant.create(link, index[link.name], parent))
            for link in links:
                sysctl.write(link.name, Setting.DISABLE_IPV6, 1)
            socket.batch(tenant.up(number) for number in index.values())
            socket.batch(messages.new_address(index.get(a.link, uplink), a.address) for a in addresses)
            return time.perf_counter() - began


def _script() -> float:
    """Return the seconds that the script's steps take for all tenants, scaled from some."""
    with gateway_machine() as net:
        began = time.perf_counter()
        for number in range(SCRIPT_COUNT):
            hop, egress, mark = FIRST_HOP + number, FIRST_EGRESS + number, hex(number + 1)
            link = f"macvlan-{number:x}"
            for command in (
                f"ip link add link {INNER} name {link} type macvlan mode bridge",
                f"ip addr add {hop}/32 dev {link}",
                f"ip link set {link} up",
                f"iptables -t mangle -I PREROUTING -i {link} -j MARK --set-mark {mark}",
                f"iptables -t nat -I POSTROUTING -o {UPLINK} -m mark --mark {mark} -j SNAT --to-source {egress}",
                f"ip addr add {egress}/32 dev {UPLINK}",
            ):
                net.run(command.split())
        return (time.perf_counter() - began) * COUNT / SCRIPT_COUNT

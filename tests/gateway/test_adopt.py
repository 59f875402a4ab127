"""A gateway machine that the former script has set up, literally by its commands, with flows of two tenants over it: it
is imported, adopted, and served by outgate from then on.

Pods 10.132.0.0/14, nodes 192.168.99.21 and .22, next hops 192.168.99.13 and .14, egress IPs 192.168.55.113 and .114,
outside 203.0.113.9. The script knows IPv4 only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import get_args

import pytest
import yaml

from outgate.control.place import here
from outgate.lab.addresses import INNER_LINK, OUTSIDE4, UPLINK, TenantAddresses
from outgate.lab.agent import Echoed, Held, Kind
from outgate.lab.manifests import egress_gateway
from outgate.lab.node import Node
from outgate.lab.topology import Laboratory
from outgate.model.host import Macvlan
from outgate.model.ledger import Ledger
from outgate.plan.adopt import QUIET_S
from outgate.systems.host.macvlans import macvlans
from outgate.systems.statefile.state import StateFile
from tests.gateway.rig import FAST, LIMIT_S, Rig, until

MARKS = {"ns-blue": 10, "ns-red": 20}
INTERVAL_S = 0.05  # on a busy machine an answer takes twenty milliseconds: shorter, and one is always on its way


def scripted(rig: Rig, *, program: str = "iptables", pod_cidr: str = "10.132.0.0/14") -> None:
    """Do what the script does: its daemon's routes, then add-tenant for each tenant."""
    gw = rig.lab.gw
    for node in rig.lab.nodes.values():
        gw.run(["ip", "route", "replace", str(node.addresses.pods4), "via", str(node.v4), "dev", INNER_LINK])
    for tenant in rig.lab.tenants:
        link, mark = f"macvlan-{tenant.namespace}", str(MARKS[tenant.namespace])
        gw.run(["ip", "link", "add", "link", INNER_LINK, "name", link, "type", "macvlan", "mode", "bridge"])
        gw.run(["ip", "addr", "add", f"{tenant.next_hop4}/32", "dev", link])
        gw.run(["ip", "link", "set", link, "up"])
        for scope in ("all", INNER_LINK):
            gw.sysctl(f"net/ipv4/conf/{scope}/arp_ignore", 1)
            gw.sysctl(f"net/ipv4/conf/{scope}/arp_announce", 2)
        gw.sysctl("net/ipv4/ip_forward", 1)
        for scope in ("all", "default", INNER_LINK, link):
            gw.sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)
        gw.run([program, "-t", "mangle", "-I", "PREROUTING", "-i", link, "-j", "MARK", "--set-mark", mark])
        snat = ["-m", "mark", "--mark", mark, "-j", "SNAT", "--to-source", str(tenant.egress4)]
        gw.run([program, "-t", "nat", "-I", "POSTROUTING", "-o", UPLINK, *snat])
        gw.run(["ip", "addr", "add", f"{tenant.egress4}/32", "dev", UPLINK])
        guard = ["FORWARD", "-i", INNER_LINK, "-o", UPLINK, "-s", pod_cidr, "-m", "mark", "--mark", "0", "-j", "REJECT"]
        if gw.run([program, "-C", *guard], check=False).returncode:
            gw.run([program, "-I", *guard])


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Laboratory() as lab:
        made = Rig(lab, tmp_path)
        made.manifests.put_cluster(lab)
        yield made


def import_script(rig: Rig, *words: str) -> tuple[int, str, str]:
    done = rig.outgate("gateway", "import-script", *words)
    return done.returncode, done.stdout, done.stderr


def flows_of(rig: Rig, stack: ExitStack) -> dict[tuple[str, Kind], Held]:
    """Open a TCP and a UDP flow from a pod of each tenant; they go on until the test ends."""
    held: dict[tuple[str, Kind], Held] = {}
    for tenant in rig.lab.tenants:
        pod = rig.lab.pod(tenant.namespace)
        until(partial(rig.is_served, pod), f"the script serves {pod.namespace}")
        for kind in get_args(Kind):
            held[tenant.namespace, kind] = pod.agent.hold(OUTSIDE4, kind=kind, interval_s=INTERVAL_S)
            stack.callback(held[tenant.namespace, kind].stop)
    return held


@contextmanager
def beginning_flows(rig: Rig, tenant: TenantAddresses) -> Iterator[Future[Echoed]]:
    """Begin a flow every interval for three seconds, each with one datagram."""
    pod = rig.lab.pod(tenant.namespace)
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(pod.agent.udp, OUTSIDE4, count=60, interval_s=INTERVAL_S, fresh=True)


def links(rig: Rig) -> list[str]:
    return [link["ifname"] for link in json.loads(rig.lab.gw.run(["ip", "-j", "link"]).stdout)]


def addresses_on(rig: Rig, link: str) -> set[str]:
    found = json.loads(rig.lab.gw.run(["ip", "-j", "-4", "addr", "show", "dev", link]).stdout)
    return {f"{one['local']}/{one['prefixlen']}" for entry in found for one in entry.get("addr_info", ())}


def rules(rig: Rig) -> list[str]:
    listed = [rig.lab.gw.run([program]).stdout for program in ("iptables-nft-save", "iptables-legacy-save")]
    return [line for text in listed for line in text.splitlines() if line.startswith("-A")]


def assert_untouched(rig: Rig, held: Mapping[tuple[str, Kind], Held]) -> None:
    """Assert that no flow has lost anything or was seen as anybody else.

    With one message lost the answers never catch up with the messages again; one that is on its way is there soon.
    """
    for (namespace, kind), flow in held.items():
        tenant = next(one for one in rig.lab.tenants if one.namespace == namespace)
        until(
            partial(all_answered, flow),
            f"all of {namespace}'s {kind} messages are answered",
            diagnosis=partial(how_it_goes, flow),
        )
        seen = flow.look()
        assert (kind, seen.alive, dict(seen.errors), set(seen.sources)) == (kind, True, {}, {tenant.egress4})


def how_it_goes(flow: Held) -> str:
    return str(flow.look())


def all_answered(flow: Held) -> bool:
    """Whether there is a moment between an answer and the next message, looked for in a whole interval."""
    return any(seen.sent == seen.answered > 0 for seen in (flow.look() for _ in range(30)))


def test_what_the_script_left_is_printed_as_manifests_and_the_machine_is_as_it_was(rig: Rig) -> None:
    scripted(rig, pod_cidr="10.128.0.0/14")
    before = rig.lab.gw.run(["ip", "-4", "-d", "addr"]).stdout, rules(rig)

    code, printed, told = import_script(rig)

    kinds = [(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(printed)]
    assert kinds == [("EgressGateway", "gateway"), ("EgressTenant", "ns-blue"), ("EgressTenant", "ns-red")]
    assert code == 1
    assert "10.132.0.0/24" in told
    assert "10.131.255.255" in told
    assert (rig.lab.gw.run(["ip", "-4", "-d", "addr"]).stdout, rules(rig)) == before
    assert not list(rig.manifests.directory.glob("egress*"))


def test_tenants_of_the_script_join_the_gateway_that_stands(rig: Rig) -> None:
    scripted(rig)
    rig.manifests.put(egress_gateway(**FAST))

    code, printed, told = import_script(rig, "--adopt")

    assert (code, "adopted: ns-blue, ns-red" in printed) == (0, True), told
    written = sorted(file.name for file in rig.manifests.directory.glob("egress*"))
    assert written == ["egressgateway-gw1.yaml", "egresstenant-ns-blue.yaml", "egresstenant-ns-red.yaml"]
    for pod in rig.lab.pods:
        assert rig.is_served(pod)


@pytest.mark.parametrize("uplink_filter", [0, 1, 2])
@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_running_flows_lose_nothing_and_nothing_leaks_while_the_script_is_adopted(
    rig: Rig, program: str, uplink_filter: int
) -> None:
    scripted(rig, program=program)
    rig.sysctl(f"net/ipv4/conf/{UPLINK}/rp_filter", uplink_filter)
    with ExitStack() as stack:
        held = flows_of(rig, stack)
        until(lambda: all(flow.look().answered > 10 for flow in held.values()), "flows run")
        begun = [stack.enter_context(beginning_flows(rig, tenant)) for tenant in rig.lab.tenants]

        code, printed, told = import_script(rig, "--adopt")

        assert code == 0, told
        assert "adopted: ns-blue, ns-red" in printed
        marks = {key: flow.look().sent for key, flow in held.items()}
        until(lambda: all(flow.look().sent > marks[key] + 20 for key, flow in held.items()), "flows went on")
        assert_untouched(rig, held)
        for tenant, flows in zip(rig.lab.tenants, begun, strict=True):
            echoed = flows.result(timeout=LIMIT_S)
            assert set(echoed.sources) == {tenant.egress4}
            assert echoed.errors == {}  # who begins while the table is loaded is not answered, never misled or refused
            after = rig.lab.pod(tenant.namespace).agent.udp(OUTSIDE4, interval_s=INTERVAL_S, fresh=True)
            assert (after.sent, dict(after.sources)) == (20, {tenant.egress4: 20})
        assert rig.leaked() == 0
        assert rules(rig) == []
        for tenant in rig.lab.tenants:
            old = f"macvlan-{tenant.namespace}"
            assert old in links(rig)
            assert addresses_on(rig, old) == set()
            assert f"{tenant.egress4}/32" in addresses_on(rig, UPLINK)
        routes = rig.lab.gw.run(["ip", "route"]).stdout.splitlines()
        assert {line.split()[0]: "proto 111" in line for line in routes if line.startswith("10.132.")} == {
            str(node.addresses.pods4): True for node in rig.lab.nodes.values()
        }


def test_after_the_adoption_the_daemon_serves_the_old_mac_and_the_new_one(rig: Rig) -> None:
    scripted(rig)
    with ExitStack() as stack:
        held = flows_of(rig, stack)
        assert import_script(rig, "--adopt")[0] == 0
        rig.start()
        until(lambda: rig.status().get("health") in ("OK", "DEGRADED"), "the daemon answers", diagnosis=rig.tail)

        for node, tenant in pairs(rig):
            node.poison(tenant.next_hop4, old_links(rig)[f"macvlan-{tenant.namespace}"].mac)
        for pod in rig.lab.pods:
            assert rig.is_served(pod), f"{pod.namespace} by the old MAC"
        for node, tenant in pairs(rig):
            node.heal(tenant.next_hop4)
        for pod in rig.lab.pods:
            assert rig.is_served(pod), f"{pod.namespace} by the new MAC"

        assert {str(node.neighbour(tenant.next_hop4))[:6] for node, tenant in pairs(rig)} == {"02:e6:"}
        assert_untouched(rig, held)
        assert rig.leaked() == 0


def test_an_old_link_that_is_silent_for_long_is_dropped_and_nobody_notices(rig: Rig) -> None:
    scripted(rig)
    with ExitStack() as stack:
        held = flows_of(rig, stack)
        assert import_script(rig, "--adopt")[0] == 0
        until(lambda: new_macs_everywhere(rig), "all nodes use the new MAC")
        long_ago(rig)

        rig.start()

        until(lambda: not old_links(rig), "the old links are gone", diagnosis=rig.diagnosis)
        until(lambda: "macvlan-" not in rig.lab.gw.run(["nft", "list", "ruleset"]).stdout, "their elements are gone")
        rig.manifests.put_cluster(rig.lab)  # whatever makes a round; the audit is one
        until(lambda: ledger_of(rig).adopting == {}, "their record is closed")
        for pod in rig.lab.pods:
            assert rig.is_served(pod)
        assert_untouched(rig, held)
        assert rig.leaked() == 0


def test_an_old_link_whose_mac_is_still_used_stays(rig: Rig) -> None:
    scripted(rig)
    assert import_script(rig, "--adopt")[0] == 0
    for node, tenant in pairs(rig):
        node.poison(tenant.next_hop4, old_links(rig)[f"macvlan-{tenant.namespace}"].mac)
    long_ago(rig)
    for pod in rig.lab.pods:
        assert rig.is_served(pod)

    rig.start()

    until(lambda: all(one.packets > 0 for one in ledger_of(rig).adopting.values()), "the daemon has looked")
    assert not any(adoption.released for adoption in ledger_of(rig).adopting.values())
    assert len(old_links(rig)) == 2


def test_flushing_an_adopted_machine_leaves_nothing_of_the_script_and_nothing_of_ours(rig: Rig) -> None:
    scripted(rig)
    assert import_script(rig, "--adopt")[0] == 0

    done = rig.outgate("gateway", "flush", "--yes")

    assert done.returncode == 0, done.stderr
    assert [link for link in links(rig) if link.startswith(("macvlan-", "og-"))] == []
    assert addresses_on(rig, UPLINK) == {"192.168.55.12/24"}
    assert rules(rig) == []
    assert "outgate" not in rig.lab.gw.run(["nft", "list", "tables"]).stdout
    assert "proto 111" not in rig.lab.gw.run(["ip", "route"]).stdout
    assert rig.sysctl("net/ipv4/ip_forward") == "1"


def test_without_nodes_running_flows_would_be_cut_so_nothing_is_begun(rig: Rig) -> None:
    for node in rig.lab.nodes:
        rig.manifests.drop("Node", node)
    scripted(rig)
    with ExitStack() as stack:
        held = flows_of(rig, stack)
        before = rules(rig)

        code, _, told = import_script(rig, "--adopt")

        assert code == 2
        assert "oc get nodes -o yaml" in told
        assert rules(rig) == before
        assert not list(rig.manifests.directory.glob("egress*"))
        assert_untouched(rig, held)


def test_what_is_not_whole_stops_the_adoption_before_it_begins(rig: Rig) -> None:
    scripted(rig)
    rig.lab.gw.run(["iptables", "-t", "nat", "-D", "POSTROUTING", "1"])
    before = rules(rig)

    code, _, told = import_script(rig, "--adopt")

    assert code == 2
    assert "TranslationMissing" in told
    assert rules(rig) == before
    assert not (rig.place / "state").exists()


def test_a_daemon_that_runs_is_not_disturbed(rig: Rig) -> None:
    scripted(rig)
    rig.start()
    until(lambda: rig.status() != {}, "the daemon answers")

    code, _, told = import_script(rig, "--adopt")

    assert code == 75
    assert str(rig.daemon.pid if rig.daemon else "") in told


def test_an_adoption_that_was_cut_short_is_finished_by_the_next_one(rig: Rig) -> None:
    scripted(rig)
    with ExitStack() as stack:
        held = flows_of(rig, stack)
        for moment in ("the manifests", "the record", "our rules"):
            cut_short(rig, moment)
            assert_untouched(rig, held)

        code, printed, told = import_script(rig, "--adopt")

        assert (code, "adopted: ns-blue, ns-red" in printed) == (0, True), told
        assert rules(rig) == []
        assert_untouched(rig, held)
        assert rig.leaked() == 0


def pairs(rig: Rig) -> list[tuple[Node, TenantAddresses]]:
    return [(node, tenant) for node in rig.lab.nodes.values() for tenant in rig.lab.tenants]


def old_links(rig: Rig) -> dict[str, Macvlan]:
    with rig.lab.gw.inside():
        return {link.name: link for link in macvlans() if link.name.startswith("macvlan-")}


def new_macs_everywhere(rig: Rig) -> bool:
    for pod in rig.lab.pods:
        rig.seen(pod)
    return {str(node.neighbour(tenant.next_hop4))[:6] for node, tenant in pairs(rig)} == {"02:e6:"}


def ledger_of(rig: Rig) -> Ledger:
    return StateFile(rig.place / "state" / "gateway").load().ledger


def long_ago(rig: Rig) -> None:
    """Let it be long ago that the old links were looked at: as if the machine had waited in between."""
    with rig.lab.gw.inside():
        place = here(state_dir=rig.place / "state", run_dir=rig.place / "run")
    state = StateFile(place.state, place=str(place))
    ledger = state.load().ledger
    packets = {name: link.packets for name, link in old_links(rig).items()}
    adopting = {
        name: replace(one, packets=packets[name], quiet_since_s=time.time() - QUIET_S - 1)
        for name, one in ledger.adopting.items()
    }
    state.save(replace(ledger, adopting=MappingProxyType(adopting)))


CUT_SHORT = """
import sys
from outgate.cli.main import run
from outgate.roles import adopt
from outgate.systems.host import handover
from outgate.systems.iptables import write

def stop(*_: object) -> None:
    import os
    os._exit(9)

place = {"the manifests": (adopt, "state_of"), "the record": (handover, "label"), "our rules": (write, "remove")}
module, name = place[sys.argv[1]]
if name == "state_of":
    known, calls = adopt.state_of, []
    def state_of(place):
        calls.append(place)
        return stop() if len(calls) == 2 else known(place)
    adopt.state_of = state_of
else:
    setattr(module, name, stop)
run(sys.argv[2:])
"""


def cut_short(rig: Rig, moment: str) -> None:
    """Run the adoption in a process that dies right after one of its steps."""
    words = rig.command("gateway", "import-script", "--adopt")[3:]
    done = rig.lab.gw.run([sys.executable, "-c", CUT_SHORT, moment, *words], check=False)
    assert done.returncode == 9, done.stderr

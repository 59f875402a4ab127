"""Layer 2 around the gateway: who is asked before an address is used, and what neighbours are told and believe."""

from __future__ import annotations

import json

import pytest

from outgate.lab import addresses
from outgate.lab.addresses import INNER_LINK, INNER_MAC, UPLINK
from outgate.lab.manifests import egress_gateway, egress_tenant
from outgate.model.net import LinkName, Mac
from outgate.systems.wire.announce import Announcer
from outgate.systems.wire.frames import Announcement
from tests.gateway.rig import Rig, until


def mac_of(rig: Rig, tenant: str) -> str:
    """Return the MAC of a tenant's link."""
    shown = rig.lab.gw.run(["ip", "-j", "link", "show", "dev", f"outgate-{tenant}"]).stdout
    return str(json.loads(shown)[0]["address"])


def findings(rig: Rig) -> dict[str, str]:
    """Return the texts of the findings by reason."""
    return {finding["reason"]: finding["text"] for finding in rig.status().get("findings", ())}


@pytest.mark.parametrize("version", [4, 6])
def test_an_egress_ip_that_somebody_answers_is_not_claimed_and_the_mac_is_named(bare: Rig, version: int) -> None:
    blue = bare.lab.tenants[0]
    taken, length = (blue.egress4, 24) if version == 4 else (blue.egress6, 64)
    bare.lab.ext.run(["ip", "addr", "add", f"{taken}/{length}", "dev", "eth0", "nodad"])
    theirs = json.loads(bare.lab.ext.run(["ip", "-j", "link", "show", "dev", "eth0"]).stdout)[0]["address"]
    bare.manifests.put_all(bare.lab)
    bare.start()
    until(lambda: "AddressConflict" in findings(bare), "the conflict is reported", diagnosis=bare.diagnosis)
    assert theirs in findings(bare)["AddressConflict"]
    assert f"{taken}/" not in bare.lab.gw.run(["ip", "addr", "show", "dev", UPLINK]).stdout
    red = bare.lab.pod("ns-red")
    until(lambda: bare.is_served(red, version), "the other tenant is served")
    assert bare.seen(bare.lab.pod("ns-blue"), version) is None
    assert bare.leaked() == 0


def test_a_next_hop_that_somebody_answers_is_not_claimed(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    bare.lab.lan.run(["ip", "addr", "add", f"{blue.next_hop4}/24", "dev", "br0"])
    bare.manifests.put_all(bare.lab)
    bare.start()
    until(lambda: "AddressConflict" in findings(bare), "the conflict is reported", diagnosis=bare.diagnosis)
    assert f"{blue.next_hop4}/" not in bare.lab.gw.run(["ip", "addr"]).stdout


def test_an_address_that_is_claimed_by_another_later_is_kept_and_reported(served: Rig) -> None:
    blue = served.lab.tenants[0]
    with served.lab.ext.inside():
        rival = Announcer()
    claim = Announcement(link=LinkName("eth0"), address=blue.egress4, mac=Mac("02:00:00:00:00:99"))
    rival.send([claim])
    rival.close()
    until(lambda: "AddressConflict" in findings(served), "the rival is noticed", diagnosis=served.diagnosis)
    assert "02:00:00:00:00:99" in findings(served)["AddressConflict"]
    assert "does not fight" in findings(served)["AddressConflict"]
    assert f"{blue.egress4}/" in served.lab.gw.run(["ip", "addr", "show", "dev", UPLINK]).stdout


def test_workers_learn_the_tenants_own_mac_and_relearn_it_when_they_were_wrong(served: Rig) -> None:
    blue = served.lab.tenants[0]
    node = served.lab.nodes["n1"]
    assert node.neighbour(blue.next_hop4) == mac_of(served, "ns-blue")
    assert mac_of(served, "ns-blue") != mac_of(served, "ns-red")
    node.net.run(["ip", "neigh", "replace", str(blue.next_hop4), "lladdr", INNER_MAC, "dev", "eth0", "nud", "stale"])
    link = json.loads(served.lab.gw.run(["ip", "-j", "link", "show", "dev", "outgate-ns-blue"]).stdout)[0]["ifname"]
    served.lab.gw.run(["ip", "addr", "del", f"{blue.next_hop4}/32", "dev", link])
    until(
        lambda: node.neighbour(blue.next_hop4) == mac_of(served, "ns-blue"),
        "the announcement after the repair mends the worker's entry",
        diagnosis=served.diagnosis,
    )


def test_a_link_that_is_made_again_has_the_mac_that_it_had(served: Rig) -> None:
    before = mac_of(served, "ns-blue")
    link = json.loads(served.lab.gw.run(["ip", "-j", "link", "show", "dev", "outgate-ns-blue"]).stdout)[0]["ifname"]
    served.lab.gw.run(["ip", "link", "del", link])
    until(
        lambda: served.lab.gw.run(["ip", "link", "show", "dev", "outgate-ns-blue"], check=False).returncode == 0, "back"
    )
    assert mac_of(served, "ns-blue") == before


def test_the_parent_nic_never_answers_for_a_tenant(served: Rig) -> None:
    blue = served.lab.tenants[0]
    node = served.lab.nodes["n2"]
    for _ in range(3):
        node.heal(blue.next_hop4)
        until(lambda: served.is_served(served.lab.pod("ns-blue", "n2")), "asked again and served")
        assert node.neighbour(blue.next_hop4) == mac_of(served, "ns-blue")
    assert served.sysctl(f"net/ipv4/conf/{INNER_LINK}/arp_ignore").strip() == "1"


def test_an_ipv6_egress_ip_is_never_the_machines_own_choice_of_source(served: Rig) -> None:
    chosen = json.loads(served.lab.gw.run(["ip", "-6", "-j", "route", "get", str(addresses.OUTSIDE6)]).stdout)
    assert chosen[0]["prefsrc"] == str(addresses.UPLINK6)
    chosen = json.loads(served.lab.gw.run(["ip", "-j", "route", "get", str(addresses.OUTSIDE4)]).stdout)
    assert chosen[0]["prefsrc"] == str(addresses.UPLINK4)


def test_nothing_is_announced_or_asked_when_somebody_else_does_it(bare: Rig) -> None:
    bare.lab.ext.run(["ip", "addr", "add", f"{bare.lab.tenants[0].egress4}/24", "dev", "eth0"])
    bare.manifests.put_cluster(bare.lab)
    bare.manifests.put(egress_gateway(announce={"method": "None"}))
    bare.manifests.put(egress_tenant(bare.lab.tenants[0]))
    bare.start()
    until(
        lambda: f"{bare.lab.tenants[0].egress4}/32" in bare.lab.gw.run(["ip", "addr"]).stdout,
        "claimed without asking: another protocol owns announcements",
        diagnosis=bare.diagnosis,
    )

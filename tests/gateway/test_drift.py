"""Somebody changes what is ours while the daemon runs: it is put back, at once when the kernel tells, and nobody else's
things move.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from outgate.lab import addresses
from outgate.lab.addresses import INNER_LINK, UPLINK
from tests.gateway.rig import Rig, until

REPAIRED_S = 10.0  # generous; the promise of two seconds is measured by the bench


def link_of(rig: Rig) -> str:
    """Return the device of ns-blue."""
    return str(json.loads(rig.lab.gw.run(["ip", "-j", "link", "show", "dev", "outgate-ns-blue"]).stdout)[0]["ifname"])


def run(*argv: str) -> Callable[[Rig], None]:
    """Return a tampering that runs one command; LINK stands for the device of ns-blue."""
    return lambda rig: void(rig.lab.gw.run([link_of(rig) if word == "LINK" else word for word in argv]))


def void(_: object) -> None:
    """Forget a result."""


TAMPERINGS: dict[str, Callable[[Rig], None]] = {
    "a rule is deleted": run("ip", "rule", "del", "priority", "110"),
    "an IPv6 rule is deleted": run("ip", "-6", "rule", "del", "priority", "110"),
    "a return route is deleted": run("ip", "route", "del", "10.132.0.0/24", "metric", "111"),
    "an IPv6 return route is deleted": run("ip", "-6", "route", "del", "fd01:0:0:1::/64", "metric", "111"),
    "a return route is turned": run(
        "ip", "route", "replace", "10.132.0.0/24", "via", "192.168.99.22", "proto", "111", "metric", "111"
    ),
    "an egress IP is deleted": run("ip", "addr", "del", "192.168.55.113/32", "dev", UPLINK),
    "an IPv6 egress IP is deleted": run("ip", "addr", "del", "fd55::113/128", "dev", UPLINK),
    "a next hop is deleted": run("ip", "addr", "del", "192.168.99.13/32", "dev", "LINK"),
    "a next hop is widened": run("ip", "addr", "add", "192.168.99.13/24", "dev", "LINK"),
    "a tenant link is deleted": run("ip", "link", "del", "LINK"),
    "a tenant link is set down": run("ip", "link", "set", "LINK", "down"),
    "a tenant link gets another MAC": run("ip", "link", "set", "LINK", "address", "02:00:00:00:00:99"),
    "a tenant link loses its alternative name": run(
        "ip", "link", "property", "del", "dev", "LINK", "altname", "outgate-ns-blue"
    ),
    "a set is flushed": run("nft", "flush", "map", "inet", "outgate", "snat4"),
    "a chain is flushed": run("nft", "flush", "chain", "inet", "outgate", "guard"),
    "a rule is inserted": run("nft", "insert", "rule", "inet", "outgate", "guard", "accept"),
    "a foreign element appears": run("nft", "add", "element", "inet", "outgate", "uplinks", "{ eth99 }"),
    "the table is deleted": run("nft", "delete", "table", "inet", "outgate"),
    "the ruleset is flushed": run("nft", "flush", "ruleset"),
    "forwarding is switched off": lambda rig: void(rig.sysctl(f"net/ipv4/conf/{INNER_LINK}/forwarding", 0)),
    "rp_filter is made strict": lambda rig: void(rig.sysctl(f"net/ipv4/conf/{INNER_LINK}/rp_filter", 1)),
}


def picture(rig: Rig) -> str:
    """Return all that the gateway machine holds, without counters and handles."""
    listings = [
        rig.lab.gw.run(["ip", "rule"]).stdout,
        rig.lab.gw.run(["ip", "-6", "rule"]).stdout,
        *sorted(rig.lab.gw.run(["ip", "route", "show", "table", "main"]).stdout.splitlines()),
        *sorted(rig.lab.gw.run(["ip", "-6", "route", "show", "table", "main", "proto", "111"]).stdout.splitlines()),
        rig.lab.gw.run(["nft", "-s", "list", "ruleset"]).stdout,
        *(rig.sysctl(f"net/ipv4/conf/{INNER_LINK}/{key}") for key in ("forwarding", "rp_filter", "arp_ignore")),
    ]
    for link in sorted(
        json.loads(rig.lab.gw.run(["ip", "-j", "-d", "addr"]).stdout), key=lambda one: str(one["ifname"])
    ):
        kept = {key: link.get(key) for key in ("ifname", "address", "altnames", "link", "flags")}
        found = sorted(f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] != "link")
        listings.append(json.dumps([kept, found], sort_keys=True))
    return "\n".join(listings)


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_what_is_ours_is_put_back(served: Rig, tampering: str) -> None:
    before = picture(served)
    TAMPERINGS[tampering](served)
    until(lambda: picture(served) == before, f"{tampering}: put back", REPAIRED_S, served.diagnosis)
    served.wait_until_served()
    assert served.leaked() == 0
    assert served.status()["rounds"]["repaired"] > 0


def test_a_setting_that_sends_no_notification_is_found_by_the_audit(served: Rig) -> None:
    served.sysctl(f"net/ipv4/conf/{INNER_LINK}/arp_ignore", 0)
    until(lambda: served.sysctl(f"net/ipv4/conf/{INNER_LINK}/arp_ignore").strip() == "1", "set again", 60.0)


def test_foreign_things_are_left_alone_and_survive_a_flush_byte_for_byte(bare: Rig) -> None:
    theirs = [
        ["ip", "rule", "add", "from", "10.9.9.9", "lookup", "main", "priority", "110"],
        ["ip", "rule", "add", "from", "10.132.0.0/14", "lookup", "main", "priority", "30000"],
        ["ip", "route", "add", "198.51.100.0/24", "via", "192.168.55.1"],
        ["ip", "route", "add", "10.133.0.0/24", "via", "192.168.99.99", "proto", "static"],
        ["ip", "-6", "route", "add", "2001:db8:9::/64", "via", "fd55::1"],
        ["ip", "addr", "add", "192.168.55.200/32", "dev", UPLINK],
        ["ip", "link", "add", "og-mine", "type", "veth", "peer", "name", "og-peer"],
        ["ip", "link", "add", "link", INNER_LINK, "name", "macvlan-old", "type", "macvlan", "mode", "bridge"],
        ["nft", "add", "table", "inet", "theirs"],
        ["nft", "add", "chain", "inet", "theirs", "c", "{ type filter hook forward priority 10; policy accept; }"],
        ["nft", "add", "rule", "inet", "theirs", "c", "counter", "accept"],
    ]
    for command in theirs:
        bare.lab.gw.run(command)
    settings = bare.lab.gw.run(["sysctl", "-a", "-r", "net.ipv[46].(conf.(all|default|enp.s0)|ip_forward)"]).stdout
    before = picture(bare)
    bare.serve()
    assert bare.stop() == 0
    flushed = bare.outgate("gateway", "flush", "--yes", check=True)
    assert "removed" in flushed.stdout
    assert picture(bare) == before
    after = bare.lab.gw.run(["sysctl", "-a", "-r", "net.ipv[46].(conf.(all|default|enp.s0)|ip_forward)"]).stdout
    assert after == settings


def test_stopping_leaves_the_data_path_as_it_is(served: Rig) -> None:
    before = picture(served)
    assert served.stop() == 0
    assert picture(served) == before
    served.wait_until_served()


def test_a_second_daemon_in_the_same_namespace_is_told_who_runs(served: Rig) -> None:
    second = served.outgate("gateway", "run", "--instance", "other")
    assert second.returncode == 75
    assert served.daemon is not None
    assert str(served.daemon.pid) in second.stderr


def test_a_second_round_changes_nothing(served: Rig) -> None:
    served.stop()
    planned = served.outgate("gateway", "plan")
    assert planned.returncode == 0, planned.stdout


def test_a_restart_changes_nothing_and_flows_live_on(served: Rig) -> None:
    pod = served.lab.pod("ns-blue")
    flow = pod.agent.hold(addresses.OUTSIDE4, interval_s=0.01)
    before = picture(served)
    served.kill()
    served.start()
    until(lambda: served.status().get("health") == "OK", "OK again", diagnosis=served.diagnosis)
    assert picture(served) == before
    assert served.status()["rounds"]["changes"] == 0
    answered = flow.look().answered
    until(lambda: flow.look().answered > answered, "the flow lives")
    assert flow.stop().errors == {}


def test_the_daemon_lives_through_a_nic_that_goes_and_comes(served: Rig) -> None:
    served.lab.gw.run(["ip", "link", "set", UPLINK, "down"])
    served.lab.gw.run(["ip", "link", "set", UPLINK, "up"])
    served.lab.gw.run(
        ["ip", "addr", "add", f"{addresses.UPLINK6}/64", "dev", UPLINK, "nodad"]
    )  # the kernel forgets these
    for version, router in (("-4", addresses.ROUTER4), ("-6", addresses.ROUTER6)):
        served.lab.gw.run(["ip", version, "route", "replace", "default", "via", str(router), "dev", UPLINK])
    served.wait_until_served()
    assert served.leaked() == 0


def test_a_full_disk_does_not_stop_the_data_path(bare: Rig) -> None:
    bare.serve(limited=("prlimit", "--fsize=500"))  # longer files can not be written, as on a full disk
    reasons = {finding["reason"] for finding in bare.status()["findings"]}
    assert "StateNotWritten" in reasons

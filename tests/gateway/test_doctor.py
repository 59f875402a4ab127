"""The doctor at a gateway that serves: what he says of a sick machine is what the packets meet, and what he prescribes
mends it.

Pods 10.132.0.0/14, egress IPs 192.168.55.113 and .114, outside 203.0.113.9.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from outgate.lab.addresses import UPLINK
from outgate.lab.topology import Laboratory
from tests.gateway.rig import Rig, until


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A gateway with its daemon; each story leaves it as it found it."""
    with Laboratory() as lab:
        rig = Rig(lab, tmp_path_factory.mktemp("doctor"))
        rig.serve()
        yield rig


def troubles(rig: Rig, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Ask the doctor; return the exit code and what is not well, by id (the first of each)."""
    done = rig.outgate("doctor", "-o", "json", *words)
    checks = json.loads(done.stdout)["checks"]
    found: dict[str, dict[str, str]] = {}
    for check in checks:
        if check["grade"] != "ok":
            found.setdefault(check["id"], check)
    return done.returncode, found


def test_a_gateway_that_serves_is_well_also_by_the_word_of_its_neighbours(served: Rig) -> None:
    assert troubles(served, "--probe") == (0, {})


def test_the_doctor_changes_nothing(served: Rig) -> None:
    def machine() -> list[str]:
        commands = (["ip", "-d", "addr"], ["ip", "rule"], ["ip", "route"], ["nft", "-s", "list", "ruleset"])
        return [served.lab.gw.run(command).stdout for command in commands]

    before = machine()
    troubles(served, "--probe")
    assert machine() == before


FORWARD_POLICY = ("iptables-nft", "iptables-legacy")


@pytest.mark.parametrize("program", FORWARD_POLICY)
def test_a_foreign_chain_that_drops_cuts_tenants_off_until_the_prescribed_rule_is_there(
    served: Rig, program: str
) -> None:
    pod = served.lab.pod("ns-blue")
    served.lab.gw.run([program, "-P", "FORWARD", "DROP"])
    try:
        code, found = troubles(served)
        assert (code, found["G302"]["grade"]) == (2, "fail")
        assert served.seen(pod, timeout_s=0.5) is None

        served.lab.gw.run(found["G302"]["fix"].split())

        assert served.is_served(pod)
        assert "G302" not in troubles(served)[1]
    finally:
        served.lab.gw.run([program, "-F", "FORWARD"])
        served.lab.gw.run([program, "-P", "FORWARD", "ACCEPT"])


def test_a_foreign_nftables_chain_that_drops_is_mended_by_the_prescribed_rule(served: Rig) -> None:
    pod = served.lab.pod("ns-blue")
    chain = (
        "add table inet theirs; add chain inet theirs forwarding { type filter hook forward priority 10; policy drop; }"
    )
    served.lab.gw.run(["nft", chain])
    try:
        _, found = troubles(served)
        assert served.seen(pod, timeout_s=0.5) is None

        served.lab.gw.run(found["G302"]["fix"].split())

        assert served.is_served(pod)
        assert "G302" not in troubles(served)[1]
    finally:
        served.lab.gw.run(["nft", "delete", "table", "inet", "theirs"])


def test_a_foreign_translation_before_ours_takes_no_packet_out_under_a_strange_address(served: Rig) -> None:
    pod = served.lab.pod("ns-blue")
    chain = "add table inet theirs; add chain inet theirs leaving { type nat hook postrouting priority 90; }"
    served.lab.gw.run(["nft", f"{chain}; add rule inet theirs leaving oifname {UPLINK} masquerade"])
    try:
        code, found = troubles(served)
        assert (code, found["G303"]["grade"]) == (2, "fail")
        assert served.seen(pod, timeout_s=0.5) is None
    finally:
        served.lab.gw.run(["nft", "delete", "table", "inet", "theirs"])
    until(lambda: served.is_served(pod), "the pod is served again")


def test_a_foreign_translation_behind_ours_does_not_touch_tenants_and_is_no_trouble(served: Rig) -> None:
    rule = ["POSTROUTING", "-o", UPLINK, "-j", "MASQUERADE"]
    served.lab.gw.run(["iptables-nft", "-t", "nat", "-I", *rule])
    try:
        assert "G303" not in troubles(served)[1]
        assert served.is_served(served.lab.pod("ns-blue"))
    finally:
        served.lab.gw.run(["iptables-nft", "-t", "nat", "-D", *rule])


def test_an_address_that_somebody_else_has_too_is_found_by_asking(served: Rig) -> None:
    blue = served.lab.tenants[0]
    served.lab.ext.run(["ip", "addr", "add", f"{blue.egress4}/32", "dev", "eth0"])
    served.lab.ext.run(["ip", "addr", "add", f"{blue.egress6}/128", "dev", "eth0", "nodad"])
    mac = json.loads(served.lab.ext.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]["address"]
    try:
        code, found = troubles(served, "--probe")
        assert (code, found["G504"]["about"]) == (2, "EgressTenant/ns-blue")
        assert mac in found["G504"]["text"]
    finally:
        served.lab.ext.run(["ip", "addr", "del", f"{blue.egress4}/32", "dev", "eth0"])
        served.lab.ext.run(["ip", "addr", "del", f"{blue.egress6}/128", "dev", "eth0"])


def rule_before_ours(rig: Rig) -> Callable[[], object]:
    rig.lab.gw.run(["ip", "rule", "add", "pref", "50", "from", "10.132.0.0/14", "lookup", "main"])
    return lambda: rig.lab.gw.run(["ip", "rule", "del", "pref", "50"])


def mark_on_all_packets(rig: Rig) -> Callable[[], object]:
    rig.lab.gw.run(["iptables-nft", "-t", "mangle", "-A", "FORWARD", "-j", "MARK", "--set-mark", "0x4000/0x4000"])
    return lambda: rig.lab.gw.run(["iptables-nft", "-t", "mangle", "-F", "FORWARD"])


def uplink_down(rig: Rig) -> Callable[[], object]:
    rig.lab.wan.run(["ip", "link", "set", "gw", "down"])
    return lambda: rig.lab.wan.run(["ip", "link", "set", "gw", "up"])


def link_of_the_script(rig: Rig) -> Callable[[], object]:
    words = ["ip", "link", "add", "link", "enp1s0", "name", "macvlan-old", "type", "macvlan", "mode", "bridge"]
    rig.lab.gw.run(words)
    return lambda: rig.lab.gw.run(["ip", "link", "del", "macvlan-old"])


@pytest.mark.parametrize(
    ("fall_ill", "identity", "word"),
    [
        (rule_before_ours, "G112", "from 10.132.0.0/14 lookup"),
        (mark_on_all_packets, "G301", "0x4000"),
        (uplink_down, "G114", "enp7s0"),
        (link_of_the_script, "G210", "macvlan-old"),
    ],
)
def test_a_sick_machine_is_found_and_a_mended_one_is_well_again(
    served: Rig, fall_ill: Callable[[Rig], Callable[[], object]], identity: str, word: str
) -> None:
    mend = fall_ill(served)
    try:
        _, found = troubles(served)
        assert identity in found
        assert any(word in text for text in found[identity].values())
    finally:
        mend()
    until(lambda: identity not in troubles(served)[1], f"{identity} is well again")

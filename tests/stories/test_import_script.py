"""A machine that the former script has set up: macvlan-ns-blue and macvlan-ns-red on enp1s0, egress IPs on enp7s0.

next hops 192.168.99.13 and .14, egress IPs 192.168.55.113 and .114, marks 10 and 20, guard 10.128.0.0/14; the nodes'
pods are in 10.132.0.0/24 and 10.132.1.0/24, behind 192.168.99.21 and .22.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from outgate.model.firewall import IptablesRule, Variant
from outgate.model.host import Macvlan
from outgate.model.intent import InnerInterface, NextHopIdentity, SourceCheck
from outgate.model.net import HostAddress, LinkName, Mac, Route, Via
from outgate.model.why import Severity
from outgate.plan.import_script import Imported, Leftovers, import_script
from outgate.plan.script_rules import obsolete, script_rules
from outgate.systems.iptables.save import parse

ENP1S0, ENP7S0 = LinkName("enp1s0"), LinkName("enp7s0")
BLUE_LINK, RED_LINK = LinkName("macvlan-ns-blue"), LinkName("macvlan-ns-red")
MANGLE = {
    "blue": "-A PREROUTING -i macvlan-ns-blue -j MARK --set-xmark 0xa/0xffffffff",
    "red": "-A PREROUTING -i macvlan-ns-red -j MARK --set-xmark 0x14/0xffffffff",
}
NAT = {
    "blue": "-A POSTROUTING -o enp7s0 -m mark --mark 0xa -j SNAT --to-source 192.168.55.113",
    "red": "-A POSTROUTING -o enp7s0 -m mark --mark 0x14 -j SNAT --to-source 192.168.55.114",
}
GUARD = (
    "-A FORWARD -s 10.128.0.0/14 -i enp1s0 -o enp7s0 -m mark --mark 0x0 -j REJECT --reject-with icmp-port-unreachable"
)


def rules(
    *,
    mangle: tuple[str, ...] = tuple(MANGLE.values()),
    nat: tuple[str, ...] = tuple(NAT.values()),
    filter_: tuple[str, ...] = (GUARD,),
    version: int = 4,
    variant: Variant = Variant.NFT,
) -> tuple[IptablesRule, ...]:
    lines = ["*mangle", *mangle, "COMMIT", "*nat", *nat, "COMMIT", "*filter", *filter_, "COMMIT"]
    return parse("\n".join(lines), version=version, variant=variant).rules


def address(link: LinkName, text: str) -> HostAddress:
    ip, _, length = text.partition("/")
    return HostAddress(link=link, address=ip_address(ip), prefix_len=int(length))


def route(dst: str, via: str) -> Route:
    return Route(dst=ip_network(dst), hop=Via(address=ip_address(via), link=ENP1S0))


SCRIPTED = Leftovers(
    macvlans=(
        Macvlan(name=BLUE_LINK, parent=ENP1S0, mac=Mac("ce:4a:63:57:b2:78")),
        Macvlan(name=RED_LINK, parent=ENP1S0, mac=Mac("c2:aa:17:c5:35:84")),
    ),
    rules=rules(),
    addresses=frozenset(
        {
            address(ENP1S0, "192.168.99.12/24"),
            address(ENP7S0, "192.168.55.12/24"),
            address(BLUE_LINK, "192.168.99.13/32"),
            address(RED_LINK, "192.168.99.14/32"),
            address(ENP7S0, "192.168.55.113/32"),
            address(ENP7S0, "192.168.55.114/32"),
        }
    ),
    routes=frozenset({route("10.132.0.0/24", "192.168.99.21"), route("10.132.1.0/24", "192.168.99.22")}),
)


def reasons(imported: Imported, severity: Severity | None = None) -> list[str]:
    return [finding.reason for finding in imported.findings if severity in (None, finding.severity)]


def text_of(imported: Imported, reason: str) -> str:
    return " | ".join(f"{f.about} {f.text} {f.fix}" for f in imported.findings if f.reason == reason)


def gone(standing: tuple[IptablesRule, ...]) -> tuple[IptablesRule, ...]:
    """The rules that are obsolete once both tenants are adopted."""
    egress = (ip_address("192.168.55.113"), ip_address("192.168.55.114"))
    return obsolete(script_rules(standing), links=(BLUE_LINK, RED_LINK), egress=egress, nics=(ENP1S0,))


def without(left: Leftovers, *gone: HostAddress) -> Leftovers:
    return replace(left, addresses=left.addresses - set(gone))


def test_what_the_script_serves_becomes_one_gateway_and_its_tenants() -> None:
    imported = import_script(SCRIPTED, gateway="gw1")

    assert imported.gateway is not None
    assert imported.gateway.inner == (InnerInterface(interface=ENP1S0),)
    assert imported.gateway.uplinks == (ENP7S0,)
    assert imported.gateway.cluster_networks == (ip_network("10.128.0.0/14"),)
    blue, red = imported.tenants
    assert (blue.name, blue.gateway, blue.uplink, blue.source_check) == (
        "ns-blue",
        "gw1",
        ENP7S0,
        SourceCheck.NODE_SUBNETS,
    )
    assert blue.identity == NextHopIdentity(addresses=(ip_address("192.168.99.13"),), interface=ENP1S0)
    assert (blue.egress_ips, red.egress_ips) == ((ip_address("192.168.55.113"),), (ip_address("192.168.55.114"),))
    assert blue.namespace_selector is None
    assert not imported.refused
    assert {name: link.name for name, link in imported.links.items()} == {"ns-blue": BLUE_LINK, "ns-red": RED_LINK}
    assert imported.egress == ((ENP7S0, ip_address("192.168.55.113")), (ENP7S0, ip_address("192.168.55.114")))


def test_pods_outside_the_scripts_guard_are_named_with_where_the_guard_ends() -> None:
    imported = import_script(SCRIPTED)

    assert reasons(imported) == ["GuardTooNarrow", "GuardTooNarrow"]
    assert "10.132.0.0/24 via 192.168.99.21" in text_of(imported, "GuardTooNarrow")
    assert "10.131.255.255" in text_of(imported, "GuardTooNarrow")


def test_a_script_without_its_guard_is_told_that_it_leaks() -> None:
    imported = import_script(replace(SCRIPTED, rules=rules(filter_=())))

    assert reasons(imported) == ["GuardMissing"]
    assert imported.gateway is not None
    assert imported.gateway.cluster_networks == ()


def test_a_machine_without_leftovers_gives_no_gateway() -> None:
    assert import_script(Leftovers()) == Imported()


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (replace(SCRIPTED, rules=rules(mangle=(MANGLE["blue"],))), "MarkMissing"),
        (replace(SCRIPTED, rules=rules(nat=(NAT["blue"],))), "TranslationMissing"),
        (without(SCRIPTED, address(RED_LINK, "192.168.99.14/32")), "NextHopMissing"),
        (replace(SCRIPTED, addresses=SCRIPTED.addresses | {address(RED_LINK, "192.168.99.15/32")}), "NextHopsSeveral"),
        (
            replace(
                without(SCRIPTED, address(RED_LINK, "192.168.99.14/32")),
                addresses=without(SCRIPTED, address(RED_LINK, "192.168.99.14/32")).addresses
                | {address(RED_LINK, "192.168.99.14/24")},
            ),
            "NextHopNotHost",
        ),
        (
            replace(SCRIPTED, rules=rules(nat=(NAT["blue"], NAT["red"].replace("55.114", "55.12")))),
            "EgressIPIsHost",
        ),
    ],
    ids=["no mark", "no translation", "no next hop", "two next hops", "a subnet", "the machine's own address"],
)
def test_a_tenant_that_is_not_whole_is_refused_and_the_others_are_imported(left: Leftovers, reason: str) -> None:
    imported = import_script(left)

    assert reason in reasons(imported, Severity.REFUSAL)
    assert [tenant.name for tenant in imported.tenants] == ["ns-blue"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"mangle": (MANGLE["blue"], MANGLE["red"].replace("0x14", "0xa"))}, "mark 0xa"),
        ({"nat": (NAT["blue"], NAT["red"].replace("55.114", "55.113"))}, "egress IP 192.168.55.113"),
    ],
    ids=["one mark", "one egress IP"],
)
def test_two_tenants_that_share_what_tells_them_apart_are_both_refused(
    changed: dict[str, tuple[str, ...]], what: str
) -> None:
    imported = import_script(
        replace(
            SCRIPTED,
            rules=rules(
                mangle=changed.get("mangle", tuple(MANGLE.values())), nat=changed.get("nat", tuple(NAT.values()))
            ),
        )
    )

    assert imported.tenants == ()
    assert imported.gateway is None
    assert reasons(imported, Severity.REFUSAL) == ["Shared", "Shared"]
    assert what in text_of(imported, "Shared")


def test_of_contradicting_marks_the_last_is_in_force_and_of_translations_the_first() -> None:
    mangle = (MANGLE["blue"].replace("0xa", "0x63"), *MANGLE.values())
    nat = (*NAT.values(), NAT["blue"].replace("55.113", "55.115"))

    imported = import_script(replace(SCRIPTED, rules=rules(mangle=mangle, nat=nat)))

    assert imported.tenants[0].egress_ips == (ip_address("192.168.55.113"),)
    assert reasons(imported, Severity.WARNING)[:2] == ["RulesContradict", "RulesContradict"]
    assert "in force is 0xa" in text_of(imported, "RulesContradict")


def test_contradicting_rules_of_the_two_iptables_have_no_order_and_are_refused() -> None:
    legacy = rules(mangle=(), nat=(NAT["red"].replace("55.114", "55.120"),), filter_=(), variant=Variant.LEGACY)

    imported = import_script(replace(SCRIPTED, rules=(*SCRIPTED.rules, *legacy)))

    assert reasons(imported, Severity.REFUSAL) == ["RulesContradict"]
    assert [tenant.name for tenant in imported.tenants] == ["ns-blue"]


def test_rules_that_the_script_inserted_twice_are_one_tenants_and_all_are_removed_later() -> None:
    imported = import_script(replace(SCRIPTED, rules=rules(mangle=(*MANGLE.values(), MANGLE["blue"]))))

    assert reasons(imported, Severity.NOTE) == ["RuleTwice"]
    assert [rule.line for rule in gone(rules(mangle=(*MANGLE.values(), MANGLE["blue"])))].count(MANGLE["blue"]) == 2


def test_what_has_no_counterpart_is_named_and_left_alone() -> None:
    green = MANGLE["red"].replace("ns-red", "ns-green").replace("0x14", "0x1e")
    yellow = NAT["red"].replace("0x14", "0x28").replace("55.114", "55.121")
    stray = address(ENP7S0, "192.168.55.130/32")

    imported = import_script(
        replace(
            SCRIPTED,
            rules=rules(mangle=(*MANGLE.values(), green), nat=(*NAT.values(), yellow)),
            addresses=SCRIPTED.addresses | {stray},
        )
    )

    assert reasons(imported).count("Orphan") == 3
    for word in ("macvlan-ns-green", "0x28", "192.168.55.130/32"):
        assert word in text_of(imported, "Orphan")
    assert len(imported.tenants) == 2


def test_only_rules_that_nobody_needs_any_more_are_obsolete() -> None:
    green = MANGLE["red"].replace("ns-red", "ns-green").replace("0x14", "0x1e")
    yellow = NAT["red"].replace("0x14", "0x28").replace("55.114", "55.121")
    other = GUARD.replace("enp1s0", "eth5")

    found = gone(rules(mangle=(*MANGLE.values(), green), nat=(*NAT.values(), yellow), filter_=(GUARD, other)))

    assert [rule.line for rule in found] == [*MANGLE.values(), *NAT.values(), GUARD]


def test_an_egress_ip_that_is_not_on_its_nic_is_imported_with_a_warning() -> None:
    imported = import_script(without(SCRIPTED, address(ENP7S0, "192.168.55.114/32")))

    assert "EgressIPMissing" in reasons(imported, Severity.WARNING)
    assert len(imported.tenants) == 2


def test_ipv6_host_addresses_are_imported_with_rules_of_their_own_and_autoconfigured_ones_are_not() -> None:
    six = rules(
        mangle=(MANGLE["blue"],),
        nat=(NAT["blue"].replace("192.168.55.113", "fd55::113"),),
        filter_=(),
        version=6,
    )
    addresses = {
        address(BLUE_LINK, "fd99::13/128"),
        address(BLUE_LINK, "fd99::cc4a:63ff:fe57:b278/64"),
        address(BLUE_LINK, "fe80::1/64"),
        address(ENP7S0, "fd55::113/128"),
    }

    imported = import_script(replace(SCRIPTED, rules=(*SCRIPTED.rules, *six), addresses=SCRIPTED.addresses | addresses))

    blue = imported.tenants[0]
    assert isinstance(blue.identity, NextHopIdentity)
    assert blue.identity.addresses == (ip_address("192.168.99.13"), ip_address("fd99::13"))
    assert blue.egress_ips == (ip_address("192.168.55.113"), ip_address("fd55::113"))
    assert "AddressIgnored" in reasons(imported, Severity.NOTE)


def test_a_rule_that_asks_for_more_than_the_scripts_own_is_not_the_scripts() -> None:
    narrowed = NAT["red"].replace("-j SNAT", "-p tcp -j SNAT")
    ranged = NAT["blue"].replace("192.168.55.113", "192.168.55.113-192.168.55.115")

    imported = import_script(replace(SCRIPTED, rules=rules(nat=(ranged, narrowed))))

    assert imported.tenants == ()
    assert reasons(imported, Severity.REFUSAL) == ["TranslationMissing", "TranslationMissing"]


def test_a_name_that_no_object_can_have_is_refused() -> None:
    odd = replace(SCRIPTED.macvlans[0], name=LinkName("macvlan-Ns_Blue"))

    imported = import_script(replace(SCRIPTED, macvlans=(odd, SCRIPTED.macvlans[1])))

    assert "NameUnfit" in reasons(imported, Severity.REFUSAL)
    assert [tenant.name for tenant in imported.tenants] == ["ns-red"]

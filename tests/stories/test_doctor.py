"""The gateway of the stories is healthy, and then one thing at a time is wrong with it, its machine, or its cluster.

pods 10.132.0.0/14 and fd01::/48, nodes 192.168.99.0/24, egress 192.168.55.0/24; tenants ns-blue and ns-red.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

import pytest

from outgate.model.check import Check, Grade
from outgate.model.firewall import Firewall, MaskedMark, SourceNat, Variant
from outgate.model.host import Conntrack, Firewalld, Host, Macvlan, Networkd, NftablesService, NmService
from outgate.model.intent import EgressIP, EgressTenant, ExternalRoute, InnerInterface, Intent, NextHopIdentity
from outgate.model.ledger import Adoption, Ledger
from outgate.model.net import (
    ALL_LINKS,
    MAIN,
    HostAddress,
    Link,
    LinkName,
    LinkSetting,
    Mac,
    Mark,
    Route,
    Rule,
    Setting,
    TableId,
    TenantLink,
    Via,
)
from outgate.model.ruleset import Element, Table
from outgate.model.state import Desired, Facts, Reading, Resource, Snapshot
from outgate.plan.doctor.examine import examine, reference
from outgate.plan.gateway import plan
from outgate.systems.iptables.rules import hook_chains, mark_uses, source_nats
from outgate.systems.iptables.save import parse
from tests.stories.cluster import (
    BLUE,
    CLUSTER,
    DIGEST,
    ENP1S0,
    ENP7S0,
    GATEWAY,
    GREEN_BY_SOURCE,
    MACHINE,
    in_namespace,
    probed,
)

HEALTHY = Host(kernel=(6, 1, 0), nft=(1, 0, 6), conntrack=Conntrack(count=10, maximum=262144))
QUIET = Firewall()
SETTLED = MappingProxyType({(link, setting): 0 for link in (ENP1S0, ENP7S0, ALL_LINKS) for setting in Setting})


def firewall(text: str) -> Firewall:
    """Return the firewall that a listing of iptables-save describes."""
    saved = parse(text, version=4, variant=Variant.NFT)
    return Firewall(
        rules=saved.rules,
        chains=tuple(hook_chains(saved, version=4, variant=Variant.NFT)),
        nats=tuple(source_nats(saved.rules)),
        marks=tuple(mark_uses(saved.rules)),
    )


def table(name: str, *lines: str) -> str:
    return "\n".join([f"*{name}", *lines, "COMMIT"])


def examined(
    intent: Intent = CLUSTER,
    *,
    facts: Facts = MACHINE,
    host: Host = HEALTHY,
    foreign: Firewall = QUIET,
    changed: dict[tuple[LinkName, Setting], int] | None = None,
    lost: tuple[type[Resource], ...] = (),
    extra: frozenset[Resource] = frozenset(),
    ledger: Ledger | None = None,
) -> dict[str, list[Check]]:
    """Return the troubles by id, of a machine where the plan is in force but for what was `lost` or is `extra`."""
    known = probed(ledger or Ledger(), intent, facts)
    snapshot = Snapshot(intent=intent, facts=facts, ledger=known, gateway="")
    wanted = plan(snapshot, DIGEST)
    checks = examine(snapshot, wanted, reading(wanted, facts, changed or {}, lost, extra), host, foreign)
    troubled: dict[str, list[Check]] = {}
    for check in checks:
        if check.grade is not Grade.OK:
            troubled.setdefault(check.id, []).append(check)
    return troubled


def reading(
    wanted: Desired,
    facts: Facts,
    changed: dict[tuple[LinkName, Setting], int],
    lost: tuple[type[Resource], ...],
    extra: frozenset[Resource],
) -> Reading:
    actual = frozenset(r for r in wanted.wants if not isinstance(r, (LinkSetting, *lost))) | extra
    settings = {
        **SETTLED,
        **{(r.link, r.setting): r.value for r in wanted.wants if isinstance(r, LinkSetting)},
        **changed,
    }
    return Reading(facts=replace(facts, settings=MappingProxyType(settings)), actual=actual)


def only(troubled: dict[str, list[Check]], identity: str) -> Check:
    """Return the one trouble, which is of this check."""
    assert {name: [(c.about, c.text) for c in checks] for name, checks in troubled.items() if name != identity} == {}
    (check,) = troubled[identity]
    assert check.text
    return check


def test_a_healthy_gateway_has_no_troubles_and_every_check_is_told() -> None:
    known = probed(Ledger(), CLUSTER, MACHINE)
    snapshot = Snapshot(intent=CLUSTER, facts=MACHINE, ledger=known, gateway="")
    wanted = plan(snapshot, DIGEST)

    checks = examine(snapshot, wanted, reading(wanted, MACHINE, {}, (), frozenset()), HEALTHY, QUIET)

    assert [(check.id, check.text) for check in checks if check.grade is not Grade.OK] == []
    assert [(check.id, check.title) for check in checks if check.id != "G309"] == [
        row for row in reference() if row[0] != "G309"
    ]


def test_ids_are_unique_and_in_order() -> None:
    ids = [identity for identity, _ in reference()]
    assert ids == sorted(set(ids))


def test_before_outgate_is_in_force_its_plan_is_examined_and_the_machine_is_not_blamed() -> None:
    snapshot = Snapshot(intent=CLUSTER, facts=MACHINE, ledger=probed(Ledger(), CLUSTER, MACHINE), gateway="")
    bare = Reading(facts=replace(MACHINE, settings=SETTLED))

    troubled = [check for check in examine(snapshot, plan(snapshot, DIGEST), bare, HEALTHY, QUIET) if check.text]

    assert [(check.id, check.grade) for check in troubled] == [("G101", Grade.WARN)]


def test_a_machine_that_no_gateway_describes_fails_at_once() -> None:
    snapshot = Snapshot(intent=Intent(), facts=MACHINE, ledger=Ledger(), gateway="")

    (check,) = examine(snapshot, plan(snapshot, DIGEST), Reading(facts=MACHINE), HEALTHY, QUIET)

    assert check.grade is Grade.FAIL
    assert "EgressGateway" in check.text


# Guards and routes


def test_a_flushed_ruleset_is_a_failure_while_the_policy_rules_stand() -> None:
    assert only(examined(lost=(Table, Element)), "G101").grade is Grade.FAIL


def test_a_table_that_somebody_changed_is_not_ours() -> None:
    check = only(examined(lost=(Table,), extra=frozenset({Table("another")})), "G101")
    assert (check.grade, check.fix) == (Grade.FAIL, "outgate gateway apply")


def test_a_node_subnet_without_policy_rules_is_named_with_the_layer_that_is_missing() -> None:
    troubled = examined(lost=(Rule,))

    assert {check.about for check in troubled["G102"]} == {"Node/n1", "Node/n2"}
    assert all(check.grade is Grade.FAIL and "policy routing" in check.text for check in troubled["G102"])


def test_the_seeds_cluster_network_does_not_hold_the_seeds_nodes() -> None:
    gateway = replace(GATEWAY, cluster_networks=(ip_network("10.128.0.0/14"),))
    troubled = examined(replace(CLUSTER, network=None, gateways=(gateway,)))

    assert {check.about for check in troubled["G103"]} == {"Node/n1", "Node/n2"}
    assert "10.132.0.0/24" in troubled["G103"][0].text


def test_a_default_route_by_the_inner_nic_fails() -> None:
    inner = Route(dst=ip_network("0.0.0.0/0"), hop=Via(address=ip_address("192.168.99.1"), link=ENP1S0))
    routes = frozenset(r for r in MACHINE.routes if r.dst.version == 6) | {inner}

    check = only(examined(facts=replace(MACHINE, routes=routes)), "G110")

    assert check.grade is Grade.FAIL
    assert "enp1s0" in check.text
    assert "enp7s0" in check.fix


def test_a_nic_that_is_missing_or_down_fails() -> None:
    links = {**MACHINE.links, ENP7S0: replace(MACHINE.links[ENP7S0], up=False)}
    assert only(examined(facts=replace(MACHINE, links=MappingProxyType(links))), "G114").about == "enp7s0"
    gone = MappingProxyType({name: link for name, link in MACHINE.links.items() if name != ENP7S0})
    assert examined(facts=replace(MACHINE, links=gone))["G114"][0].grade is Grade.FAIL


@pytest.mark.parametrize(
    ("rule", "identity", "grade"),
    [
        (Rule(priority=50, version=4, action=TableId(51)), "G112", Grade.FAIL),
        (Rule(priority=50, version=4, action=TableId(51), src=ip_network("10.132.0.0/16")), "G112", Grade.FAIL),
        (Rule(priority=50, version=4, action=TableId(51), more="ipproto 6"), "G112", Grade.WARN),
        (Rule(priority=5210, version=4, action=TableId(52)), "G113", Grade.WARN),
        (Rule(priority=5210, version=4, action=TableId(52), more="not"), "G113", Grade.WARN),
    ],
    ids=["all", "pods", "pods' TCP", "all, later", "all but marked ones, later"],
)
def test_a_foreign_policy_rule_that_takes_pods_elsewhere_is_named(rule: Rule, identity: str, grade: Grade) -> None:
    check = only(examined(facts=replace(MACHINE, rules=frozenset({rule}))), identity)

    assert check.grade is grade
    assert str(rule) in check.about


@pytest.mark.parametrize(
    "rule",
    [
        Rule(priority=0, version=4, action=TableId(255)),
        Rule(priority=50, version=4, action=TableId(51), src=ip_network("172.17.0.0/16")),
        Rule(priority=50, version=4, action=TableId(51), incoming=LinkName("docker0")),
        Rule(priority=50, version=4, action=MAIN, dst=ip_network("10.132.0.0/14")),
        Rule(priority=1000, version=4, action=TableId(0), more="l3mdev"),
        Rule(priority=32764, version=4, action=MAIN, more="suppress_prefixlength 0"),
        Rule(priority=32766, version=4, action=MAIN),
        Rule(priority=32767, version=4, action=TableId(253)),
    ],
    ids=["local", "other sources", "another link", "towards pods", "VRF", "main", "main itself", "default"],
)
def test_a_policy_rule_that_no_pods_packet_meets_is_no_trouble(rule: Rule) -> None:
    assert examined(facts=replace(MACHINE, rules=frozenset({rule}))) == {}


# Other services


def test_networkd_that_deletes_foreign_rules_is_named_with_the_file_that_mends_it() -> None:
    host = replace(HEALTHY, networkd=Networkd(running=True, keeps_routes=True, file="/etc/systemd/networkd.conf"))
    check = only(examined(host=host), "G201")

    assert check.grade is Grade.WARN
    assert "policy rules" in check.text
    assert "routes that" not in check.text
    assert "ManageForeignRoutingPolicyRules=no" in check.fix


@pytest.mark.parametrize(
    "host",
    [
        replace(HEALTHY, networkd=Networkd(running=False)),
        replace(HEALTHY, networkd=Networkd(running=True, keeps_routes=True, keeps_rules=True)),
        replace(HEALTHY, nm=NmService(running=True, unmanaged=("mac:00:11:22:33:44:55", "interface-name:og-*"))),
        replace(HEALTHY, firewalld=Firewalld(running=True, flushes=False)),
        replace(HEALTHY, nftables_service=NftablesService(enabled=False, flushed_by="/etc/nftables.conf")),
    ],
    ids=["networkd stopped", "networkd told", "NetworkManager told", "firewalld told", "nftables disabled"],
)
def test_services_that_leave_us_alone_are_no_trouble(host: Host) -> None:
    assert examined(host=host) == {}


@pytest.mark.parametrize(
    ("host", "identity"),
    [
        (replace(HEALTHY, firewalld=Firewalld(running=True)), "G202"),
        (replace(HEALTHY, nftables_service=NftablesService(enabled=True, flushed_by="/etc/nftables.conf")), "G203"),
        (replace(HEALTHY, nm=NmService(running=True, unmanaged=("interface-name:veth*",))), "G204"),
    ],
    ids=["firewalld", "nftables.service", "NetworkManager"],
)
def test_services_that_undo_other_peoples_work_are_named(host: Host, identity: str) -> None:
    assert only(examined(host=host), identity).grade is Grade.WARN


def test_leftovers_of_the_script_are_named_with_the_command_that_takes_them_over() -> None:
    link = Macvlan(name=LinkName("macvlan-ns-blue"), parent=ENP1S0, mac=Mac("ce:4a:63:57:b2:78"))
    script = firewall(table("mangle", "-A PREROUTING -i macvlan-ns-blue -j MARK --set-xmark 0xa/0xffffffff"))

    check = only(examined(host=replace(HEALTHY, macvlans=(link,)), foreign=script), "G210")

    assert "macvlan-ns-blue" in check.text
    assert "1 iptables rules" in check.text
    assert "outgate gateway import-script" in check.fix


def test_a_link_under_adoption_is_no_leftover() -> None:
    name = LinkName("macvlan-ns-blue")
    link = Macvlan(name=name, parent=ENP1S0, mac=Mac("ce:4a:63:57:b2:78"))
    ledger = Ledger(adopting=MappingProxyType({name: Adoption(tenant="ns-blue", parent=ENP1S0)}))
    links = MappingProxyType({**MACHINE.links, name: Link(name=name, index=9, kind="macvlan", mac=link.mac)})

    assert examined(host=replace(HEALTHY, macvlans=(link,)), facts=replace(MACHINE, links=links), ledger=ledger) == {}


# Other people's firewalls

KUBE_PROXY = table(
    "nat",
    ":PREROUTING ACCEPT [0:0]",
    ":POSTROUTING ACCEPT [0:0]",
    ":KUBE-MARK-MASQ - [0:0]",
    ":KUBE-POSTROUTING - [0:0]",
    "-A POSTROUTING -j KUBE-POSTROUTING",
    "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
    "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
    "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
)


def test_marks_of_kube_proxy_overlap_those_of_tenants_and_its_rule_is_named() -> None:
    (check,) = examined(foreign=firewall(KUBE_PROXY))["G301"]

    assert check.grade is Grade.WARN
    assert "0x4000" in check.text
    assert "KUBE-MARK-MASQ rule 1" in check.about


@pytest.mark.parametrize(
    ("line", "grade"),
    [
        ("-A FORWARD -j MARK --set-xmark 0x1/0xffffffff", Grade.FAIL),
        ("-A FORWARD -i enp1s0 -j MARK --set-xmark 0x100/0x100", Grade.FAIL),
        ("-A FORWARD -p tcp -j MARK --set-xmark 0x100/0x100", Grade.WARN),
        ("-A PREROUTING -j CONNMARK --set-xmark 0x100/0xffffffff", Grade.FAIL),
        ("-A FORWARD -m mark --mark 0x100 -j DROP", Grade.FAIL),
        ("-A FORWARD -m mark --mark 0x4200/0x4200 -j DROP", Grade.WARN),
        ("-A FORWARD -m mark ! --mark 0x0 -j DROP", Grade.FAIL),
    ],
)
def test_a_foreign_rule_that_touches_tenants_marks_is_named(line: str, grade: Grade) -> None:
    check = only(examined(foreign=firewall(table("mangle", line))), "G301")

    assert check.grade is grade
    assert line in check.about


@pytest.mark.parametrize(
    "line",
    [
        "-A PREROUTING -j MARK --set-xmark 0xa/0xffffffff",
        "-A FORWARD -i docker0 -j MARK --set-xmark 0x100/0x100",
        "-A OUTPUT -j MARK --set-xmark 0x100/0x100",
        "-A FORWARD -j MARK --set-xmark 0x1000000/0xff000000",
        "-A FORWARD -m mark --mark 0x0 -j DROP",
        "-A FORWARD -m mark --mark 0x1000100 -j DROP",
        "-A FORWARD -m mark --mark 0x100 -j ACCEPT",
    ],
    ids=["cleared again", "another link", "the machine's own", "other bits", "nobody's", "no tenant's", "accepted"],
)
def test_a_foreign_rule_that_touches_no_tenants_mark_is_no_trouble(line: str) -> None:
    assert examined(foreign=firewall(table("mangle", line))) == {}


DROPPING = (":FORWARD DROP [0:0]",)


def test_a_forward_chain_that_drops_what_it_does_not_know_fails_with_the_rule_that_lets_tenants_pass() -> None:
    check = only(examined(foreign=firewall(table("filter", *DROPPING))), "G302")

    assert check.grade is Grade.FAIL
    assert check.about == "iptables-nft -t filter, FORWARD"
    assert check.fix == "iptables-nft -t filter -I FORWARD -m connmark ! --mark 0x0/0xffff00 -j ACCEPT"


@pytest.mark.parametrize(
    "lines",
    [
        ("-A FORWARD -m connmark ! --mark 0x0/0xffff00 -j ACCEPT",),
        ("-A FORWARD -m mark ! --mark 0x0/0xffff00 -j ACCEPT",),
        (
            "-A FORWARD -i og-+ -o enp7s0 -j ACCEPT",
            "-A FORWARD -i enp1s0 -o enp7s0 -j ACCEPT",
            "-A FORWARD -i enp7s0 -j ACCEPT",
        ),
        (
            "-A FORWARD -o enp7s0 -j ACCEPT",
            "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ),
    ],
    ids=["by flow", "by mark", "by link", "replies by state"],
)
def test_a_forward_chain_that_lets_tenants_pass_both_ways_is_no_trouble(lines: tuple[str, ...]) -> None:
    assert examined(foreign=firewall(table("filter", *DROPPING, *lines))) == {}


def test_a_forward_chain_that_lets_only_replies_pass_is_told_which_way_is_closed() -> None:
    line = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    check = only(examined(foreign=firewall(table("filter", *DROPPING, line))), "G302")

    assert "to outside" in check.text
    assert "back to pods" not in check.text


def test_a_forward_chain_that_asks_other_chains_is_a_warning_only() -> None:
    lines = (*DROPPING, ":DOCKER-USER - [0:0]", "-A FORWARD -j DOCKER-USER")
    assert only(examined(foreign=firewall(table("filter", *lines))), "G302").grade is Grade.WARN


def translating(**words: object) -> Firewall:
    """Return a firewall with one rule that translates earlier than outgate does."""
    nat = SourceNat(place="nft table inet theirs, chain leaving, handle 3", priority=0)
    return Firewall(nats=(replace(nat, **words),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "grade"),
    [
        ({"outgoing": "enp7s0"}, Grade.FAIL),
        ({"src": ip_network("10.132.0.0/16")}, Grade.FAIL),
        ({"outgoing": "enp*", "conditional": True}, Grade.WARN),
    ],
    ids=["all", "pods", "some"],
)
def test_a_foreign_rule_that_translates_pods_first_is_named(words: dict[str, object], grade: Grade) -> None:
    check = only(examined(foreign=translating(**words)), "G303")
    assert check.grade is grade
    assert check.about == "nft table inet theirs, chain leaving, handle 3"


@pytest.mark.parametrize(
    "words",
    [
        {"src": ip_network("172.17.0.0/16")},
        {"outgoing": "wg0"},
        {"incoming": "docker0"},
        {"mark": MaskedMark(value=Mark(0xA))},
        {"priority": 100},
    ],
    ids=["other sources", "another link", "from another link", "another mark", "behind ours, as iptables are"],
)
def test_a_foreign_translation_that_no_tenant_meets_is_no_trouble(words: dict[str, object]) -> None:
    assert examined(foreign=translating(**words)) == {}


def test_what_could_not_be_read_is_said_and_is_no_fault() -> None:
    snapshot = Snapshot(intent=CLUSTER, facts=MACHINE, ledger=probed(Ledger(), CLUSTER, MACHINE), gateway="")
    sentence = "iptables-legacy-save is not installed: rules of that kind, if there are any, were not read"

    checks = examine(snapshot, plan(snapshot, DIGEST), Reading(facts=MACHINE), HEALTHY, Firewall(unread=(sentence,)))

    assert [(check.id, check.grade) for check in checks if check.text == sentence] == [("G309", Grade.OK)]


# Kernel settings and limits


@pytest.mark.parametrize(
    ("changed", "identity", "about"),
    [
        ({(ENP1S0, Setting.RP_FILTER): 1}, "G401", "net.ipv4.conf.enp1s0.rp_filter"),
        (
            {(ENP7S0, Setting.RP_FILTER): 2, (ENP7S0, Setting.SRC_VALID_MARK): 0},
            "G401",
            "net.ipv4.conf.enp7s0.src_valid_mark",
        ),
        ({(ENP1S0, Setting.ARP_IGNORE): 0}, "G402", "net.ipv4.conf.enp1s0.arp_ignore"),
        ({(ENP7S0, Setting.FORWARDING): 0}, "G403", "net.ipv4.conf.enp7s0.forwarding"),
        ({(ALL_LINKS, Setting.FORWARDING6): 0}, "G403", "net.ipv6.conf.all.forwarding"),
        ({(ENP7S0, Setting.ACCEPT_RA): 1}, "G403", "net.ipv6.conf.enp7s0.accept_ra"),
    ],
)
def test_a_kernel_setting_that_keeps_tenants_out_is_named(
    changed: dict[tuple[LinkName, Setting], int], identity: str, about: str
) -> None:
    assert only(examined(changed=changed), identity).about == about


def test_an_arp_rule_of_all_links_that_silences_lone_addresses_is_named_at_its_place() -> None:
    troubled = examined(changed={(ALL_LINKS, Setting.ARP_IGNORE): 2})
    assert {check.about for check in troubled["G402"]} == {"net.ipv4.conf.all.arp_ignore"}


def test_a_strict_filter_of_all_links_is_outweighed_by_the_loose_one_of_the_nic() -> None:
    assert examined(changed={(ALL_LINKS, Setting.RP_FILTER): 1}) == {}


@pytest.mark.parametrize(
    ("conntrack", "grade"),
    [
        (Conntrack(count=96, maximum=100), Grade.FAIL),
        (Conntrack(count=85, maximum=100), Grade.WARN),
        (Conntrack(count=1, maximum=2000), Grade.WARN),
    ],
    ids=["full", "filling", "small for two tenants"],
)
def test_connection_tracking_without_room_is_told_with_a_better_size(conntrack: Conntrack, grade: Grade) -> None:
    check = only(examined(host=replace(HEALTHY, conntrack=conntrack)), "G404")
    assert check.grade is grade
    assert "sysctl -w net.netfilter.nf_conntrack_max=" in check.fix


@pytest.mark.parametrize(
    ("host", "grade"),
    [
        (replace(HEALTHY, kernel=(4, 18)), Grade.FAIL),
        (replace(HEALTHY, kernel=(5, 14, 0)), Grade.WARN),
        (replace(HEALTHY, nft=()), Grade.FAIL),
        (replace(HEALTHY, nft=(1, 0, 4)), Grade.WARN),
    ],
    ids=["RHEL 8", "RHEL 9", "no nft", "an old nft"],
)
def test_old_programs_are_named_with_their_version(host: Host, grade: Grade) -> None:
    assert only(examined(host=host), "G405").grade is grade


def test_an_uplink_with_a_smaller_mtu_is_named() -> None:
    links = {**MACHINE.links, ENP1S0: replace(MACHINE.links[ENP1S0], mtu=9000)}
    check = only(examined(facts=replace(MACHINE, links=MappingProxyType(links))), "G406")
    assert (check.about, "9000" in check.text) == ("enp7s0", True)


def test_a_tenants_link_at_fault_is_named_with_what_is_wrong() -> None:
    known = probed(Ledger(), CLUSTER, MACHINE).tenants["ns-red"]
    down = TenantLink(name=known.link, parent=ENP1S0, mac=known.mac, alternative="outgate-ns-red", fault="down")
    check = only(examined(extra=frozenset({down})), "G407")
    assert "down" in check.text


def test_more_tenant_links_than_broadcasts_allow_are_counted() -> None:
    def tenant(number: int) -> EgressTenant:
        hop, egress = ip_address("192.168.96.0") + number, ip_address("192.168.56.0") + number
        return EgressTenant(name=f"t{number}", identity=NextHopIdentity(addresses=(hop,)), egress_ips=(egress,))

    intent = replace(CLUSTER, tenants=tuple(map(tenant, range(401))), external_routes=())
    troubled = examined(intent)

    assert "401 tenant links" in troubled["G408"][0].text
    assert troubled["G408"][0].about == "enp1s0"


# The cluster


def test_a_next_hop_that_is_no_tenants_is_named_with_the_namespaces_that_use_it() -> None:
    stray = ExternalRoute(
        name="green", namespace_selector=in_namespace("ns-green"), next_hops=(ip_address("192.168.99.15"),)
    )
    check = only(examined(replace(CLUSTER, external_routes=(*CLUSTER.external_routes, stray))), "G501")

    assert check.about == "AdminPolicyBasedExternalRoute/green"
    assert "ns-green" in check.text
    assert check.grade is Grade.WARN


def test_a_next_hop_that_is_the_machines_own_address_fails() -> None:
    own = ExternalRoute(
        name="green", namespace_selector=in_namespace("ns-green"), next_hops=(ip_address("192.168.99.12"),)
    )
    assert only(examined(replace(CLUSTER, external_routes=(*CLUSTER.external_routes, own))), "G501").grade is Grade.FAIL


def test_a_next_hop_on_another_lan_is_another_gateways_business() -> None:
    far = ExternalRoute(
        name="green", namespace_selector=in_namespace("ns-green"), next_hops=(ip_address("192.168.77.15"),)
    )
    assert examined(replace(CLUSTER, external_routes=(*CLUSTER.external_routes, far))) == {}


def test_a_tenant_that_the_cluster_sends_nothing_is_named() -> None:
    intent = replace(CLUSTER, external_routes=CLUSTER.external_routes[:1])
    assert only(examined(intent), "G502").about == "EgressTenant/ns-red"


def test_a_source_tenant_whose_namespaces_use_no_shared_next_hop_is_named() -> None:
    shared = replace(
        GATEWAY, inner=(InnerInterface(interface=ENP1S0, shared_next_hops=(ip_address("192.168.99.11"),)),)
    )
    intent = replace(CLUSTER, gateways=(shared,), tenants=(*CLUSTER.tenants, GREEN_BY_SOURCE))

    check = only(examined(intent), "G502")

    assert (check.about, "ns-green" in check.text) == ("EgressTenant/ns-green", True)


def test_a_namespace_with_both_a_route_and_an_egress_ip_is_named_with_the_one_that_wins() -> None:
    both = EgressIP(name="blue", egress_ips=(ip_address("192.168.55.200"),), namespace_selector=in_namespace("ns-blue"))
    check = only(examined(replace(CLUSTER, egress_ips=(both,))), "G503")

    assert check.about == "EgressIP/blue"
    assert "AdminPolicyBasedExternalRoute/blue" in check.text


def test_an_egress_ip_that_another_mac_answers_for_fails_with_the_mac() -> None:
    conflicts = MappingProxyType({ip_address("192.168.55.113"): Mac("52:54:00:aa:01:02")})
    check = only(examined(facts=replace(MACHINE, conflicts=conflicts)), "G504")

    assert check.grade is Grade.FAIL
    assert "52:54:00:aa:01:02" in check.text


def test_whatever_else_the_plan_refuses_is_told_as_well() -> None:
    taken = replace(BLUE, name="ns-thief")
    troubled = examined(replace(CLUSTER, tenants=(*CLUSTER.tenants, taken)))

    assert [check.about for check in troubled["G900"]] == ["EgressTenant/ns-thief"]
    assert troubled["G900"][0].grade is Grade.FAIL


def test_addresses_of_the_old_link_are_no_strangers_while_it_is_adopted() -> None:
    old = LinkName("macvlan-ns-blue")
    ledger = Ledger(adopting=MappingProxyType({old: Adoption(tenant="ns-blue", parent=ENP1S0)}))
    links = MappingProxyType(
        {**MACHINE.links, old: Link(name=old, index=9, kind="macvlan", mac=Mac("ce:4a:63:57:b2:78"))}
    )
    here = MACHINE.addresses | {HostAddress(link=old, address=ip_address("192.168.99.13"), prefix_len=32)}

    assert examined(facts=replace(MACHINE, links=links, addresses=here), ledger=ledger) == {}

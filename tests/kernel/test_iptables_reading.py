"""A machine with three firewalls at once: iptables-nft, iptables-legacy, foreign nftables; outgate's table beside them.

All of it is written by the real programs, in a namespace, and read back by `systems.iptables`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from outgate.lab.namespace import Namespace
from outgate.model.errors import Refused
from outgate.model.firewall import WHOLE_MARK, Acceptance, Firewall, MarkKind, MarkUse, MaskedMark, Variant
from outgate.model.net import Mark
from outgate.systems.iptables import read, write

MARK_RULE = "-i macvlan-ns-blue -j MARK --set-mark 10"
SNAT_RULE = "-o enp7s0 -m mark --mark 10 -j SNAT --to-source 192.168.55.113"
GUARD_RULE = "-i enp1s0 -o enp7s0 -s 10.128.0.0/14 -m mark --mark 0 -j REJECT"
NFTABLES = """
table inet outgate {
  chain forward { type filter hook forward priority 0; policy drop; meta mark 0x100 accept; }
}
table inet theirs {
  map by_link { type ifname : mark; }
  chain mangled {
    type filter hook prerouting priority mangle;
    iifname { "eth1", "eth2" } meta mark set meta mark & 0xffff00ff | 0x4200
    meta mark set meta mark & 0xfffffff0 ^ 0x3
    meta mark set iifname map @by_link
    ct mark set ct mark | 0x4
  }
  chain passing {
    type filter hook forward priority filter;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname "enp7s0" ct state { established, related } accept
    oifname "enp1s0" accept
    meta mark & 0xffff00 != 0x0 accept
    ip saddr 10.0.0.0/8 accept
    ct mark 0x7 drop
    meta mark != { 1, 2 } drop
    counter reject
  }
  chain leaving {
    type nat hook postrouting priority srcnat;
    ip saddr 10.128.0.0/14 oifname "enp*" masquerade
    ip daddr 203.0.113.0/24 snat ip to 192.168.55.12
  }
}
"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("firewalls") as made:
        yield made


def iptables(namespace: Namespace, table: str, rule: str, program: str = "iptables-nft") -> None:
    namespace.run((program, "-t", table, *rule.split()))


def reading(namespace: Namespace, path: str | None = None) -> Firewall:
    with namespace.inside():
        return read.read(path) if path is not None else read.read()


def test_a_machine_without_rules_reads_as_empty_and_nothing_stays_unread(namespace: Namespace) -> None:
    assert reading(namespace) == Firewall()


@pytest.mark.parametrize(
    ("program", "variant"), [("iptables-nft", Variant.NFT), ("iptables-legacy", Variant.LEGACY)], ids=["nft", "legacy"]
)
def test_the_scripts_three_rules_are_read_from_either_variant(
    namespace: Namespace, program: str, variant: Variant
) -> None:
    iptables(namespace, "mangle", f"-I PREROUTING {MARK_RULE}", program)
    iptables(namespace, "nat", f"-I POSTROUTING {SNAT_RULE}", program)
    iptables(namespace, "filter", f"-I FORWARD {GUARD_RULE}", program)

    rules = {rule.table: rule for rule in reading(namespace).rules}

    assert {(rule.version, rule.variant, rule.number, rule.more) for rule in rules.values()} == {(4, variant, 1, ())}
    mark, snat, guard = rules["mangle"], rules["nat"], rules["filter"]
    assert (mark.incoming, mark.target, mark.argument("--set-xmark")) == ("macvlan-ns-blue", "MARK", "0xa/0xffffffff")
    assert (snat.outgoing, snat.mark) == ("enp7s0", MaskedMark(value=Mark(10)))
    assert (snat.target, snat.argument("--to-source")) == ("SNAT", "192.168.55.113")
    assert (guard.incoming, guard.outgoing, guard.target) == ("enp1s0", "enp7s0", "REJECT")
    assert (guard.src, guard.mark) == (ip_network("10.128.0.0/14"), MaskedMark(value=Mark(0)))
    assert guard.line.startswith("-A FORWARD -s 10.128.0.0/14 -i enp1s0")


def test_rules_of_both_variants_and_both_families_live_side_by_side(namespace: Namespace) -> None:
    for program in ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"):
        iptables(namespace, "mangle", "-A PREROUTING -j MARK --set-mark 1", program)
        iptables(namespace, "mangle", "-A PREROUTING -j MARK --set-mark 1", program)

    found = {(rule.version, rule.variant, rule.number) for rule in reading(namespace).rules}

    assert found == {(version, variant, number) for version in (4, 6) for variant in Variant for number in (1, 2)}


def test_what_a_negated_match_asks_is_kept_in_words_and_never_taken_for_its_opposite(namespace: Namespace) -> None:
    namespace.run(
        (
            *("iptables-nft", "-t", "mangle", "-A", "PREROUTING", "!", "-i", "eth0", "!", "-s", "10.0.0.0/8"),
            *("-p", "tcp", "-m", "mark", "!", "--mark", "0x4000/0x4000"),
            *("-m", "comment", "--comment", 'it is "x" -j DROP', "-j", "MARK", "--or-mark", "0x10"),
        )
    )

    (rule,) = reading(namespace).rules

    assert (rule.incoming, rule.src) == ("", None)
    assert {"! -i eth0", "! -s 10.0.0.0/8", "-p tcp", '--comment it is "x" -j DROP'} <= set(rule.more)
    assert rule.mark == MaskedMark(value=Mark(0x4000), mask=Mark(0x4000), negated=True)
    assert (rule.target, rule.argument("--set-xmark")) == ("MARK", "0x10/0x10")


def test_each_mark_that_iptables_reads_or_writes_is_known_by_its_bits(namespace: Namespace) -> None:
    for rule in (
        "-A PREROUTING -j CONNMARK --restore-mark --mask 0xff",
        "-A PREROUTING -j CONNMARK --save-mark",
        "-A PREROUTING -j MARK --and-mark 0xf",
        "-A FORWARD -i eth9 -m connmark --mark 0x3/0xf -j DROP",
    ):
        iptables(namespace, "mangle", rule)

    marks = reading(namespace).marks

    assert [(use.kind, use.writes, use.value, use.mask, use.hook, use.effect) for use in marks] == [
        (MarkKind.PACKET, True, 0, 0xFF, "prerouting", "CONNMARK"),
        (MarkKind.FLOW, True, 0, WHOLE_MARK, "prerouting", "CONNMARK"),
        (MarkKind.PACKET, True, 0, 0xFFFFFFF0, "prerouting", "MARK"),
        (MarkKind.FLOW, False, 3, 0xF, "forward", "DROP"),
    ]
    assert {use.priority for use in marks} == {-150}
    assert marks[-1].incoming == ("eth9",)
    assert "iptables-nft -t mangle, FORWARD rule 1" in marks[-1].place


def test_marks_in_foreign_nftables_are_known_by_their_bits_and_outgates_own_table_is_not_foreign(
    namespace: Namespace,
) -> None:
    namespace.run(("nft", "-f", "-"), input=NFTABLES)

    marks = reading(namespace).marks

    def bits(use: MarkUse) -> tuple[MarkKind, bool, int, int, str]:
        return use.kind, use.writes, use.value, use.mask, use.effect

    assert [bits(use) for use in marks] == [
        (MarkKind.PACKET, True, 0x4200, 0xFF00 | 0x4200, "mangle"),
        (MarkKind.PACKET, True, 0x3, 0xF, "mangle"),
        (MarkKind.PACKET, True, 0, WHOLE_MARK, "mangle"),
        (MarkKind.FLOW, True, 0x4, 0x4, "mangle"),
        (MarkKind.PACKET, False, 0, 0xFFFF00, "accept"),
        (MarkKind.FLOW, False, 0x7, WHOLE_MARK, "drop"),
        (MarkKind.PACKET, False, 0, 0, "drop"),
    ]
    assert marks[0].incoming == ("eth1", "eth2")
    assert marks[4].negated
    assert (marks[0].hook, marks[0].priority) == ("prerouting", -150)
    assert marks[0].place.startswith("nft table inet theirs, chain mangled, handle ")


def test_a_forward_chain_that_ends_in_a_refusal_refuses_and_says_what_it_lets_pass(namespace: Namespace) -> None:
    namespace.run(("nft", "-f", "-"), input=NFTABLES)
    iptables(namespace, "filter", "-P FORWARD DROP", "iptables-legacy")
    for rule in (
        "-A FORWARD -i og-+ -o enp7s0 -j ACCEPT",
        "-A FORWARD -i enp7s0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -p tcp -j ACCEPT",
        "-N LOOK",
        "-A FORWARD -j LOOK",
    ):
        iptables(namespace, "filter", rule, "iptables-legacy")

    chains = {chain.place: chain for chain in reading(namespace).chains if chain.hook == "forward"}

    legacy, theirs = chains["iptables-legacy -t filter, FORWARD"], chains["nft table inet theirs, chain passing"]
    assert (legacy.refuses, legacy.jumps) == (True, True)
    assert legacy.accepts == (
        Acceptance(incoming="og-+", outgoing="enp7s0"),
        Acceptance(incoming="enp7s0", established=True),
    )
    assert (theirs.refuses, theirs.jumps) == (True, False)
    assert theirs.accepts == (
        Acceptance(established=True),
        Acceptance(incoming="enp7s0", established=True),
        Acceptance(outgoing="enp1s0"),
        Acceptance(mark=MaskedMark(value=Mark(0), mask=Mark(0xFFFF00), negated=True)),
    )


def test_without_the_programs_of_iptables_a_rule_of_theirs_is_never_read_as_less_than_it_asks(
    namespace: Namespace, tmp_path: Path
) -> None:
    for rule in (
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -m limit --limit 1/s -j ACCEPT",
        "-A FORWARD -m comment --comment pods -i ovn-k8s-mp0 -j ACCEPT",
        "-A FORWARD -j REJECT",
    ):
        iptables(namespace, "filter", rule)
    (tmp_path / "nft").symlink_to(shutil.which("nft") or "")

    (chain,) = (one for one in reading(namespace, str(tmp_path)).chains if one.hook == "forward")

    assert (chain.version, chain.refuses) == (4, True)
    assert set(chain.accepts) <= {Acceptance(established=True), Acceptance(incoming="ovn-k8s-mp0")}
    assert Acceptance(incoming="ovn-k8s-mp0") in chain.accepts


def test_rules_that_change_sources_are_known_by_what_they_ask_for(namespace: Namespace) -> None:
    namespace.run(("nft", "-f", "-"), input=NFTABLES)
    iptables(namespace, "nat", "-A POSTROUTING -o enp7s0 -j MASQUERADE")

    found = [(nat.src, nat.outgoing, nat.conditional, nat.priority) for nat in reading(namespace).nats]

    assert found == [
        (None, "enp7s0", False, 100),
        (ip_network("10.128.0.0/14"), "enp*", False, 100),
        (None, "", True, 100),
    ]


def test_a_program_that_is_not_installed_leaves_its_part_unread_and_the_reading_says_so(
    namespace: Namespace, tmp_path: Path
) -> None:
    for program in ("iptables-nft-save", "ip6tables-nft-save", "nft"):
        (tmp_path / program).symlink_to(Path(shutil.which(program, path="/usr/sbin:/usr/bin") or "").resolve())
    iptables(namespace, "mangle", "-A PREROUTING -j MARK --set-mark 1")

    found = reading(namespace, str(tmp_path))

    assert [rule.target for rule in found.rules] == ["MARK"]
    assert [sentence.split()[0] for sentence in found.unread] == ["iptables-legacy-save", "ip6tables-legacy-save"]


def test_exactly_the_rules_that_are_given_are_removed_and_their_neighbours_stay(namespace: Namespace) -> None:
    for program in ("iptables-nft", "iptables-legacy"):
        for rule in (MARK_RULE, MARK_RULE, "-i eth0 -j MARK --set-mark 10"):
            iptables(namespace, "mangle", f"-A PREROUTING {rule}", program)
        iptables(namespace, "nat", f"-A POSTROUTING {SNAT_RULE}", program)
    ours = [rule for rule in reading(namespace).rules if rule.incoming == "macvlan-ns-blue" or rule.table == "nat"]

    with namespace.inside():
        write.remove(ours)

    assert [(rule.variant, rule.line) for rule in reading(namespace).rules] == [
        (variant, "-A PREROUTING -i eth0 -j MARK --set-xmark 0xa/0xffffffff") for variant in Variant
    ]


def test_a_rule_that_is_gone_meanwhile_leaves_its_table_as_it_was(namespace: Namespace) -> None:
    iptables(namespace, "mangle", f"-A PREROUTING {MARK_RULE}")
    iptables(namespace, "mangle", "-A PREROUTING -i eth0 -j MARK --set-mark 10")
    both = reading(namespace).rules
    iptables(namespace, "mangle", "-D PREROUTING 2")

    with namespace.inside(), pytest.raises(Refused, match="remove 2 rules by iptables-nft-restore"):
        write.remove(both)

    assert [rule.incoming for rule in reading(namespace).rules] == ["macvlan-ns-blue"]

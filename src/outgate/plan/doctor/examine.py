"""The table of checks, and the examination."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from outgate.model.check import Check, Grade
from outgate.model.firewall import Firewall
from outgate.model.host import Host
from outgate.model.state import Desired, Reading, Snapshot
from outgate.model.why import Severity
from outgate.plan.doctor import cluster, firewalls, guard, machine, services
from outgate.plan.doctor.seen import Seen, Trouble, fail, trouble_of

Repeated: TypeAlias = Mapping[str, Grade]  # reason of a finding of the plan: how bad it is
_FAIL, _WARN = Grade.FAIL, Grade.WARN


@dataclass(frozen=True, slots=True)
class Question:
    """One check: its id, which never means anything else, the sentence that should hold, and who looks.

    `repeats` are findings that the plan makes itself and that answer this question: nothing is decided twice.
    """

    id: str
    sentence: str
    ask: Callable[[Seen], Iterable[Trouble]] | None = None
    repeats: Repeated = field(default_factory=dict)


_NETWORKS: Repeated = {"ClusterNetworkUnknown": _WARN, "SubnetOutsideCluster": _WARN, "BypassOverlaps": _FAIL}
_DEFAULTS: Repeated = {"DefaultRouteNotOnUplink": _FAIL, "NoDefaultRoute": _WARN}
_RETURNS: Repeated = {
    "ForeignRoute": _WARN,
    "SubnetMissing": _WARN,
    "NodeAddressMissing": _FAIL,
    "SubnetOverlap": _FAIL,
}
QUESTIONS: tuple[Question, ...] = (
    Question("G101", "outgate is in force, with the table that this program writes", guard.table_stands),
    Question("G102", "every node subnet is guarded by the table and by policy routing", guard.guard_covers_nodes),
    Question("G103", "the cluster network is declared and holds every node subnet", repeats=_NETWORKS),
    Question("G110", "the default route leaves by an uplink", repeats=_DEFAULTS),
    Question("G111", "every node subnet has its return route, and no foreign route decides", repeats=_RETURNS),
    Question("G112", "no foreign policy rule stands before outgate's and matches packets of pods", guard.earlier_rules),
    Question("G113", "no foreign policy rule sends tenants' packets by another table", guard.diverting_rules),
    Question("G114", "the declared NICs are there, up, and have a carrier", guard.links, {"LinkMissing": _FAIL}),
    Question("G201", "systemd-networkd leaves other people's routes and rules alone", services.networkd),
    Question("G202", "firewalld leaves other people's rules alone", services.firewalld),
    Question("G203", "nftables.service does not flush the whole ruleset", services.nftables_service),
    Question("G204", "NetworkManager leaves outgate's links alone", services.nm),
    Question("G210", "no former script has left links or rules behind", services.script_leftovers),
    Question("G301", "no foreign rule uses the marks by which outgate tells tenants", firewalls.foreign_marks),
    Question("G302", "no foreign forward chain drops tenants' packets", firewalls.refusing_chains),
    Question("G303", "no foreign rule translates tenants' packets first", firewalls.earlier_translations),
    Question("G309", "all firewalls of the machine were read", firewalls.unread),
    Question("G401", "the reverse-path filter lets tenants' packets and replies pass", machine.reverse_path),
    Question("G402", "each NIC answers ARP for its own addresses, and for those only", machine.arp),
    Question("G403", "the NICs forward", machine.forwarding),
    Question("G404", "connection tracking has room", machine.connection_tracking),
    Question("G405", "kernel and nft are recent enough", machine.versions),
    Question("G406", "uplinks carry packets as long as those of the inner NICs", machine.mtu),
    Question("G407", "tenants' links are as they must be", machine.tenant_links),
    Question("G408", "no NIC carries more tenant links than broadcasts allow", machine.macvlans),
    Question("G501", "every next hop of an external route on this LAN is a tenant's", cluster.strange_next_hops),
    Question(
        "G502", "the cluster sends every tenant's traffic here", cluster.unused_tenants, {"NoExternalRoute": _WARN}
    ),
    Question("G503", "no namespace has both an external route and an EgressIP", cluster.routed_and_egress_ip),
    Question("G504", "nobody else answers for an address of ours", repeats={"AddressConflict": _FAIL}),
    Question("G900", "the plan refuses nothing and warns of nothing else"),
)


def examine(
    snapshot: Snapshot, desired: Desired, reading: Reading, host: Host, firewall: Firewall
) -> tuple[Check, ...]:
    """Return what every check found, in the order of the table; a check that found nothing is told as well.

    Without an EgressGateway nothing can be looked at, and that is the one failure.
    """
    gateway = snapshot.intent.find_gateway(snapshot.gateway)
    if gateway is None:
        last = QUESTIONS[-1]
        found = [_check(last, fail(f.about, f.text, f.fix)) for f in desired.findings if f.reason == "GatewayUnknown"]
        return tuple(found)
    seen = Seen(snapshot=snapshot, desired=desired, reading=reading, host=host, firewall=firewall, gateway=gateway)
    return tuple(check for question in QUESTIONS for check in _answer(question, seen))


def reference() -> Iterator[tuple[str, str]]:
    """Yield id and sentence of every check, as the reference page lists them."""
    for question in QUESTIONS:
        yield question.id, question.sentence


def _answer(question: Question, seen: Seen) -> list[Check]:
    found = [_check(question, trouble) for trouble in (*_repeated(question, seen), *_asked(question, seen))]
    return found or [Check(id=question.id, grade=Grade.OK, title=question.sentence)]


def _asked(question: Question, seen: Seen) -> Iterable[Trouble]:
    return question.ask(seen) if question.ask is not None else ()


def _repeated(question: Question, seen: Seen) -> Iterator[Trouble]:
    """Yield what the plan has found for a question; the last question takes what no other one repeats."""
    elsewhere = {reason for other in QUESTIONS for reason in other.repeats}
    for finding in seen.desired.findings:
        if finding.reason in question.repeats:
            yield trouble_of(finding, question.repeats[finding.reason])
        elif question is QUESTIONS[-1] and finding.reason not in elsewhere and finding.severity is not Severity.NOTE:
            yield trouble_of(finding)


def _check(question: Question, trouble: Trouble) -> Check:
    return Check(
        id=question.id,
        grade=trouble.grade,
        title=question.sentence,
        about=trouble.about,
        text=trouble.text,
        fix=trouble.fix,
    )

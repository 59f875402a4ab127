"""Why a pod's packet goes where it goes: who it is, how it comes to the gateway, which tenant that makes, and the walk.

Nothing is decided here. Selection and reasons are those of the plan; what the cluster does before the gateway is read
from AdminPolicyBasedExternalRoutes, which say which next hop a namespace uses; the rest is `walk`, through what is
wanted and, if a reading is given, through what the kernel holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address

from outgate.model.intent import EgressGateway
from outgate.model.net import TENANT_MASK, Address, Mark, Span
from outgate.model.state import Desired, Snapshot
from outgate.model.why import Finding, Severity
from outgate.trace.approach import Approach, approaches, claimants
from outgate.trace.question import PodName, Question
from outgate.trace.routing import Ask, look_up
from outgate.trace.steps import Disposition, Packet, Trace
from outgate.trace.subject import Miss, Subject, find_subject, misses, nearest_pods, routes_of, selecting
from outgate.trace.table import address_of
from outgate.trace.walk import arrive_by, walk
from outgate.trace.world import World, world_of_desired

# Stand-ins for "anywhere outside": the first one that only a default route reaches is walked (RFC 5737, 3849, 2544)
_ANYWHERE = {
    4: tuple(map(ip_address, ("203.0.113.1", "198.51.100.1", "192.0.2.1", "198.18.0.1", "9.9.9.9"))),
    6: tuple(map(ip_address, ("2001:db8::1", "2001:db8:ffff::1", "2620:fe::9"))),
}


class Standing(Enum):
    """How the answer should make the reader feel; the exit code of the command."""

    FINE = 0  # it leaves as it should, or needs no gateway
    DEGRADED = 1  # it does not leave, or the kernel does otherwise than is wanted
    UNKNOWN = 2  # there is no such pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Special:
    """Destinations that are treated apart: they see `leaves_as`, or the pod's own address when that is None."""

    destinations: Span
    leaves_as: Address | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What happens to the packets of one source by one next hop.

    `destination` is None for anywhere outside; `walked_to` is the address that the traces use. `tenant` is the one that
    the gateway takes the packet for. `actual` and `agrees` are None when no reading was given; `parting` says where the
    two walks part. `headline` names the subject and says what happens, in one line. `specials` are the destinations
    treated apart, for a question about anywhere.
    """

    source: Address
    destination: Address | None
    walked_to: Address
    approach: Approach
    tenant: str
    headline: str
    wanted: Trace
    actual: Trace | None = None
    agrees: bool | None = None
    parting: str = ""
    specials: tuple[Special, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer to a question. `headline` is its first line: the decision, of the first answer that is not well."""

    question: Question
    gateway: str
    headline: str
    standing: Standing
    subject: Subject | None = None
    answers: tuple[Answer, ...] = ()
    misses: tuple[Miss, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()


def explain(snapshot: Snapshot, desired: Desired, question: Question, actual: World | None = None) -> Explanation:
    """Return where the subject's packets go and why; `actual` is the world of a reading, if there is one."""
    gateway = snapshot.intent.find_gateway(snapshot.gateway)
    name = gateway.name if gateway else snapshot.gateway or "the gateway"
    subject = find_subject(snapshot.intent, question.subject)
    if subject is None:
        return _unknown(snapshot, question, name)
    obstacle = _obstacle(subject, question) or ("" if gateway else "there is no EgressGateway for this machine")
    if obstacle or gateway is None:
        headline = f"{describe(subject)}: {obstacle}"
        standing = Standing.FINE if gateway else Standing.DEGRADED
        return Explanation(question=question, gateway=name, headline=headline, standing=standing, subject=subject)
    found = replace(actual, reasons=desired.wants) if actual is not None and not actual.reasons else actual
    asking = _Asking(snapshot, desired, question, gateway, subject, world_of_desired(desired, snapshot.facts), found)
    answers = tuple(_answers(asking))
    ill = [answer for answer in answers if not _is_well(answer)]
    used = {answer.tenant for answer in answers if answer.tenant}
    claimed = {answer.approach.tenant for answer in answers if answer.approach.tenant}
    tenants = asking.snapshot.intent.tenants_of(asking.gateway)
    return Explanation(
        question=question,
        gateway=name,
        headline=next((answer.headline for answer in (*ill, *answers)), describe(subject)),
        standing=Standing.DEGRADED if ill else Standing.FINE,
        subject=subject,
        answers=answers,
        misses=misses(tuple(t for t in tenants if t.name not in used), subject, served=bool(used | claimed)),
        findings=_findings(asking, answers, used),
        notes=(*_idle(asking, answers), *_notes(asking, used)),
    )


def describe(subject: Subject, source: Address | None = None) -> str:
    """Return the subject as people write it: `ns-blue/app-0 (10.132.0.5, node n1)`."""
    shown = ", ".join(map(str, (source,) if source else subject.addresses))
    inside = [shown] if shown and shown != subject.words else []
    inside += [f"node {subject.node_name}"] if subject.node_name else []
    return subject.words + (f" ({', '.join(inside)})" if inside else "")


@dataclass(frozen=True, slots=True)
class _Asking:
    snapshot: Snapshot
    desired: Desired
    question: Question
    gateway: EgressGateway
    subject: Subject
    wanted: World
    actual: World | None


def _answers(asking: _Asking) -> Iterator[Answer]:
    to = asking.question.to
    for source in asking.subject.addresses:
        if to is not None and to.address.version != source.version:
            continue
        if asking.question.by is not None and asking.question.by.version != source.version:
            continue
        for approach in approaches(asking.snapshot, asking.gateway, asking.subject, source, asking.question.by):
            yield _answer(asking, source, approach)


def _answer(asking: _Asking, source: Address, approach: Approach) -> Answer:
    to = asking.question.to
    walked_to = to.address if to else _anywhere(asking.wanted, source.version)
    packet = Packet(
        source=source,
        destination=walked_to,
        incoming=approach.link,
        protocol=(to.protocol if to else "") or "tcp",
        port=to.port if to else 0,
    )
    wanted = _walk(asking.wanted, packet, approach)
    actual = _walk(asking.actual, packet, approach) if asking.actual is not None else None
    decision = _decision(asking.gateway.name, approach, wanted, actual)
    return Answer(
        source=source,
        destination=to.address if to else None,
        walked_to=walked_to,
        approach=approach,
        tenant=_tenant_of(asking, wanted.mark),
        headline=f"{describe(asking.subject, source)} to {to or 'anywhere outside'}: {decision}",
        wanted=wanted,
        actual=actual,
        agrees=None if actual is None else wanted.same_way(actual),
        parting=wanted.parts_from(actual) if actual is not None else "",
        specials=tuple(_specials(asking.wanted, wanted)) if to is None else (),
    )


def _walk(world: World, packet: Packet, approach: Approach) -> Trace:
    return arrive_by(world, packet, approach.next_hop) if approach.next_hop else walk(world, packet)


def _decision(gateway: str, approach: Approach, wanted: Trace, actual: Trace | None) -> str:
    """Return the sentence that matters at night: what happens now; and what is wanted, if that is something else."""
    if approach.supposed:
        return f"is not sent to {gateway}: {approach.text}"
    if actual is None or wanted.same_way(actual):
        return _ending(gateway, wanted)
    return f"{_ending(gateway, actual)}. Wanted: {_ending(gateway, wanted)}"


def _ending(gateway: str, trace: Trace) -> str:
    lost = "" if trace.reply is None or trace.reply.returns else f", and answers are lost: {trace.reply.reason}"
    match trace.disposition:
        case Disposition.LEAVES:
            own = ", untranslated" if trace.untranslated else ""
            return f"leaves {gateway} by {trace.link} as {trace.leaves_as}{own}{lost}"
        case Disposition.INTERNAL:
            return f"reaches the internal destination by {trace.link}, untranslated"
        case Disposition.LOCAL:
            return f"ends at {gateway} itself: {trace.reason}"
        case Disposition.REJECTED:
            return f"is rejected by {gateway}: {_because(trace)}"
        case Disposition.DROPPED:
            return f"is dropped by {gateway}: {_because(trace)}"
        case Disposition.NO_ROUTE:
            return f"is rejected by {gateway}: {trace.reason}"
        case Disposition.NOT_RECEIVED:
            return f"does not leave: {trace.reason}"


def _because(trace: Trace) -> str:
    """Return the reason of the step that decided: the plan's own sentence where the step names a rule or route."""
    step = trace.decided_by
    return step.because.text if step and step.because and step.text.startswith("`") else trace.reason


def _is_well(answer: Answer) -> bool:
    """Whether packets leave (or end) as they should and answers return; of those not sent here, that nobody asks."""
    if answer.approach.supposed:
        return not answer.approach.tenant
    trace = answer.actual or answer.wanted
    lost = trace.reply is not None and not trace.reply.returns
    return answer.agrees is not False and not lost and not _fails(trace)


def _fails(trace: Trace) -> bool:
    return not trace.disposition.forwards and trace.disposition is not Disposition.LOCAL


def _specials(world: World, trace: Trace) -> Iterator[Special]:
    """Yield the destinations that this packet's tenant treats apart, from the elements that do so."""
    version = trace.packet.source.version
    if not trace.mark & TENANT_MASK:
        return
    for key, element in sorted(world.elements.get(f"snat_to{version}", {}).items(), key=lambda item: str(item[0][1])):
        span = key[1]
        if key[0] == trace.mark and isinstance(span, Span):
            because, ip = world.because(element), address_of(element.value)
            yield Special(destinations=span, leaves_as=ip, text=because.text if because else str(element))
    for key, element in sorted(world.elements.get(f"internal{version}", {}).items(), key=lambda item: str(item[0])):
        span, because = key[1], world.because(element)
        if isinstance(span, Span):
            yield Special(destinations=span, leaves_as=None, text=because.text if because else str(element))


def _findings(asking: _Asking, answers: tuple[Answer, ...], used: set[str]) -> tuple[Finding, ...]:
    """Return the plan's findings about the pod, its node, its namespace, the gateway, and every tenant in question."""
    subject, tenants = asking.subject, asking.snapshot.intent.tenants_of(asking.gateway)
    concerned = used | {tenant.name for tenant in selecting(tenants, subject)}
    hops = {answer.approach.next_hop for answer in answers}
    concerned |= {name for hop in hops if hop is not None for name in claimants(tenants, hop)}
    about = {f"EgressTenant/{name}" for name in concerned} | {f"EgressGateway/{asking.gateway.name}"}
    about |= {f"Node/{subject.node_name}"} if subject.node_name else set()
    about |= {f"Pod/{subject.words}", f"Namespace/{subject.pod.namespace}"} if subject.pod else set()
    about |= {cite for answer in answers for cite in answer.approach.cites}
    order = list(Severity)
    found = (finding for finding in asking.desired.findings if finding.about in about)
    return tuple(sorted(found, key=lambda finding: -order.index(finding.severity)))


def _notes(asking: _Asking, used: set[str]) -> Iterator[str]:
    """Yield what the walk does not show: other objects that claim the pod, and what was not read."""
    subject = asking.subject
    if subject.pod is not None and subject.namespace is None:
        yield f"Namespace/{subject.pod.namespace} is not among the objects, so no selector can be matched"
    for other in selecting(asking.snapshot.intent.tenants_of(asking.gateway), subject):
        if other.name not in used and used:
            yield f"EgressTenant/{other.name} selects it too, and does not get it: the identity above comes first"
    yield from _egress_ips(asking)
    if asking.actual is None:
        yield "this is what is wanted; the kernel was not read"


def _egress_ips(asking: _Asking) -> Iterator[str]:
    """Yield each EgressIP that selects the pod too, and which of the two ways its packets then take."""
    subject, routes = asking.subject, routes_of(asking.snapshot.intent, asking.subject)
    labels = subject.pod.labels if subject.pod else ()
    for one in asking.snapshot.intent.egress_ips:
        chosen = one.pod_selector is None or one.pod_selector.matches(labels)
        if not chosen or not one.namespace_selector.matches(subject.namespace_labels):
            continue
        nodes = ", ".join(sorted({name for name, _ in one.assigned})) or "any node that gets it"
        if not routes:
            text = f"without an AdminPolicyBasedExternalRoute its packets leave by {nodes}, not here"
        elif one.yields_to_external_route(subject.node_name, subject.node.mode if subject.node else None):
            text = f"AdminPolicyBasedExternalRoute/{routes[0].name} wins over it"
        else:
            text = f"in shared gateway mode it wins: the packets leave by {nodes}, not here"
        yield f"EgressIP/{one.name} selects it too; {text}"


def _unknown(snapshot: Snapshot, question: Question, gateway: str) -> Explanation:
    near = nearest_pods(snapshot.intent, question.subject) if isinstance(question.subject, PodName) else ()
    hint = f"; did you mean {near[0]}?" if near else ""
    headline = f"there is no pod {question.subject}{hint}"
    return Explanation(question=question, gateway=gateway, headline=headline, standing=Standing.UNKNOWN, nearest=near)


def _obstacle(subject: Subject, question: Question) -> str:
    """Return why there is nothing to walk, empty when there is."""
    pod = subject.pod
    if pod is not None and pod.host_network:
        return "runs in its node's network: it leaves with the node's address, and no tenant applies"
    if pod is not None and pod.finished:
        return "has finished: its addresses may be another pod's by now, so no tenant selects it"
    if not subject.addresses:
        return "has no address yet"
    versions = {address.version for address in subject.addresses}
    asked = [ip for ip in (question.to.address if question.to else None, question.by) if ip is not None]
    missing = next((ip for ip in asked if ip.version not in versions), None)
    return f"has no IPv{missing.version} address to reach {missing} from" if missing is not None else ""


def _tenant_of(asking: _Asking, mark: Mark) -> str:
    """Return the tenant whose mark this is."""
    field = Mark(mark & TENANT_MASK)
    return next((name for name, known in asking.snapshot.ledger.tenants.items() if field and known.mark == field), "")


def _anywhere(world: World, version: int) -> Address:
    """Return an address that stands for any outside one: only a default route holds it, and no element names it."""
    for address in _ANYWHERE[version]:
        route = look_up(world, Ask(source=address, destination=address, incoming=None, mark=TENANT_MASK)).route
        named = any(
            isinstance(part, Span) and address in part
            for name in ("snat_to", "internal")
            for key in world.elements.get(f"{name}{version}", {})
            for part in key
        )
        if not named and (route is None or route.dst.prefixlen == 0):
            return address
    return _ANYWHERE[version][-1]


def _idle(asking: _Asking, answers: tuple[Answer, ...]) -> Iterator[str]:
    """Say why tenants that claim these packets do nothing for them, as far as the plan shows it."""
    claimed = {answer.approach.tenant for answer in answers if answer.approach.tenant and not answer.tenant}
    for name in sorted(claimed):
        probed = sorted({probe.address for probe in asking.desired.probes if probe.tenant == name}, key=str)
        refused = next(
            (
                f
                for f in asking.desired.findings
                if f.about == f"EgressTenant/{name}" and f.severity is Severity.REFUSAL
            ),
            None,
        )
        versions = sorted({a.source.version for a in answers if a.approach.tenant == name and not a.tenant})
        if probed:
            shown = ", ".join(map(str, probed))
            yield f"EgressTenant/{name} waits until nobody answers for {shown}: its addresses are being probed"
        elif refused is not None:
            yield f"EgressTenant/{name} is refused ({refused.reason}), so its packets go nowhere"
        else:
            families = " and ".join(f"IPv{version}" for version in versions)
            yield f"EgressTenant/{name} does not serve these packets: it needs an egress IP of {families}"

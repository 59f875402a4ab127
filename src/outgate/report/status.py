"""A gateway's status on one screen: how it is doing, each part in a line, the tenants in a table, what to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from outgate.model.status import (
    Blocked,
    Health,
    Layer,
    NodeStatus,
    PortUse,
    SourceStatus,
    Status,
    TenantState,
    TenantStatus,
)
from outgate.report.findings import finding_lines, ordered
from outgate.report.layout import (
    MANY,
    PLAIN,
    Cell,
    Row,
    Style,
    Tone,
    ago,
    columns,
    count,
    cut,
    duration,
    large,
    paragraph,
)
from outgate.report.plain import Plain, document

_HEALTH = {Health.OK: Tone.GOOD, Health.DEGRADED: Tone.WARN, Health.FAILED: Tone.BAD}
_STATE = {TenantState.OK: Tone.GOOD, TenantState.DEGRADED: Tone.WARN, TenantState.REFUSED: Tone.BAD}
_WORST_FIRST = (TenantState.REFUSED, TenantState.DEGRADED, TenantState.OK)
_FULL = 0.8  # of an egress IP's ports towards one destination: from here on it is shown


def status_text(status: Status, style: Style = PLAIN) -> str:
    """Return a status as text: a headline, a line for each part, tenants and nodes, findings, and where to go on."""
    lines = columns([_headline(status)], style)
    lines += columns(_parts(status), style, indent=2)
    if status.confirmation is not None:
        left = f"{status.confirmation.text or 'applied'}: goes back in {ago(status.confirmation.left_s)}"
        lines += paragraph(f"! {left} unless `outgate gateway confirm`", style, indent=2, tone=Tone.WARN)
    lines += ["", *_tenant_lines(status.tenants, style)] if status.tenants else []
    lines += _node_lines(status.nodes, style)
    if status.findings:
        lines += ["", *finding_lines(status.findings, style, most=3)]
    hint = _hint(status)
    return "\n".join([*lines, *(["", *paragraph(f"hint: {hint}", style, tone=Tone.FAINT)] if hint else [])])


def status_document(status: Status) -> dict[str, Plain]:
    """Return the document of kind Status."""
    names = ("gateway", "version", "health", "uptime_s", "sources", "rounds", "guard", "tenants", "nodes")
    body = {"uptimeSeconds" if name == "uptime_s" else name: getattr(status, name) for name in names}
    return document("Status", body | {"findings": ordered(status.findings), "confirmation": status.confirmation})


def _headline(status: Status) -> Row:
    ill = sum(tenant.state is not TenantState.OK for tenant in status.tenants)
    total = count(len(status.tenants), "tenant")
    what = f"{ill:,} of {total} need{'s' if ill == 1 else ''} attention" if ill else total
    age = f"{what}   outgate {status.version}, up {duration(status.uptime_s)}"
    name = Cell(f"egress gateway {status.gateway}", Tone.STRONG)
    return [name, Cell(status.health.value, _HEALTH[status.health]), age]


def _parts(status: Status) -> list[Row]:
    whole = [one for one in status.sources if not one.part]
    rows = [_part("intent", one.health, f"{one.name}: {_read(one)}") for one in whole]
    servers = dict.fromkeys(source.name for source in status.sources if source.part)
    for server in servers:
        rows += _kinds(server, [one for one in status.sources if one.part and one.name == server])
    rows.append(_part("kernel", *_rounds(status)))
    rows.append(_part("fail closed", *_guard(status)))
    return rows


def _kinds(server: str, sources: Sequence[SourceStatus]) -> list[Row]:
    """Return the lines of an API server: one for all kinds that are well, and one for all that ail alike; as old as the
    oldest of them.
    """
    rows = []
    alike: dict[str, list[SourceStatus]] = {}  # by what ails them, which the first word of the error says
    for one in sorted(sources, key=lambda one: one.health is not Health.OK):
        alike.setdefault("" if one.health is Health.OK else one.error.partition(":")[0] or "unread", []).append(one)
    for kinds in alike.values():
        oldest = max((one.age_s for one in kinds if one.age_s is not None), default=None)
        objects = {one.part: sum(one.objects.values()) for one in kinds if any(one.objects.values())}
        together = replace(kinds[0], age_s=oldest, objects=objects)
        what = f"{server} {kinds[0].part}" if len(kinds) == 1 else f"{server}: {count(len(kinds), 'kind')}"
        rows.append(_part("intent", kinds[0].health, f"{what}{':' if len(kinds) == 1 else ','} {_read(together)}"))
    return rows


def _read(source: SourceStatus) -> str:
    objects = ", ".join(count(number, kind) for kind, number in source.objects.items())
    age = f"read {ago(source.age_s)} ago" if source.age_s is not None else "never read"
    return "; ".join(part for part in (age, objects, source.error) if part)


def _part(name: str, health: Health, text: str) -> Row:
    return [name, Cell(health.value, _HEALTH[health]), text]


def _rounds(status: Status) -> tuple[Health, str]:
    rounds = status.rounds
    last = "no round yet" if rounds.last_age_s is None else f"last round {ago(rounds.last_age_s)} ago"
    said = [f"{rounds.owned:,} resources of ours as wanted"]
    said += [f"{count(rounds.left, 'change')} could not be made"] if rounds.left else []
    said += [f"{last}, {count(rounds.rounds, 'round')}, {count(rounds.changes, 'change')}"]
    said += [f"drift repaired {count(rounds.repaired, 'time')}"] if rounds.repaired else []
    said += [f"last {ago(rounds.last_repair_age_s)} ago: {rounds.last_repair}"] if rounds.last_repair else []
    said += [f"error: {rounds.error}"] if rounds.error else []
    ill = rounds.left or rounds.error or rounds.last_age_s is None
    return (Health.DEGRADED if ill else Health.OK), "; ".join(said)


def _guard(status: Status) -> tuple[Health, str]:
    guard = status.guard
    stands = {(True, True): "table and policy rules stand", (True, False): "the policy rules are missing"}
    stands |= {(False, True): "the table is missing: policy rules alone stop packets", (False, False): "nothing stands"}
    health = Health.OK if guard.table and guard.rules else Health.FAILED
    covered = f"{guard.covered}/{guard.subnets} pod subnets covered"
    if health is Health.OK and guard.covered < guard.subnets:
        health = Health.DEGRADED
    return health, f"{stands[guard.table, guard.rules]}; {covered}; blocked {_blocked(guard.blocked)}"


def _blocked(blocked: Sequence[Blocked]) -> str:
    """Return how many packets each layer stopped, with the counters that are not zero."""
    said = []
    for layer in Layer:
        mine = [counter for counter in blocked if counter.layer is layer and counter.packets]
        if mine:
            total = sum(counter.packets for counter in mine)
            names = ", ".join(f"{counter.counter} {counter.packets:,}" for counter in mine)
            said.append(f"{total:,} at {layer.value} ({names})")
    return ", ".join(said) or "nothing"


def _tenant_lines(tenants: Sequence[TenantStatus], style: Style) -> list[str]:
    """Return the table of tenants, those that need attention first."""
    every = sorted(tenants, key=lambda tenant: (_WORST_FIRST.index(tenant.state), tenant.name))
    ill = sum(tenant.state is not TenantState.OK for tenant in every)
    most = len(every) if style.whole or len(every) <= 2 * MANY else max(MANY, min(ill, 2 * MANY))
    heads = ("TENANT", "STATE", "EGRESS IP", "NEXT HOP", "LINK", "PODS", "OPENED", "SENT", "RECEIVED", "")
    rows: list[Row] = [[Cell(head, Tone.FAINT) for head in heads]]
    for tenant in every[:most]:
        rows += _tenant_rows(tenant)
    lines = columns(rows, style)
    more = len(every) - most
    return lines + (paragraph(f"and {more:,} more tenants", style, tone=Tone.FAINT) if more else [])


def _tenant_rows(tenant: TenantStatus) -> list[Row]:
    """Return a tenant's lines: one for each further address beside the first."""
    full = max(tenant.ports, key=_share, default=None)
    ports = f"ports {full.used:,}/{full.available:,} of {full.address}" if full and _share(full) >= _FULL else ""
    hops = [str(hop) for hop in tenant.next_hops] or ["by source" if tenant.link is None else "-"]
    ips = [str(ip) for ip in tenant.egress_ips] or ["-"]
    pods = "-" if tenant.pods is None else f"{tenant.pods:,}"
    sent, received = large(tenant.sent_bytes, "B"), large(tenant.received_bytes, "B")
    first: Row = [
        *(Cell(tenant.name, Tone.STRONG), Cell(tenant.state.value, _STATE[tenant.state])),
        *(ips[0], hops[0], tenant.link or "-", pods, large(tenant.opened), sent, received),
        Cell(tenant.reason or ports, _STATE[tenant.state]),
    ]
    rest = max(len(hops), len(ips))
    ips, hops = ips + [""] * (rest - len(ips)), hops + [""] * (rest - len(hops))
    return [first, *(["", "", ip, hop] + [""] * 6 for ip, hop in zip(ips[1:], hops[1:], strict=True))]


def _share(use: PortUse) -> float:
    return use.used / use.available if use.available else 0.0


def _node_lines(nodes: Sequence[NodeStatus], style: Style) -> list[str]:
    """Return the nodes that lack something, and how many there are; the rest is well and needs no line."""
    ill = [node for node in nodes if not node.ready or node.routed < len(node.subnets) or not node.subnets]
    if not nodes:
        return []
    head = f"{count(len(nodes), 'node')}, {len(nodes) - len(ill):,} ready and routed"
    said = [f"{node.name}: {_node_state(node)}" for node in ill]
    return [
        "",
        *paragraph(head, style),
        *(line for text in cut(said, style) for line in paragraph(text, style, indent=2)),
    ]


def _node_state(node: NodeStatus) -> str:
    if not node.subnets:
        return node.reason or "no pod subnet"
    routed = f"{node.routed}/{len(node.subnets)} subnets routed"
    said = [routed] if node.ready else ["not ready", routed]
    return ", ".join(said) + (f": {node.reason}" if node.reason else "")


def _hint(status: Status) -> str:
    """Return where to go on, empty when all is well."""
    ill = next((tenant for tenant in status.tenants if tenant.state is not TenantState.OK), None)
    if status.health is Health.OK:
        return ""
    return "outgate doctor" + (f"; outgate explain NAMESPACE/POD of {ill.name}" if ill else "")

"""What stories about `outgate trace` share: the nodes looked at, what it says of a packet, and what the packet does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

from outgate.lab.ovn.addresses import OTHER_ROUTER, ROUTER, SECONDARY_NIC, Address, mac_of
from outgate.lab.ovn.topology import OvnLaboratory, OvnNode, OvnPod
from outgate.model.intent import Intent
from outgate.report.egress_trace import egress_trace_document
from outgate.roles.egress_trace import TraceOptions, trace_pod
from outgate.roles.egress_view import ViewOptions, host_snapshot
from outgate.trace.question import parse_question

Told: TypeAlias = dict[str, Any]


def look(lab: OvnLaboratory, place: Path) -> None:
    """Write down what every node holds now, as root: nftables too."""
    lab.settle()
    place.mkdir(exist_ok=True)
    for node in lab.nodes.values():
        with node.net.inside():
            (place / f"{node.name}.json").write_bytes(host_snapshot(node.name))


def trace(lab: OvnLaboratory, view: ViewOptions, intent: Intent, pod: OvnPod, to: Address) -> Told:
    """What `outgate trace -o json` says, having asked every database."""
    asked = TraceOptions(
        view=view,
        northbound=tuple(("", f"unix:{node.programs.northbound}") for node in lab.nodes.values()),
        southbound=tuple((node.name, f"unix:{node.programs.southbound}") for node in lab.nodes.values()),
    )
    question = parse_question(f"shop/{pod.name}", str(to))
    assert question.to is not None
    document: Any = egress_trace_document(trace_pod(asked, intent, question, question.to))
    told: Told = json.loads(json.dumps(document["trace"]))
    return told


def reasons(told: Told) -> list[str]:
    """The reasons of its findings."""
    return [one["reason"] for one in told["findings"]]


def counter_of(walk: Told) -> str:
    """The counter outside that a walk leads to."""
    if walk["link"] == SECONDARY_NIC:
        return "secondary"
    return "other" if walk["via"] in map(str, OTHER_ROUTER) else "default"


def sent(lab: OvnLaboratory, pod: OvnPod, to: Address) -> tuple[str | None, set[str]]:
    """The source that the server saw, None where no answer came, and the counters that saw packets of it."""
    counters = {"default": lab.by_default, "other": lab.by_other, "secondary": lab.by_secondary}
    for counter in counters.values():
        counter.reset()
    source = pod.agent.fetch(to, timeout_s=5).source
    came = {name for name, counter in counters.items() if source in counter.seen()}
    return (str(source) if source is not None else None), came


def learn_routers(node: OvnNode) -> None:
    """Let ovn-trace know the routers' MACs, as a node that has talked to them for a while does."""
    programs, port = node.programs, f"rtoe-{node.at.router}"
    found = programs.sbctl("--bare", "--columns=_uuid", "find", "datapath", f"external_ids:name={node.at.router}")
    for hop, owner in zip((*ROUTER, *OTHER_ROUTER), (ROUTER, ROUTER, OTHER_ROUTER, OTHER_ROUTER), strict=True):
        row = (f"logical_port={port}", f'ip="{hop}"', f'mac="{mac_of(owner[0])}"', f"datapath={found.strip()}")
        programs.sbctl("create", "mac_binding", *row)

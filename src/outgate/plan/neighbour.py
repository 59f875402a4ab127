"""Whether the node that should answers for an egress IP, alone: what was heard on the LAN against what is assigned.

Which MAC is which node's is heard as well: each node answers for its own addresses on the LAN, and an egress IP stands
behind the MAC of the same NIC. A router or switch that remembers another MAC sends answers to the wrong node; that is
not heard here, but a node that still answers is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from outgate.model.errors import IntentError
from outgate.model.host_table import HostTables
from outgate.model.intent import Intent, Node
from outgate.model.neighbour import Heard, Neighbour
from outgate.model.net import Address, LinkName, Mac
from outgate.model.rivals import CloudAddress
from outgate.model.why import Finding
from outgate.plan.egress_ip import Networks, hosting_nic
from outgate.plan.ground import network_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """On which link of a node to ask, and for which addresses: the egress IP, and the nodes' own on that LAN."""

    link: LinkName
    addresses: tuple[Address, ...]


def question(address: Address, intent: Intent, node: str, host: HostTables) -> Question:
    """Return what to ask on a node.

    Raises:
        IntentError: there is no such Node, or none of its NICs is on the LAN of the address.
    """
    own = next((one for one in intent.nodes if one.name == node), None)
    if own is None:
        raise IntentError(f"there is no Node {node!r}: name the one that this machine is with --node")
    link = hosting_nic(address, Networks.of(own.primary, host))
    if link is None:
        raise IntentError(f"no NIC of {node} is in a network that holds {address}: ask on a node that is there")
    return Question(link=link, addresses=(address, *(one for one, _ in _on_the_lan(address, intent.nodes))))


def judge(address: Address, intent: Intent, heard: Heard, cloud: Sequence[CloudAddress]) -> Neighbour:
    """Return who answers, who should, and what is amiss."""
    egress_ip = next((one for one in intent.egress_ips if address in one.egress_ips), None)
    node = next((name for name, one in egress_ip.assigned if one == address), "") if egress_ip is not None else ""
    about = f"EgressIP/{egress_ip.name}" if egress_ip is not None else str(address)
    names = {mac: name for one, name in _on_the_lan(address, intent.nodes) for mac in heard.answers.get(one, ())}
    if heard.own is not None:
        names[heard.own] = heard.node
    answers = tuple((mac, names.get(mac, "")) for mac in sorted(heard.answers.get(address, ())))
    said = next((one for one in cloud if one.address == address), None)
    amiss = [*_amiss(address, about, node, heard, answers), *_of_cloud(about, node, said, is_cloud=bool(cloud))]
    return Neighbour(
        address=address,
        owner=about if egress_ip is not None else "",
        node=node,
        asked_on=f"{heard.link} of {heard.node}",
        answers=answers,
        cloud=_cloud_words(said),
        findings=tuple(amiss),
    )


def _on_the_lan(address: Address, nodes: Sequence[Node]) -> Iterator[tuple[Address, str]]:
    """Yield the nodes' own addresses in the network that holds an address, each with its node."""
    for node in nodes:
        network = network_for(address, node)
        for one in node.host_cidrs:
            if network is not None and one.network == network and one.address != address:
                yield one.address, node.name


def _amiss(
    address: Address, about: str, node: str, heard: Heard, answers: Sequence[tuple[Mac, str]]
) -> Iterator[Finding]:
    others = [(mac, name) for mac, name in answers if not node or name != node]
    shown = " and ".join(f"{mac} ({name or 'no node'})" for mac, name in others)
    fix = "find that machine, and take the address from it; if it is a node, restart ovnkube-node there"
    if others and node:
        text = f"{shown} answers for {address} on {heard.link}, which is assigned to {node}"
        yield Finding("AnsweredByOther", about, text, fix=fix)
    elif others:
        text = f"{shown} answers for {address} on {heard.link}, which no node has"
        yield Finding("AnsweredByOther", about, text, fix=fix)
    elif node and node != heard.node and not answers:
        text = f"{node} has {address}, and nobody answers for it on {heard.link}: nothing comes back to it"
        fix = f"see on {node} whether the NIC is up (`outgate node tables`) and whether OVN has the address (RowsAgree)"
        yield Finding("NobodyAnswers", about, text, fix=fix)


def _of_cloud(about: str, node: str, said: CloudAddress | None, *, is_cloud: bool) -> Iterator[Finding]:
    fix = "look at the object's events, and at the log of cloud-network-config-controller: quota, subnet, rights"
    if said is None:
        if is_cloud and node:
            text = "the cloud was never asked for the address: it has no CloudPrivateIPConfig, and others have"
            yield Finding("CloudDisagrees", about, text, fix="look at the log of ovnkube-cluster-manager")
    elif said.assigned is not True or said.node != node:
        where = f"on {node}" if node else "on no node"
        text = f"the EgressIP is {where}, and the cloud: {_cloud_words(said)}"
        yield Finding("CloudDisagrees", about, text, fix=fix)


def _cloud_words(said: CloudAddress | None) -> str:
    if said is None:
        return ""
    state = {True: "assigned", False: "refused", None: "not answered yet"}[said.assigned]
    words = f"asked for {said.wanted or 'no node'}, on {said.node or 'none'}, {state}"
    return f"{words}: {said.message}" if said.message and said.assigned is not True else words

"""Writing verdicts: server-side apply of what the cluster role owns in the statuses of our objects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from outgate.apiserver.errors import Conflict, Missing
from outgate.apiserver.server import APPLY, MERGE, Body, Resource, Server, decoded
from outgate.model.intent import CLAIM_NAME, MADE_BY, Condition
from outgate.model.verdict import Verdict
from outgate.systems.kubeapi.render import GROUP, OURS, VERSION

WRITER = "outgate-cluster"
EGRESS_NODES = Resource(plural="egressnodes", group=GROUP, version=VERSION)
EGRESS_IPS = Resource(plural="egressips", group="k8s.ovn.org")
MADE = {
    "EgressNode": EGRESS_NODES,
    "EgressTenant": OURS["EgressTenant"],
    "EgressRouting": OURS["EgressRouting"],
    "AdminPolicyBasedExternalRoute": Resource(plural="adminpolicybasedexternalroutes", group="k8s.ovn.org"),
}
_LONGEST_MESSAGE, _LONGEST_REASON = 32768, 1024


async def write(server: Server, verdict: Verdict, now_s: float) -> None:
    """Write one verdict. It is about one version of one object: when that is another by now, it is not written, and
    decided again when the source tells.

    Raises:
        OutgateError: the server refuses it or does not answer.
    """
    path = OURS[verdict.kind].path(verdict.name, namespace=verdict.namespace, subresource="status")
    query = {"fieldManager": WRITER, "force": "true"}
    try:
        await server.request("PATCH", path, query=query, body=Body(rendered(verdict, now_s), APPLY))
    except (Conflict, Missing):
        return


async def assign(server: Server, name: str, status: dict[str, Any], version: str) -> None:
    """Write what a node has to do, as fields of a status, into the version of its EgressNode that was read.

    Raises:
        OutgateError: the server refuses it or does not answer.
    """
    await _say_of_node(server, {"name": name, "resourceVersion": version}, status, WRITER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the role on a node says: conditions, networks by which nothing gets out, egress IPs that others have (with
    their MACs), the work that it has done (a digest), and the host's routes as text.
    """

    conditions: tuple[Condition, ...]
    cut: tuple[str, ...] = ()
    taken: tuple[tuple[str, str], ...] = ()
    programmed: str = ""
    host: str = ""


async def place(server: Server, name: str, items: Iterable[tuple[str, str]], version: str) -> None:
    """Write on which nodes an EgressIP's addresses are, into the version of it that was read.

    OVN-Kubernetes' definition has had no status of its own; where it has one, a write beside it would be lost.

    Raises:
        OutgateError: the server refuses it or does not answer.
    """
    status = {"items": [{"node": node, "egressIP": address} for node, address in items]}
    body = Body(msgspec.json.encode({"metadata": {"resourceVersion": version}, "status": status}), MERGE)
    with contextlib.suppress(Conflict):
        try:
            await server.request("PATCH", EGRESS_IPS.path(name, subresource="status"), body=body)
        except Missing:
            with contextlib.suppress(Missing):
                await server.request("PATCH", EGRESS_IPS.path(name), body=body)


async def observe(server: Server, name: str, said: Said, now_s: float) -> None:
    """Write what the role on a node has found and done there.

    Raises:
        OutgateError: the server refuses it or does not answer.
    """
    status: dict[str, Any] = {"conditions": [_condition(one, now_s) for one in said.conditions]}
    status |= {"host": said.host} if said.host else {}
    status |= {"programmed": said.programmed} if said.programmed else {}
    status |= {"cut": list(said.cut)} if said.cut else {}
    status |= {"taken": [{"address": one, "mac": mac} for one, mac in said.taken]} if said.taken else {}
    await _say_of_node(server, {"name": name}, status, f"outgate-node-{name}")


async def _say_of_node(server: Server, metadata: dict[str, str], status: dict[str, Any], writer: str) -> None:
    """Apply one writer's part of an EgressNode's status; an object that is gone or another by now is left alone."""
    document = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "EgressNode",
        "metadata": metadata,
        "status": status,
    }
    path = EGRESS_NODES.path(metadata["name"], subresource="status")
    body, query = Body(msgspec.json.encode(document), APPLY), {"fieldManager": writer, "force": "true"}
    try:
        await server.request("PATCH", path, query=query, body=body)
    except (Conflict, Missing):
        return


async def make(server: Server, manifest: Mapping[str, Any]) -> None:
    """Create or change an object that is made for a claim or a tenant. What bears its name and no label of ours is
    somebody else's and left alone; a kind that the server does not know needs no objects.

    Raises:
        OutgateError: the server refuses it or does not answer.
    """
    resource, metadata = MADE[manifest["kind"]], manifest["metadata"]
    path = resource.path(metadata["name"])
    try:
        found = await _found(server, path)
        if found is None:
            body = Body(msgspec.json.encode(manifest))
            await server.request("POST", resource.path(), query={"fieldManager": WRITER}, body=body)
        elif found.is_ours:
            seen = {"uid": found.uid, "resourceVersion": found.resource_version}
            body = Body(msgspec.json.encode({**manifest, "metadata": {**metadata, **seen}}), APPLY)
            await server.request("PATCH", path, query={"fieldManager": WRITER, "force": "true"}, body=body)
    except (Conflict, Missing):
        return


async def drop(server: Server, kind: str, name: str) -> None:
    """Delete an object that was made, if it still bears a label of ours, and is not changed meanwhile.

    Raises:
        OutgateError: the server refuses it or does not answer.
    """
    path = MADE[kind].path(name)
    try:
        found = await _found(server, path)
        if found is not None and found.is_ours:
            seen = {"uid": found.uid, "resourceVersion": found.resource_version}
            body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": seen}
            await server.request("DELETE", path, body=Body(msgspec.json.encode(body)))
    except (Conflict, Missing):
        return


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    uid: str
    resource_version: str
    labels: dict[str, str] = {}

    @property
    def is_ours(self) -> bool:
        return self.labels.get(MADE_BY[0]) == MADE_BY[1] or CLAIM_NAME in self.labels


class _Object(msgspec.Struct, frozen=True):
    metadata: _Meta


async def _found(server: Server, path: str) -> _Meta | None:
    try:
        return decoded(path, await server.request("GET", path), _Object).metadata
    except Missing:
        return None


def rendered(verdict: Verdict, now_s: float) -> bytes:
    """Return the document of a server-side apply."""
    status: dict[str, Any] = {
        "observedGeneration": verdict.served.generation,
        "conditions": [_condition(one, now_s) for one in verdict.conditions],
    }
    if verdict.allocated is not None:
        status["egressIPs"] = [str(address) for address in verdict.allocated]
    if verdict.given is not None:
        status["addresses"] = [
            {"address": str(one.address), "tenant": one.tenant}
            | ({"restsUntil": time_text(one.rests_until_s)} if one.rests_until_s is not None else {})
            for one in verdict.given
        ]
    if verdict.moves is not None:
        status["moves"] = [
            {
                "time": one.at,
                "egressIP": one.egress_ip,
                "address": str(one.address),
                "fromNode": one.from_node,
                "toNode": one.to_node,
                "reason": one.reason[:_LONGEST_REASON],
            }
            for one in verdict.moves
        ]
    where = {"namespace": verdict.namespace} if verdict.namespace else {}
    metadata = {"name": verdict.name, **where, "uid": verdict.served.uid, "resourceVersion": verdict.served.version}
    document = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": verdict.kind,
        "metadata": metadata,
        "status": status,
    }
    return msgspec.json.encode(document)


def _condition(one: Condition, now_s: float) -> dict[str, Any]:
    words = {True: "True", False: "False", None: "Unknown"}
    return {
        "type": one.type,
        "status": words[one.holds],
        "reason": one.reason,
        "message": one.message[:_LONGEST_MESSAGE],
        "observedGeneration": one.generation,
        "lastTransitionTime": one.since or time_text(now_s),
    }


def time_text(seconds: float) -> str:
    """Return a time as metav1.Time is written, in whole seconds."""
    return datetime.fromtimestamp(round(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

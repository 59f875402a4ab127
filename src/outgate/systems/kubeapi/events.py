"""Events (events.k8s.io/v1) about our objects, so that `kubectl describe` and `kubectl get events` tell of them."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from outgate.apiserver.server import Body, Resource, Server
from outgate.systems.kubeapi.render import GROUP, VERSION

EVENTS = Resource(plural="events", group="events.k8s.io")
NAMESPACE = "default"  # where events about cluster-scoped objects live
_LONGEST_NOTE = 1024


async def tell(server: Server, about: tuple[str, str, str], said: tuple[str, str], reporter: tuple[str, str]) -> None:
    """Write a warning about an object (its kind, name and uid): a reason and a note, by a controller and its instance.

    Raises:
        OutgateError: the server refuses it or does not answer.
    """
    kind, name, uid = about
    reason, note = said
    controller, instance = reporter
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{name[:200]}-", "namespace": NAMESPACE},
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"{GROUP}/{controller}",
        "reportingInstance": instance[:128],
        "action": "Judged",
        "type": "Warning",
        "reason": reason,
        "note": note[:_LONGEST_NOTE],
        "regarding": {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "name": name, "uid": uid},
    }
    await server.request("POST", EVENTS.path(namespace=NAMESPACE), body=Body(msgspec.json.encode(event)))

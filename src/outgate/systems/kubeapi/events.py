"""Events (events.k8s.io/v1) about our objects, so that `kubectl describe` and `kubectl get events` tell of them."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from outgate.apiserver.server import Body, Resource, Server
from outgate.systems.kubeapi.render import GROUP, VERSION, News

EVENTS = Resource(plural="events", group="events.k8s.io")
_OF_THE_CLUSTER = "default"  # the namespace where events about cluster-scoped objects live
_LONGEST_NOTE = 1024


async def tell(server: Server, news: News, reporter: tuple[str, str]) -> None:
    """Write a warning about an object, in its namespace, by a controller and its instance.

    Raises:
        OutgateError: the server refuses it or does not answer.
    """
    about, (controller, instance) = news.subject, reporter
    namespace = about.namespace or _OF_THE_CLUSTER
    where = {"namespace": about.namespace} if about.namespace else {}
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{about.name[:200]}-", "namespace": namespace},
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"{GROUP}/{controller}",
        "reportingInstance": instance[:128],
        "action": "Judged",
        "type": "Warning",
        "reason": news.reason,
        "note": news.note[:_LONGEST_NOTE],
        "regarding": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": about.kind,
            "name": about.name,
            "uid": about.uid,
            **where,
        },
    }
    await server.request("POST", EVENTS.path(namespace=namespace), body=Body(msgspec.json.encode(event)))

"""What a gateway says of an object, as the API server takes it: server-side apply of one entry of `status.gateways`."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from outgate.apiserver.server import Resource
from outgate.model.intent import Told

GROUP, VERSION = "outgate.io", "v1alpha1"
OURS = {
    "EgressGateway": Resource(plural="egressgateways", group=GROUP, version=VERSION),
    "EgressTenant": Resource(plural="egresstenants", group=GROUP, version=VERSION),
    "EgressPool": Resource(plural="egresspools", group=GROUP, version=VERSION),
    "EgressRouting": Resource(plural="egressroutings", group=GROUP, version=VERSION),
    "EgressClaim": Resource(plural="egressclaims", group=GROUP, version=VERSION),
}
_LONGEST_MESSAGE = 1024  # what the schema takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object that something is said about; the uid says that it is not another one of the same name."""

    kind: str
    name: str
    uid: str
    namespace: str = ""
    cluster: str = ""  # which of several serves it

    @property
    def path(self) -> str:
        """The path of its status."""
        return OURS[self.kind].path(self.name, namespace=self.namespace, subresource="status")


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Something that happened to an object: an event's reason and note."""

    subject: Subject
    reason: str
    note: str


def applied(subject: Subject, told: Told | None) -> bytes:
    """Return the document of a server-side apply; None takes back what was said."""
    entries = []
    if told is not None:
        entries.append(
            {
                "name": told.gateway,
                "observedGeneration": told.generation,
                "programmed": told.programmed,
                "reason": told.reason,
                "message": told.message,
            }
        )
    return msgspec.json.encode(
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": subject.kind,
            "metadata": {"name": subject.name, "uid": subject.uid},
            "status": {"gateways": entries},
        }
    )


def shortened(message: str) -> str:
    """Return a message as long as the schema takes."""
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 3]}..."

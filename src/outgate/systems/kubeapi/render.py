"""What a gateway says of an object, as the API server takes it: server-side apply of one entry of `status.gateways`."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from outgate.apiserver.server import Resource

GROUP, VERSION = "outgate.io", "v1alpha1"
GATEWAYS = Resource(plural="egressgateways", group=GROUP, version=VERSION)
TENANTS = Resource(plural="egresstenants", group=GROUP, version=VERSION)
_LONGEST_MESSAGE = 1024  # what the schema takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object that something is said about; the uid says that it is not another one of the same name."""

    kind: str
    name: str
    uid: str

    @property
    def path(self) -> str:
        """The path of its status."""
        resource = GATEWAYS if self.kind == "EgressGateway" else TENANTS
        return resource.path(self.name, subresource="status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What one gateway says of one object: of which generation, whether the machine holds all of it, and why not."""

    generation: int
    programmed: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Something that happened to an object: an event's reason and note."""

    subject: Subject
    reason: str
    note: str

    @property
    def said(self) -> tuple[str, str]:
        """Return reason and note."""
        return self.reason, self.note


def applied(subject: Subject, gateway: str, word: Word | None) -> bytes:
    """Return the document of a server-side apply; None takes back what was said."""
    entries = []
    if word is not None:
        entries.append(
            {
                "name": gateway,
                "observedGeneration": word.generation,
                "programmed": word.programmed,
                "reason": word.reason,
                "message": shortened(word.message),
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

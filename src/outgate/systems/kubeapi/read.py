"""What stands in the statuses of our objects from us: read once, so that only what differs is written."""

from __future__ import annotations

import msgspec

from outgate.apiserver.server import Resource, Server, decoded
from outgate.model.intent import Told
from outgate.systems.kubeapi.render import OURS, Subject

_PAGE = "500"


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    uid: str


class _Entry(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    observed_generation: int
    programmed: bool
    reason: str
    message: str


class _Status(msgspec.Struct, frozen=True):
    gateways: tuple[_Entry, ...] = ()


class _Object(msgspec.Struct, frozen=True):
    metadata: _Meta
    status: _Status = _Status()


class _ListMeta(msgspec.Struct, frozen=True):
    next_page: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: tuple[_Object, ...] = ()


async def words_of(server: Server, gateway: str) -> dict[Subject, Told]:
    """Return what this gateway has said, by object.

    Raises:
        OutgateError: the lists did not come whole.
    """
    found: dict[Subject, Told] = {}
    for kind in ("EgressGateway", "EgressTenant"):
        for one in await _all(server, OURS[kind]):
            for entry in one.status.gateways:
                if entry.name == gateway:
                    subject = Subject(kind=kind, name=one.metadata.name, uid=one.metadata.uid)
                    found[subject] = Told(
                        gateway=gateway,
                        generation=entry.observed_generation,
                        programmed=entry.programmed,
                        reason=entry.reason,
                        message=entry.message,
                    )
    return found


async def _all(server: Server, resource: Resource) -> list[_Object]:
    found: list[_Object] = []
    query = {"limit": _PAGE}
    while True:
        page = decoded(resource.path(), await server.request("GET", resource.path(), query=query), _Page)
        found += page.items
        if not page.metadata.next_page:
            return found
        query["continue"] = page.metadata.next_page

"""What else has a say about packets that leave, asked of an API server once. What it does not tell is told."""

from __future__ import annotations

import asyncio

import msgspec

from outgate.apiserver.errors import Missing
from outgate.apiserver.server import OpenServer, Resource, Server, decoded
from outgate.model.errors import OutgateError
from outgate.model.rivals import Rivals
from outgate.sources.rivals import SHAPES, Shape, rivals_of

_PAGE = 500


class _ListMeta(msgspec.Struct, frozen=True):
    next_page: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] = []


def read_rivals_live(opener: OpenServer) -> Rivals:
    """Return what the API server tells; a kind that it does not have is none, one that it keeps to itself is unknown.

    Raises:
        OutgateError: the server can not be opened at all.
    """
    return asyncio.run(_all(opener))


async def _all(opener: OpenServer) -> Rivals:
    found: list[Shape] = []
    unknown: list[tuple[str, str]] = []
    async with opener() as server:
        lists = await asyncio.gather(*(_list(server, kind) for kind in SHAPES), return_exceptions=True)
    for kind, listed in zip(SHAPES, lists, strict=True):
        if isinstance(listed, list):
            found += listed
        elif isinstance(listed, OutgateError):
            unknown.append((kind, str(listed)))
        else:
            raise listed
    return rivals_of(found, unknown)


async def _list(server: Server, kind: str) -> list[Shape]:
    group, plural, shape = SHAPES[kind]
    path = Resource(plural=plural, group=group, version="v1").path()
    query: dict[str, str] = {"limit": str(_PAGE)}
    found: list[Shape] = []
    while True:
        try:
            page = decoded(path, await server.request("GET", path, query=query), _Page)
        except Missing:
            return []
        found += [decoded(path, bytes(one), shape) for one in page.items]
        if not page.metadata.next_page:
            return found
        query["continue"] = page.metadata.next_page

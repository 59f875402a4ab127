"""Nodes' hosts as files: what `outgate node snapshot` wrote on each, one file a node, in one directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import msgspec

from outgate.model.errors import IntentError
from outgate.model.host_table import HostSnapshot, HostTables
from outgate.model.net import ALL_LINKS, Discard
from outgate.model.why import Origin
from outgate.sources.exact import Misread, plain_of, value_of

KIND, VERSION = "NodeSnapshot", 1
MOST_TOLD = 256 << 10  # characters; an object of an API server holds 1.5 MB at most
_MOST_BYTES = 256 << 20


def written(snapshot: HostSnapshot) -> bytes:
    """Return the file of a snapshot."""
    return msgspec.json.encode({"kind": KIND, "version": VERSION, "snapshot": plain_of(HostSnapshot, snapshot)})


def told(host: HostTables) -> str:
    """Return a host as text for the status of an EgressNode: without links that no route leads to, as those of pods,
    which come and go. Empty when it is too long for that.
    """
    used = {route.hop.link for route in host.routes if not isinstance(route.hop, Discard)}
    less = replace(
        host,
        links=MappingProxyType({name: link for name, link in host.links.items() if name in used}),
        settings=MappingProxyType({key: value for key, value in host.settings.items() if key[0] in {*used, ALL_LINKS}}),
    )
    text = msgspec.json.encode(plain_of(HostTables, less), order="sorted").decode()
    return text if len(text) <= MOST_TOLD else ""


def told_host(text: str) -> HostTables | None:
    """Return the host that such a text tells of; None when it is empty, or of another version of outgate."""
    try:
        host: HostTables | None = value_of(HostTables, msgspec.json.decode(text)) if text else None
    except (msgspec.DecodeError, Misread, RecursionError):
        return None
    return host


def snapshots(directory: Path) -> Mapping[str, HostSnapshot]:
    """Return the snapshots of a directory, by node; of two of one node the later one.

    Raises:
        IntentError: a file is none, or the directory can not be read.
    """
    found: dict[str, HostSnapshot] = {}
    if not directory.is_dir():
        raise IntentError("is no directory of snapshots", Origin(file=str(directory)))
    try:
        files = sorted(directory.glob("*.json"))
    except OSError as error:
        raise IntentError(f"can not be listed: {error.strerror}", Origin(file=str(directory))) from error
    for file in files:
        one = _read(file)
        if one.node not in found or found[one.node].taken_s <= one.taken_s:
            found[one.node] = one
    return MappingProxyType(found)


def _read(file: Path) -> HostSnapshot:
    origin = Origin(file=str(file))
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise IntentError(f"is larger than {_MOST_BYTES >> 20} MB", origin)
        content = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise IntentError(f"can not be read: {error}", origin) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise IntentError("is not what `outgate node snapshot` writes", origin)
    if content.get("version") != VERSION:
        raise IntentError(f"is of version {content.get('version')}; this outgate reads {VERSION}", origin)
    try:
        snapshot: HostSnapshot = value_of(HostSnapshot, content.get("snapshot"))
    except Misread as error:
        raise IntentError(str(error), origin) from error
    return snapshot

"""What became of egress IPs: `status.moves` of the EgressRouting `default`, which the cluster role keeps."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import msgspec
from msgspec import Struct

from outgate.model.errors import IntentError
from outgate.model.placement import Moved
from outgate.model.why import Origin
from outgate.sources.loose import files_in, objects_in

_GROUP, _NAME = "outgate.io/", "default"


class MovedAddress(Struct, frozen=True, gc=False, rename="camel"):
    """One entry, as it stands in the status."""

    time: str
    address: str
    egress_ip: str = msgspec.field(name="egressIP")
    from_node: str = ""
    to_node: str = ""
    reason: str = ""


def moved(given: MovedAddress) -> Moved:
    """Return the entry in the words of the model.

    Raises:
        ValueError: its address is none.
    """
    return Moved(
        at=given.time,
        egress_ip=given.egress_ip,
        address=ip_address(given.address),
        from_node=given.from_node,
        to_node=given.to_node,
        reason=given.reason,
    )


def read_history(paths: Sequence[Path]) -> tuple[Moved, ...] | None:
    """Return the history that files, and the manifests of directories, hold; None: they hold no such EgressRouting.

    Raises:
        IntentError: a file can not be read, or an entry is none.
    """
    for file in files_in(paths):
        for one in objects_in(file):
            metadata, status = one.get("metadata"), one.get("status")
            is_ours = one.get("kind") == "EgressRouting" and str(one.get("apiVersion", "")).startswith(_GROUP)
            if is_ours and isinstance(metadata, dict) and metadata.get("name") == _NAME:
                moves = status.get("moves", ()) if isinstance(status, dict) else ()
                try:
                    return tuple(map(moved, msgspec.convert(moves, tuple[MovedAddress, ...])))
                except (msgspec.ValidationError, ValueError) as error:
                    origin = Origin(file=str(file), kind="EgressRouting", name=_NAME, field="status.moves")
                    raise IntentError(str(error), origin) from error
    return None

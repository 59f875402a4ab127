"""Delete live flows, so that what they carried is looked up anew or ends."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from outgate.model.errors import Refused
from outgate.model.flow import Flow
from outgate.systems.conntrack.entry import NETLINK_NETFILTER, delete_request
from outgate.systems.netlink import NetlinkSocket


def delete(flows: Iterable[Flow]) -> int:
    """Delete exactly these entries and return how many were still there; one that ended by itself is fine.

    Raises:
        Refused: the first entry that the kernel would not delete, and its words; all others were tried.
        Unreachable: netlink does not open or answer.
    """
    doomed = tuple(flows)
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        refusals = netlink.batch(map(delete_request, doomed))
    for refusal in refusals:
        if refusal.errno != errno.ENOENT:
            raise Refused(f"delete {doomed[refusal.index]}", refusal.words)
    return len(doomed) - len(refusals)

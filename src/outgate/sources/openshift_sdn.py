"""What openshift-sdn knows of egress IPs: NetNamespaces give namespaces addresses, HostSubnets give those to nodes.

Source: network.openshift.io/v1 of openshift/api.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from outgate.model.errors import IntentError
from outgate.model.sdn import HostSubnet, NetNamespace, Sdn
from outgate.model.why import Origin
from outgate.sources.loose import files_in, objects_in

_GROUP = "network.openshift.io/"


def read_sdn(paths: Sequence[Path]) -> Sdn:
    """Return the NetNamespaces and HostSubnets of files, and of the manifests of directories.

    Raises:
        IntentError: a file can not be read, or an object says an address that is none.
    """
    namespaces: list[NetNamespace] = []
    hosts: list[HostSubnet] = []
    for file in files_in(paths):
        for one in objects_in(file):
            if str(one.get("apiVersion", "")).startswith(_GROUP):
                origin = Origin(file=str(file), kind=str(one.get("kind")), name=_name(one))
                if one.get("kind") == "NetNamespace":
                    namespaces.append(
                        NetNamespace(str(one.get("netname") or _name(one)), _addresses(one, origin), origin)
                    )
                elif one.get("kind") == "HostSubnet":
                    hosts.append(_host(one, origin))
    return Sdn(namespaces=tuple(namespaces), hosts=tuple(hosts))


def _name(one: dict[str, Any]) -> str:
    metadata = one.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def _host(one: dict[str, Any], origin: Origin) -> HostSubnet:
    try:
        cidrs = tuple(ip_network(str(each)) for each in one.get("egressCIDRs") or ())
    except ValueError as error:
        raise IntentError(f"egressCIDRs: {error}", origin) from error
    return HostSubnet(str(one.get("host") or _name(one)), _addresses(one, origin), cidrs, origin)


def _addresses(one: dict[str, Any], origin: Origin) -> tuple[Any, ...]:
    try:
        return tuple(ip_address(str(each)) for each in one.get("egressIPs") or ())
    except ValueError as error:
        raise IntentError(f"egressIPs: {error}", origin) from error

"""What else lives on the machine and could undo, bend or starve an egress gateway: services, limits, versions."""

from __future__ import annotations

from dataclasses import dataclass

from outgate.model.net import LinkName, Mac


@dataclass(frozen=True, slots=True, kw_only=True)
class Networkd:
    """systemd-networkd: whether it deletes routes and policy rules that it did not make (its default), and the file
    that says so last; an empty file means that no file says anything.
    """

    running: bool = False
    keeps_routes: bool = False  # ManageForeignRoutes=no
    keeps_rules: bool = False  # ManageForeignRoutingPolicyRules=no
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NmService:
    """NetworkManager, and which devices it is told to leave alone, as `unmanaged-devices` lists them."""

    running: bool = False
    unmanaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewalld:
    """firewalld, and whether a reload flushes everybody's rules (FlushAllOnReload, on by default)."""

    running: bool = False
    flushes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NftablesService:
    """nftables.service: whether it is enabled, and the file or unit that holds `flush ruleset`; empty is none."""

    enabled: bool = False
    flushed_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conntrack:
    """How full connection tracking is. A maximum of 0: it is not loaded, or not to be read."""

    count: int = 0
    maximum: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Macvlan:
    """A macvlan of any owner, with what it stands on. `packets` counts the unicast ones that it has received: ARP
    requests reach every macvlan and say nothing about whether somebody still uses its MAC.
    """

    name: LinkName
    parent: LinkName | None
    mac: Mac
    packets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine. Versions are tuples of numbers, empty when unknown (of `nft`: not installed)."""

    kernel: tuple[int, ...] = ()
    nft: tuple[int, ...] = ()
    networkd: Networkd = Networkd()
    nm: NmService = NmService()
    firewalld: Firewalld = Firewalld()
    nftables_service: NftablesService = NftablesService()
    conntrack: Conntrack = Conntrack()
    macvlans: tuple[Macvlan, ...] = ()
    unread: tuple[str, ...] = ()  # what could not be read, in sentences

"""Taking over a tenant from somebody else's link without losing a packet of a running flow.

Neighbours remember MACs for minutes to hours, so a new link with a new MAC can not simply take the old one's place. It
is made beside it; the address moves (added to the new link, announced, then taken from the old one); the old link
stays, without an address, and what still comes by its MAC is the tenant's, until nothing has come for a while. Each of
these states is a sound one to stay in, so a crash at any point loses nothing, and a later round goes on.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from types import MappingProxyType

from outgate.model.ledger import Adoption, Ledger
from outgate.model.net import LinkAddress, LinkName, Mac, TenantLink
from outgate.model.state import Facts, Moment, Resource

QUIET_S = 300.0  # Linux asks a neighbour again after a minute at most, and switches forget a MAC after five


def settle_adoption(facts: Facts, ledger: Ledger, moment: Moment) -> Ledger:
    """Return the ledger with what is known of old links: forget those that are gone, release those that are silent.

    A link whose tenant has no allocation any more is released at once. One whose traffic was not counted is not silent.
    """
    if not ledger.adopting:
        return ledger
    settled = {
        link: _looked_at(link, adoption, moment, wanted=adoption.tenant in ledger.tenants)
        for link, adoption in ledger.adopting.items()
        if _stands(link, facts)
    }
    return ledger if settled == dict(ledger.adopting) else replace(ledger, adopting=MappingProxyType(settled))


def adopted_by(tenant: str, facts: Facts, ledger: Ledger) -> tuple[LinkName, ...]:
    """Return the old links whose traffic is a tenant's, sorted; released ones have none any more."""
    return tuple(
        sorted(
            link
            for link, adoption in ledger.adopting.items()
            if adoption.tenant == tenant and not adoption.released and _stands(link, facts)
        )
    )


def handed_over(
    facts: Facts, ledger: Ledger, waiting: AbstractSet[Resource], *, leaving: bool = False
) -> frozenset[Resource]:
    """Return the old links that are ours to drop now, as resources that stand there: silent, and without an address
    that waits for the new link. When outgate leaves the machine they go with it: nothing would guard them any more.
    """
    busy = {address.link for address in waiting if isinstance(address, LinkAddress)}
    return frozenset(
        TenantLink(
            name=link,
            parent=adoption.parent,
            mac=facts.links[link].mac or Mac(""),
            alternative=f"until now {adoption.tenant}",
        )
        for link, adoption in ledger.adopting.items()
        if _stands(link, facts) and (leaving or (adoption.released and link not in busy))
    )


def awaited(actual: AbstractSet[Resource], ledger: Ledger) -> frozenset[LinkAddress]:
    """Return the addresses of old links that must stay for now: their tenant's new link does not have them yet."""
    here = [resource for resource in actual if isinstance(resource, LinkAddress)] if ledger.adopting else []
    standing = {(address.link, address.address) for address in here}
    return frozenset(
        old
        for old in here
        if (adoption := ledger.adopting.get(old.link)) is not None
        and (allocation := ledger.tenants.get(adoption.tenant)) is not None
        and (allocation.link, old.address) not in standing
    )


def _stands(link: LinkName, facts: Facts) -> bool:
    """Whether the old link is there; another kind of link that got its name since is somebody else's."""
    return link in facts.links and facts.links[link].kind == "macvlan"


def _looked_at(link: LinkName, adoption: Adoption, moment: Moment, *, wanted: bool) -> Adoption:
    if not wanted:
        return replace(adoption, released=True)
    packets = moment.received.get(link)
    if packets is None:
        return adoption
    if packets != adoption.packets:  # also of one that was released and could not be dropped yet: it is not silent
        return replace(adoption, packets=packets, quiet_since_s=moment.now_s, released=False)
    return replace(adoption, released=True) if moment.now_s - adoption.quiet_since_s >= QUIET_S else adoption

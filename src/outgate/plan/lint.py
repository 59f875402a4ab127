"""What manifests say against each other, as far as they can know it: the same answers as in a cluster, without one.

A folder seldom holds all of a cluster. A claim is judged by its pool when the pool and the namespace are there as well,
and an address by everything that is there, for tenants whose gateway is.
"""

from __future__ import annotations

from outgate.model.intent import Intent
from outgate.model.why import Finding
from outgate.plan.egress_claims import tenants_of_claims
from outgate.plan.verdicts import address_refusals


def contradictions(intent: Intent) -> tuple[Finding, ...]:
    """Return why objects that can be read would be refused nevertheless."""
    namespaces, pools = {one.name for one in intent.namespaces}, {one.name for one in intent.pools}
    judged = {
        f"EgressClaim/{one.namespace}/{one.name}"
        for one in intent.claims
        if one.namespace in namespaces and one.claim.pool in pools
    }
    homeless = {f"EgressTenant/{one.name}" for one in intent.tenants if intent.gateway_of(one) is None}
    return (
        *(one for one in tenants_of_claims(intent).findings if one.about in judged),
        *(one for one in address_refusals(intent, {}) if one.about not in homeless),
    )

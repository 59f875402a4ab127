"""What namespaces claim for themselves becomes tenants: one EgressTenant for each EgressClaim that its pool allows.

The tenant bears two labels that say whose it is; a tenant of that name without them is somebody else's, and stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from outgate.model.intent import EgressClaim, EgressTenant, Intent, SourceIdentity
from outgate.model.selector import LabelSelector
from outgate.model.why import Finding, Severity
from outgate.plan.allocate import pool_refusal
from outgate.plan.selection import NamespaceIndex

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_LONGEST_NAME = 63  # a label's value


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The tenants that claims want, by the claim's namespace and name; the tenants of claims that are gone; and why a
    claim gets none.
    """

    wants: Mapping[tuple[str, str], EgressTenant]
    gone: tuple[EgressTenant, ...]
    findings: tuple[Finding, ...] = ()


def tenants_of_claims(intent: Intent) -> Claimed:
    """Decide for all claims of a cluster."""
    pools, namespaces = {pool.name: pool for pool in intent.pools}, NamespaceIndex(intent.namespaces)
    strangers = {one.name for one in intent.tenants if one.served is None or one.served.claim is None}
    wants: dict[tuple[str, str], EgressTenant] = {}
    findings = []
    for claim in intent.claims:
        tenant = _tenant(claim)
        if len(claim.name) > _LONGEST_NAME:
            text = f"the name has {len(claim.name)} characters, and a label takes {_LONGEST_NAME}"
            findings.append(_refused("NameTooLong", claim, text, "give it a shorter name"))
        elif tenant.name in strangers:
            text = f"EgressTenant/{tenant.name} is there already, and was not made for this claim"
            findings.append(_refused("NameTaken", claim, text, "rename one of them"))
        elif (refusal := pool_refusal(tenant, pools.get(claim.claim.pool), pools, namespaces)) is not None:
            findings.append(_refused(refusal.reason, claim, refusal.text, refusal.fix))
        else:
            wants[claim.namespace, claim.name] = tenant
    asked = {(claim.namespace, claim.name) for claim in intent.claims}
    gone = tuple(
        one for one in intent.tenants if one.served is not None and one.served.claim and one.served.claim not in asked
    )
    return Claimed(wants=MappingProxyType(wants), gone=gone, findings=tuple(findings))


def tenant_name(claim: EgressClaim) -> str:
    """Return the name of a claim's tenant. A namespace has no dot in its name, so no two claims share one."""
    return f"claim-{claim.namespace}.{claim.name}"


def _tenant(claim: EgressClaim) -> EgressTenant:
    return EgressTenant(
        name=tenant_name(claim),
        gateway=claim.gateway,
        namespace_selector=LabelSelector(match_labels=((NAMESPACE_LABEL, claim.namespace),)),
        pod_selector=claim.pod_selector,
        identity=SourceIdentity(),
        claim=claim.claim,
        origin=claim.origin,
    )


def _refused(reason: str, claim: EgressClaim, text: str, fix: str) -> Finding:
    return Finding(reason, f"EgressClaim/{claim.namespace}/{claim.name}", text, Severity.REFUSAL, fix, claim.origin)

"""What each role may do on the API server, as a table: it reads what its kinds say, and writes what it owns. The RBAC
manifests are made from here, and the roles are tried with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from outgate.sources.kube.kinds import CLUSTER, LOOKER, PODS, Kinds, of_node
from outgate.systems.kubeapi.render import GROUP

NAMESPACE = "outgate"
GATEWAY_ACCOUNT, CLUSTER_ACCOUNT, LEASE = "outgate-gateway", "outgate-cluster", "outgate-cluster"
NODE_ACCOUNT = NODE_NAMESPACE = "outgate-node"  # a namespace of its own, whose pods may stand on the host's network
_READ = ("get", "list", "watch")
_MAKE = ("create", "patch", "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """Verbs on one resource (`egresstenants/status` is one of its own), perhaps on named objects, perhaps in our
    namespace only.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    is_namespaced: bool = False

    def rule(self) -> dict[str, Any]:
        """Return the rule of a Role or ClusterRole."""
        names = {"resourceNames": list(self.names)} if self.names else {}
        return {"apiGroups": [self.group], "resources": [self.resource], **names, "verbs": list(self.verbs)}


_EVENTS = Right(group="events.k8s.io", resource="events", verbs=("create",))


def gateway_rights() -> tuple[Right, ...]:
    """Return what a gateway needs: kinds that it, or who looks with its account, may have to read, its words in
    statuses, and its own next token.
    """
    renewal = Right(
        group="", resource="serviceaccounts/token", verbs=("create",), names=(GATEWAY_ACCOUNT,), is_namespaced=True
    )
    said = tuple(
        Right(group=GROUP, resource=f"{plural}/status", verbs=("patch",))
        for plural in ("egressgateways", "egresstenants")
    )
    return (*_reading(LOOKER), *said, _EVENTS, renewal)


def cluster_rights() -> tuple[Right, ...]:
    """Return what the cluster role needs: the kinds that it judges by, their statuses, events, and its lease."""
    judged = tuple(Right(group=GROUP, resource=f"{plural}/status", verbs=("patch",)) for plural in _OURS)
    leases = "coordination.k8s.io"
    return (
        *_reading(CLUSTER),
        Right(group=PODS.group, resource=PODS.plural, verbs=_READ),  # while an egress IP is on a node
        *judged,
        Right(group=GROUP, resource="egresstenants", verbs=_MAKE),  # those of claims
        Right(group=GROUP, resource="egressnodes", verbs=_MAKE),
        Right(group=GROUP, resource="egressroutings", verbs=("create",)),  # the default, once
        Right(group="k8s.ovn.org", resource="egressips", verbs=("patch",)),  # where they are, with stance `own`
        Right(group="k8s.ovn.org", resource="egressips/status", verbs=("patch",)),
        Right(group="k8s.ovn.org", resource="adminpolicybasedexternalroutes", verbs=_MAKE),  # those of tenants
        _EVENTS,
        Right(group=leases, resource="leases", verbs=("get", "update"), names=(LEASE,), is_namespaced=True),
        Right(group=leases, resource="leases", verbs=("create",), is_namespaced=True),  # a name can not be asked for
    )


def node_rights() -> tuple[Right, ...]:
    """Return what the role on a node needs: its own objects, which RBAC can not tell from others', and a status."""
    return (*_reading(of_node("")), Right(group=GROUP, resource="egressnodes/status", verbs=("patch",)))


def _reading(kinds: Kinds) -> tuple[Right, ...]:
    return tuple(Right(group=one.group, resource=one.plural, verbs=_READ) for one in kinds.always)


def manifests() -> list[dict[str, Any]]:
    """Return the accounts, roles and bindings of all roles, and what people get."""
    return [
        *_of(GATEWAY_ACCOUNT, gateway_rights()),
        *_of(CLUSTER_ACCOUNT, cluster_rights()),
        *_of(NODE_ACCOUNT, node_rights(), NODE_NAMESPACE),
        {
            **_headed("ClusterRole", "outgate-view"),
            "metadata": {
                "name": "outgate-view",
                "labels": {**_LABELS, **{f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in _PEOPLE}},
            },
            "rules": [{"apiGroups": [GROUP], "resources": list(_OURS), "verbs": list(_READ)}],
        },
        {
            **_headed("ClusterRole", "outgate-claims"),
            "metadata": {
                "name": "outgate-claims",
                "labels": {
                    **_LABELS,
                    **{f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in _EDITORS},
                },
            },
            "rules": [{"apiGroups": [GROUP], "resources": ["egressclaims"], "verbs": list(_CHANGE)}],
        },
        {
            **_headed("ClusterRole", "outgate-admin"),
            "rules": [
                {
                    "apiGroups": [GROUP],
                    "resources": list(_OURS),
                    "verbs": [*_READ, *_CHANGE],
                }
            ],
        },
    ]


_LABELS = {"app.kubernetes.io/name": "outgate"}
_PEOPLE, _EDITORS = ("view", "edit", "admin"), ("edit", "admin")
_CHANGE = ("create", "update", "patch", "delete")
_OURS = ("egressclaims", "egressgateways", "egressnodes", "egresspools", "egressroutings", "egresstenants")
_API = "rbac.authorization.k8s.io/v1"


def _of(account: str, rights: tuple[Right, ...], namespace: str = NAMESPACE) -> list[dict[str, Any]]:
    """Return an account with its roles."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    wide = [right.rule() for right in rights if not right.is_namespaced]
    own = [right.rule() for right in rights if right.is_namespaced]
    roles = [
        {**_headed("Role", account, namespace), "rules": own},
        {**_headed("RoleBinding", account, namespace), **_bound("Role", account), "subjects": [subject]},
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": namespace, "labels": dict(_LABELS)},
        },
        {**_headed("ClusterRole", account), "rules": wide},
        {**_headed("ClusterRoleBinding", account), **_bound("ClusterRole", account), "subjects": [subject]},
        *(roles if own else ()),
    ]


def _headed(kind: str, name: str, namespace: str = "") -> dict[str, Any]:
    where = {"namespace": namespace} if namespace else {}
    return {"apiVersion": _API, "kind": kind, "metadata": {"name": name, **where, "labels": dict(_LABELS)}}


def _bound(kind: str, name: str) -> dict[str, Any]:
    return {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}}

"""A must-gather directory (`oc adm must-gather`): the files in it that hold what outgate reads.

Objects stand in files by scope, group and kind: `cluster-scoped-resources/core/nodes/NAME.yaml`,
`namespaces/NAME/core/pods.yaml`. The directory of an image stands between, one level below what the command made.
Source: the layout that `oc adm inspect` writes (openshift/oc, pkg/cli/admin/inspect).
"""

from __future__ import annotations

from pathlib import Path

from outgate.model.errors import NotReady
from outgate.model.intent import Intent
from outgate.sources.manifests import check

_CLUSTER, _NAMESPACES = "cluster-scoped-resources", "namespaces"
_KINDS = (
    "core/nodes",
    "config.openshift.io/networks",
    "k8s.ovn.org/egressips",
    "k8s.ovn.org/adminpolicybasedexternalroutes",
    "outgate.io/egressroutings",
)
_RIVALS = ("k8s.ovn.org/routeadvertisements", "cloud.network.openshift.io/cloudprivateipconfigs")
_RIVALS_OF_NAMESPACES = (
    "core/services",
    "networking.k8s.io/networkpolicies",
    "k8s.ovn.org/egressfirewalls",
    "k8s.ovn.org/egressqoses",
    "k8s.ovn.org/egressservices",
)
HISTORY_KINDS = ("outgate.io/egressroutings",)
SDN_KINDS = ("network.openshift.io/netnamespaces", "network.openshift.io/hostsubnets")


def root_of(directory: Path) -> Path | None:
    """Return the directory in which the objects of a must-gather stand; None when this is none."""
    places = [directory, *sorted(one for one in directory.iterdir() if one.is_dir())] if directory.is_dir() else []
    return next((one for one in places if (one / _CLUSTER).is_dir()), None)


def read_must_gather(root: Path) -> Intent:
    """Return the objects of a must-gather.

    Raises:
        NotReady: there is nothing in it that outgate reads, or a file can not be read.
    """
    found = files_of(root, _KINDS)
    for namespace in sorted(one for one in (root / _NAMESPACES).glob("*") if one.is_dir()):
        own, pods = namespace / f"{namespace.name}.yaml", namespace / "core" / "pods.yaml"
        found += [one for one in (own, pods) if one.is_file()]
        if not pods.is_file():
            found += sorted(namespace.glob("pods/*/*.yaml"))
    if not found:
        raise NotReady(f"{root}: holds no object that outgate reads")
    return check(found)[0]


def rival_files(root: Path) -> list[Path]:
    """Return the files of what else has a say about packets that leave: see `sources.rivals`."""
    found = files_of(root, _RIVALS)
    for namespace in sorted(one for one in (root / _NAMESPACES).glob("*") if one.is_dir()):
        for kind in _RIVALS_OF_NAMESPACES:
            found += _of_kind(namespace / kind)
    return found


def files_of(root: Path, kinds: tuple[str, ...]) -> list[Path]:
    """Return the files of cluster-scoped kinds: one for each object, or one list."""
    found: list[Path] = []
    for kind in kinds:
        found += _of_kind(root / _CLUSTER / kind)
    return found


def _of_kind(place: Path) -> list[Path]:
    listed = place.with_suffix(".yaml")
    return [listed] if listed.is_file() else sorted(place.glob("*.yaml"))

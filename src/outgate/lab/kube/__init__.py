"""A real control plane on loopback: etcd and kube-apiserver, for tests, the demo and the bench.

    from outgate.lab.kube import ControlPlane, binaries

It has no controller-manager and no scheduler: nothing is garbage-collected, a deleted namespace stays `Terminating`,
pods stay where they were put, nodes keep the taint `not-ready`, no service account is made for a new namespace.
"""

from outgate.lab.kube.plane import ControlPlane
from outgate.lab.kube.programs import Programs, Unavailable, binaries
from outgate.lab.kube.relay import relay
from outgate.lab.kube.server import ServerFailed

__all__ = ["ControlPlane", "Programs", "ServerFailed", "Unavailable", "binaries", "relay"]

"""Where a role finds its input and keeps its state. Read by the command line, used by the wiring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from outgate.control.place import Place, here

MANIFESTS = Path("/etc/outgate")
STATE = Path("/var/lib/outgate")
RUN = Path("/run/outgate")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """The settings of a gateway. `name` is the EgressGateway this machine is; empty means the only one there is."""

    manifests: Path = MANIFESTS
    kubeconfig: Path | None = None  # the intent comes from this API server instead
    contexts: tuple[str, ...] = ()  # of it, all of one cluster, the preferred one first; none: the current one
    clusters: tuple[tuple[str, tuple[str, ...]], ...] = ()  # several instead: each with its name and its contexts
    state: Path = STATE
    run: Path = RUN
    instance: str = "gateway"
    name: str = ""
    metrics: str = ""  # ADDRESS:PORT; empty is off
    metrics_remote: bool = False  # also on an address that others reach
    sure: bool = False  # the user's --yes
    bundle: Path | None = None  # look at what this bundle holds instead of at this machine

    @property
    def source(self) -> str:
        """Where the intent comes from, in words."""
        if self.kubeconfig is None:
            return str(self.manifests)
        named = (f"{name}={','.join(contexts)}" for name, contexts in self.clusters)
        return " ".join((str(self.kubeconfig), *self.contexts, *named))


def place_of(options: GatewayOptions) -> Place:
    """Return where this gateway keeps its lock, socket and state.

    Raises:
        IntentError: the instance's name can be no part of a path.
    """
    return here(options.instance, run_dir=options.run, state_dir=options.state)

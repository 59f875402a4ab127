"""A gateway machine that is used again for story after story: laboratory, warm gateway process, traffic, oracles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outgate.lab.addresses import INNER_MAC
from outgate.lab.manifests import GATEWAY, Manifest
from outgate.plan.allocate import mac_of
from tests.gateway.pictures import ledger_in, picture
from tests.gateway.rig import Rig, a_gateway
from tests.gateway.traffic import Seen, Traffic
from tests.gateway.warm import Warm

BLUE, RED, GREEN, GREY = NAMESPACES = ("ns-blue", "ns-red", "ns-green", "ns-grey")
STALE = (
    "n2"  # its neighbour table has the NIC's MAC for every next hop; n1 and n3 have the tenants' MACs nailed to them
)


class Workbench:
    """The gateway machine, with what changes it and what looks at it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.warm = Warm(rig.lab.gw, rig.place)
        self.traffic = Traffic(rig.lab)
        self._nail_neighbours()

    def close(self) -> None:
        """End traffic and processes."""
        self.traffic.close()
        self.warm.close()

    def begin(self) -> None:
        """Forget everything: flush the machine, forget the ledger, flows, and what was seen outside."""
        self.warm.flush()
        self.forget()
        self.rig.lab.gw.run(("conntrack", "-F"))
        for counter in (self.rig.lab.outside, self.rig.lab.uplink, self.rig.lab.inner):
            counter.reset()
        self.traffic.close()
        self.traffic = Traffic(self.rig.lab)

    def forget(self) -> None:
        """Forget the ledger."""
        for file in (self.rig.place / "state" / "gateway").glob("state.json*"):
            file.unlink()

    def write(self, wanted: Iterator[Manifest]) -> None:
        """Make the manifest directory hold these and nothing else."""
        files = {self.rig.manifests.put(manifest) for manifest in wanted}
        for file in set(self.rig.manifests.directory.iterdir()) - files:
            file.unlink()

    def picture(self) -> tuple[str, ...]:
        """What the machine holds now."""
        return picture(self.rig.lab.gw, ledger_in(self.rig.place))

    def check_nothing_open(self, allowed: Seen, when: str) -> None:
        """Send from everywhere; nothing leaks and nobody is seen as somebody else."""
        self.traffic.send()
        assert self.rig.leaked() == 0, f"leaked {when}"
        strangers = {who: seen - allowed[who] for who, seen in self.traffic.seen().items() if seen - allowed[who]}
        assert not strangers, f"seen as another {when}: {strangers}"

    def _nail_neighbours(self) -> None:
        """Let packets keep coming whatever is missing, and from one worker by the wrong way."""
        for name, node in self.rig.lab.nodes.items():
            for tenant in self.rig.lab.tenants:
                mac = INNER_MAC if name == STALE else mac_of(GATEWAY, tenant.namespace)
                node.poison(tenant.next_hop4, mac)
                node.poison(tenant.next_hop6, mac)


@contextmanager
def a_workbench(place: Path) -> Iterator[Workbench]:
    """Yield a workbench over three workers and four namespaces."""
    with a_gateway(place, nodes=3, namespaces=NAMESPACES) as rig:
        bench = Workbench(rig)
        try:
            yield bench
        finally:
            bench.close()

"""A gateway on tagged links, told by a program in the guest: inner LAN on VLAN 99 of a bond, uplink on VLAN 55.

    worker, pods -- inner LAN -+- enp1s0 -+- bond0.99 -- gateway -- enp7s0.55 -- enp7s0 -- uplink LAN -- outside
                               +- enp2s0 -+

The laboratory is built in the guest, whose kernel has VLANs and bonds, and its gateway machine is cabled anew. Each
step asserts and says so; the exit code is 0 when all of them held.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from outgate.lab import addresses
from outgate.lab.batch import cable, configure
from outgate.lab.manifests import Manifests, egress_gateway
from outgate.lab.node import Pod
from outgate.lab.outside import SourceCounter
from outgate.lab.topology import BRIDGE, GATEWAY_PORT, Laboratory
from outgate.lab.waiting import eventually

INNER, UPLINK = "bond0.99", "enp7s0.55"
QUICK_PROBING = {"probes": 1, "probeIntervalMilliseconds": 50}  # this story is not about asking for addresses
LIMIT_S = 120.0
TARGETS = (addresses.OUTSIDE4, addresses.OUTSIDE6)

_LAN_PORTS = ("gw1", "gw2")
_GATEWAY_LINES = (
    "link add bond0 type bond mode active-backup miimon 50",
    "link set enp1s0 down",
    "link set enp1s0 master bond0",
    "link set enp2s0 down",
    "link set enp2s0 master bond0",
    "link set bond0 up",
    f"link add link bond0 name {INNER} type vlan id 99",
    f"link add link enp7s0 name {UPLINK} type vlan id 55",
    f"addr add {addresses.INNER4}/24 dev {INNER}",
    f"addr add {addresses.INNER6}/64 dev {INNER} nodad",
    f"addr add {addresses.UPLINK4}/24 dev {UPLINK}",
    f"addr add {addresses.UPLINK6}/64 dev {UPLINK} nodad",
    f"link set {INNER} up",
    "link set enp7s0 up",
    f"link set {UPLINK} up",
    f"route add default via {addresses.ROUTER4} dev {UPLINK}",
    f"route add default via {addresses.ROUTER6} dev {UPLINK}",
)


def main() -> int:
    """Tell the story; an assertion or a time-out ends it."""
    with tempfile.TemporaryDirectory() as folder, Laboratory(nodes=1, bare=True) as lab:
        place = Path(folder)
        cable_anew(lab)
        lab.steer_all()
        lab.server.wait_until_ready()
        uplink = SourceCounter(lab.wan, f"{GATEWAY_PORT}.55")
        daemon = start(lab, place)
        try:
            eventually(lambda: all(served(lab, pod) for pod in lab.pods), "every pod is served", within_s=LIMIT_S)
            step("every pod leaves as its tenant's egress IPs, over both families")
            configure({lab.gw: ["link set enp1s0 down"]})
            eventually(lambda: all(served(lab, pod) for pod in lab.pods), "served by the other port", within_s=LIMIT_S)
            step("the bond's other port carries on")
        finally:
            daemon.kill()
            daemon.wait()
            print((place / "daemon.log").read_text()[-2000:] if sys.exc_info()[0] else "", end="")
        lab.gw.run(("nft", "flush", "ruleset"))
        assert not any(served(lab, pod) for pod in lab.pods)
        assert lab.outside.leaked() + uplink.leaked() == 0, f"{lab.outside.seen()} {uplink.seen()}"
        step("without daemon and without nftables nothing leaks")
    return 0


def cable_anew(lab: Laboratory) -> None:
    """Replace the gateway machine's two cables by tagged ones, the inner one by two."""
    configure({lan: [f"link del {GATEWAY_PORT}"] for lan in (lab.lan, lab.wan)})
    first, second = _LAN_PORTS
    configure(
        {
            lab.lan: [
                cable(first, 0, to=lab.gw, link="enp1s0", mac=addresses.INNER_MAC),
                cable(second, 90, to=lab.gw, link="enp2s0"),
                *tagged(first, 99),
                *tagged(second, 99),
            ],
            lab.wan: [
                cable(GATEWAY_PORT, 0, to=lab.gw, link="enp7s0", mac=addresses.UPLINK_MAC),
                *tagged(GATEWAY_PORT, 55),
            ],
        }
    )
    configure({lab.gw: _GATEWAY_LINES})


def tagged(port: str, vlan: int) -> tuple[str, ...]:
    """Return what makes a cable's end here a tagged port of the LAN."""
    link = f"{port}.{vlan}"
    return (
        f"link set {port} up",
        f"link add link {port} name {link} type vlan id {vlan}",
        f"link set {link} master {BRIDGE}",
        f"link set {link} up",
    )


def start(lab: Laboratory, place: Path) -> subprocess.Popen[str]:
    """Start the daemon on the picture's manifests, its links named as they are here."""
    manifests = Manifests(place / "manifests")
    manifests.put_all(lab)
    manifests.put(egress_gateway(inner=[{"interface": INNER}], uplinks=[UPLINK], announce=QUICK_PROBING))
    places = ("-f", str(manifests.directory), "--state-dir", str(place / "state"), "--run-dir", str(place / "run"))
    with (place / "daemon.log").open("w") as log:
        command = (sys.executable, "-m", "outgate", "gateway", "run", "--metrics", "", *places)
        return lab.gw.popen(command, stdout=log, stderr=log)


def served(lab: Laboratory, pod: Pod) -> bool:
    """Whether a pod is seen as its tenant's egress IPs now, over both families."""
    tenant = next(tenant for tenant in lab.tenants if tenant.namespace == pod.namespace)
    return {pod.agent.fetch(target).source for target in TARGETS} == {tenant.egress4, tenant.egress6}


def step(sentence: str) -> None:
    """Say what has just been shown."""
    print(f"ok: {sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

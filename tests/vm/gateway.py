"""A laboratory whose gateway machine is a guest: it boots, it runs what its unit files would, its plug can be pulled.

The laboratory's own gateway is unplugged and TAP devices take its ports in both LANs, so that pods, workers and the
counters outside stay on the host, untouched by what happens to the machine between them. What must outlive a power cut,
outgate's state, is on a small disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from outgate.lab import addresses
from outgate.lab.addresses import CLUSTER, INNER_LINK, INNER_MAC, UPLINK, UPLINK_MAC, Address
from outgate.lab.batch import configure
from outgate.lab.manifests import Manifests
from outgate.lab.namespace import Namespace
from outgate.lab.node import Node
from outgate.lab.outside import SourceCounter
from outgate.lab.topology import BRIDGE, GATEWAY_PORT, Laboratory
from tests.vm.kernel import Unavailable, fetch
from tests.vm.machine import Machine, Nic

PORT = "vm"  # of either LAN, where the guest is plugged in

_TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_TAP = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
_CHECKOUT = Path(__file__).resolve().parents[2]
_NETWORK = f"""
set -e
for nic in /sys/class/net/*; do
  case $(<$nic/address) in
    {INNER_MAC}) ip link set ${{nic##*/}} name {INNER_LINK} ;;
    {UPLINK_MAC}) ip link set ${{nic##*/}} name {UPLINK} ;;
  esac
done
ip -batch - <<end
addr add {addresses.INNER4}/24 dev {INNER_LINK}
addr add {addresses.INNER6}/64 dev {INNER_LINK}
addr add {addresses.UPLINK4}/24 dev {UPLINK}
addr add {addresses.UPLINK6}/64 dev {UPLINK}
link set {INNER_LINK} up
link set {UPLINK} up
route add default via {addresses.ROUTER4} dev {UPLINK}
route add default via {addresses.ROUTER6} dev {UPLINK}
end
"""


class Gateway:
    """The guest in the place of the gateway machine, with the laboratory around it."""

    def __init__(self, lab: Laboratory, place: Path, program: Path, nics: Sequence[Nic]) -> None:
        """Prepare it; it is off. `program` is the folder that outgate is installed in."""
        self.lab = lab
        self.manifests = Manifests(place / "manifests")
        self.uplink = SourceCounter(lab.wan, PORT)  # what the guest sends, whether it arrives outside or not
        self.inner = SourceCounter(lab.lan, PORT)
        self._place = place
        self._program = program
        self._nics = nics
        self._disk = place / "disk"
        subprocess.run(("mke2fs", "-q", "-F", "-t", "ext4", self._disk, "32M"), check=True, stdout=subprocess.DEVNULL)
        self._machine: Machine | None = None

    @property
    def machine(self) -> Machine:
        """The guest, once it was booted."""
        assert self._machine is not None
        return self._machine

    def boot(self, *, forwarding: bool = False, before: str = "") -> None:
        """Switch it on and return when the host can talk to it, which is early: nothing else is waited for.

        `forwarding` is what sysctl.d says of it; `before` are lines of bash that change the installed machine.
        """
        network, install = self._place / "network.sh", self._place / "install.sh"
        network.write_text(_NETWORK)
        given = {
            "checkout": _CHECKOUT,
            "manifests": self.manifests.directory,
            "python": sys.base_prefix,
            "library": sysconfig.get_path("purelib"),
            "source": self._program,
            "interpreter": f"python{sysconfig.get_python_version()}",
            "network": network,
            "forwarding": int(forwarding),
        }
        lines = [f"{name}={shlex.quote(str(value))}" for name, value in given.items()]
        install.write_text("\n".join((*lines, ". $checkout/tests/vm/guest/gateway/install.sh", before, "")))
        if self._machine is None:
            self._machine = Machine(self._place, nics=self._nics, disk=self._disk, install=install, memory_mb=512)
        else:
            self._machine.switch_on()

    def cut_power(self) -> None:
        """Pull the plug."""
        if self._machine is not None:
            self._machine.cut_power()

    def unit(self, name: str) -> str:
        """Return the state of a unit: activating, active, failed, ..."""
        return self.machine.run(f"systemctl is-active {name}", check=False).text

    def status(self) -> dict[str, Any]:
        """Return what `outgate gateway status -o json` says, or an empty dict while nobody answers."""
        answer = self.machine.run("/opt/outgate/bin/outgate gateway status -o json 2>/dev/null", check=False).text
        found: dict[str, Any] = json.loads(answer) if answer else {}
        return found

    def refused(self) -> int:
        """Return how many packets outgate's table has refused or dropped since it was loaded; 0 without it."""
        listing = self.machine.run("nft -j list counters table inet outgate || echo '{}'", check=False).text
        objects = json.loads(listing.splitlines()[-1]).get("nftables", ())
        return sum(item["counter"]["packets"] for item in objects if "counter" in item)

    def make_stale(self, node: Node) -> None:
        """Let a worker send its pods' packets to the MAC address of the machine, not to those of the tenants' links."""
        for hop in self.next_hops():
            node.poison(hop, INNER_MAC)

    def heal(self, node: Node) -> None:
        """Let a worker ask anew where the next hops are."""
        for hop in self.next_hops():
            node.heal(hop)

    def next_hops(self) -> tuple[Address, ...]:
        """Return the next hops of all tenants."""
        return tuple(hop for tenant in self.lab.tenants for hop in (tenant.next_hop4, tenant.next_hop6))

    def received(self, link: str = INNER_LINK) -> int:
        """Return how many packets one of the guest's links has received since it booted; 0 before it has its name."""
        return int(self.machine.run(f"cat /sys/class/net/{link}/statistics/rx_packets || echo 0").text.split()[-1])

    def log(self) -> str:
        """Return the end of what systemd and its services said."""
        return self.machine.run("dmesg | tail -n 40; tail -n 60 /run/services.log", check=False).text

    def leaked(self) -> int:
        """Return how many packets with the address of a pod were seen outside, or sent on the uplink LAN."""
        return self.lab.outside.leaked(CLUSTER) + self.uplink.leaked(CLUSTER)


@contextlib.contextmanager
def a_gateway(lab: Laboratory, place: Path, program: Path) -> Iterator[Gateway]:
    """Yield the guest, wired to the laboratory in the place of its gateway machine, and off.

    Raises:
        Unavailable: there can be no guest, or no TAP device, on this machine.
    """
    fetch()
    configure({lan: [f"link del {GATEWAY_PORT}"] for lan in (lab.lan, lab.wan)})
    with _plugged(lab.lan) as inner, _plugged(lab.wan) as uplink:
        gateway = Gateway(lab, place, program, (Nic(tap=inner, mac=INNER_MAC), Nic(tap=uplink, mac=UPLINK_MAC)))
        try:
            yield gateway
        finally:
            gateway.cut_power()


@contextlib.contextmanager
def _plugged(lan: Namespace) -> Iterator[int]:
    """Yield a TAP device that is a port of a LAN; it goes with its descriptor."""
    if not _TUN.exists():
        raise Unavailable(f"{_TUN} is missing: this kernel or container has no TAP devices")
    with lan.inside():  # the device belongs to the namespace in which the file was opened
        tap = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", PORT.encode(), _TAP))
        configure({lan: [f"link set {PORT} master {BRIDGE}", f"link set {PORT} up"]})
        yield tap
    finally:
        os.close(tap)

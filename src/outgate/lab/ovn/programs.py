"""The programs of Open vSwitch and OVN on one node, and of its zone: databases, northd, vswitchd, ovn-controller.

They run in the foreground, as children that are killed with whoever started them, each with files of its own. Unix
sockets do not care for network namespaces, so all of a node's programs run in the node's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from outgate.lab.namespace import Namespace
from outgate.lab.waiting import eventually

_OVS_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_OVN_SCHEMAS = Path("/usr/share/ovn")
LIMIT_S = 60  # for what takes some milliseconds on a machine that has nothing else to do


def missing() -> str:
    """Return which of the programs this machine lacks, in a sentence; empty when it has all."""
    needed = ("ovn-northd", "ovn-controller", "ovs-vswitchd", "ovsdb-server", "ethtool")
    places = [Path(directory) for directory in ("/usr/sbin", "/usr/bin", "/sbin")]
    lacking = [name for name in needed if not any((place / name).exists() for place in places)]
    return f"OVN laboratory: {', '.join(lacking)} missing (ovn-central, ovn-host, openvswitch-switch, ethtool)" * bool(
        lacking
    )


@dataclass(frozen=True, slots=True)
class Programs:
    """What runs for one node, and how to talk to it. `place` is the node's directory of sockets, databases and logs."""

    net: Namespace
    place: Path

    @property
    def northbound(self) -> Path:
        """The socket of the zone's northbound database."""
        return self.place / "nb.sock"

    @property
    def southbound(self) -> Path:
        """The socket of the zone's southbound database."""
        return self.place / "sb.sock"

    def start_databases(self) -> None:
        """Start the databases of the zone and of the switch; they answer when this returns."""
        for name, schema in (
            ("nb", _OVN_SCHEMAS / "ovn-nb.ovsschema"),
            ("sb", _OVN_SCHEMAS / "ovn-sb.ovsschema"),
            ("ovs", _OVS_SCHEMA),
        ):
            self.net.run(("ovsdb-tool", "create", str(self.place / f"{name}.db"), str(schema)))
            self._serve(name)
        for name in ("nb", "sb", "ovs"):
            socket = self.place / f"{name}.sock"
            eventually(socket.exists, f"{socket} is there", within_s=LIMIT_S)

    def stop_northbound(self) -> None:
        """End the northbound database's server; what it holds is on the disk."""
        self.net.run(("ovs-appctl", "-t", str(self.place / "nb.ctl"), "exit"))
        eventually(lambda: not (self.place / "nb.ctl").exists(), "the server has ended", within_s=LIMIT_S)

    def start_northbound(self) -> None:
        """Start it again; it answers when this returns."""
        self._serve("nb")
        eventually((self.place / "nb.ctl").exists, "the server runs", within_s=LIMIT_S)

    def _serve(self, name: str) -> None:
        socket, database = self.place / f"{name}.sock", self.place / f"{name}.db"
        self._start(name, "ovsdb-server", f"--remote=punix:{socket}", str(database))

    def start_northd(self) -> None:
        """Start what turns the northbound database into the southbound."""
        databases = (f"--ovnnb-db=unix:{self.northbound}", f"--ovnsb-db=unix:{self.southbound}")
        self._start("northd", "ovn-northd", *databases)

    def start_switch(self) -> None:
        """Start the switch and return when it has a control socket."""
        self._start("vswitchd", "ovs-vswitchd", f"unix:{self.place / 'ovs.sock'}")
        eventually((self.place / "vswitchd.ctl").exists, "ovs-vswitchd runs", within_s=LIMIT_S)

    def start_controller(self) -> None:
        """Start what turns the southbound database into flows of this node."""
        environment = ("env", f"OVN_RUNDIR={self.place}", f"OVS_RUNDIR={self.place}")
        log = (f"--log-file={self.place / 'controller.log'}", "-vconsole:off", "--no-chdir")
        self._popen((*environment, "ovn-controller", *log, f"unix:{self.place / 'ovs.sock'}"))

    def vsctl(self, *arguments: str) -> str:
        """Run ovs-vsctl on the node's switch."""
        return self.net.run(("ovs-vsctl", f"--db=unix:{self.place / 'ovs.sock'}", *arguments)).stdout

    def nbctl(self, *arguments: str) -> str:
        """Run ovn-nbctl on the zone's northbound database, in one transaction."""
        return self.net.run(("ovn-nbctl", f"--db=unix:{self.northbound}", *arguments)).stdout

    def sbctl(self, *arguments: str) -> str:
        """Run ovn-sbctl on the zone's southbound database."""
        return self.net.run(("ovn-sbctl", f"--db=unix:{self.southbound}", *arguments)).stdout

    def replace_flows(self, bridge: str, flows: Sequence[str]) -> None:
        """Put OpenFlow flows in the place of those that a bridge has."""
        target = f"unix:{self.place / bridge}.mgmt"
        self.net.run(("ovs-ofctl", "-O", "OpenFlow13", "replace-flows", target, "-"), input="\n".join((*flows, "")))

    def flows(self, bridge: str) -> str:
        """Return a bridge's OpenFlow flows, as ovs-ofctl prints them."""
        return self.net.run(("ovs-ofctl", "-O", "OpenFlow15", "dump-flows", f"unix:{self.place / bridge}.mgmt")).stdout

    def settle(self) -> None:
        """Return once all chassis of the zone hold what the northbound database says."""
        self.nbctl(f"--timeout={LIMIT_S}", "--wait=hv", "sync")

    def _start(self, name: str, program: str, *arguments: str) -> None:
        environment = ("env", f"OVS_RUNDIR={self.place}", f"OVN_RUNDIR={self.place}", f"OVS_DBDIR={self.place}")
        own = (
            f"--unixctl={self.place / name}.ctl",
            f"--log-file={self.place / name}.log",
            "-vconsole:off",
            "--no-chdir",
        )
        self._popen((*environment, program, *own, *arguments))

    def _popen(self, argv: Sequence[str]) -> None:
        quiet = subprocess.DEVNULL
        self.net.popen(argv, stdin=quiet, stdout=quiet, stderr=quiet)

"""The unit gives the daemon a user of its own and two capabilities. In a namespace, a process with just these does all
that a gateway asks of the kernel; one without them does nothing.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "outgate-gateway.service"
PYTHON = "/usr/bin/python3"  # one that every user can run

ASKS = {
    "a setting of a link": ("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/lo/arp_ignore"),
    "forwarding of IPv6": ("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"),
    "a table": ("nft", "add", "table", "inet", "outgate"),
    "a link": ("ip", "link", "add", "og-00000001", "type", "veth"),
    "a policy rule": ("ip", "rule", "add", "pref", "100", "prohibit"),
    "a packet socket": (PYTHON, "-c", "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)"),
    "connection tracking": ("conntrack", "-L"),
}


def run(asked: tuple[str, ...], capabilities: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a command as nobody with these capabilities, in a network namespace that ends with it."""
    words = ",".join(["-all", *(f"+{one.removeprefix('CAP_').lower()}" for one in capabilities)])
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={words}"]
    nobody += [f"--ambient-caps={words}", f"--bounding-set={words}", "--no-new-privs"]
    return subprocess.run(["unshare", "--net", *nobody, *asked], capture_output=True, check=False)


@pytest.mark.parametrize("what", ASKS)
def test_the_capabilities_of_the_unit_are_enough_and_needed(what: str) -> None:
    (line,) = re.findall(r"(?m)^AmbientCapabilities=(.*)$", UNIT.read_text())

    with_them, without = run(ASKS[what], line.split()), run(ASKS[what], [])

    assert with_them.returncode == 0, with_them.stderr
    assert without.returncode != 0

"""What many kernels of build machines lack is there in the guest: VLANs, bonds, VRFs, under the kernel of Debian 12."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.vm.machine import Machine

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT_S = 400.0


def test_between_a_vlan_on_a_bond_and_a_tagged_uplink_pods_are_served_and_nothing_leaks(
    machine: Machine, program: Path
) -> None:
    machine.run("modprobe br_netfilter")  # the laboratory sets its switches, which are not there without
    told = a_story(machine, program, "tagged")

    assert machine.run("uname -r").text.startswith("6.1.")
    assert told.splitlines() == [
        "ok: every pod leaves as its tenant's egress IPs, over both families",
        "ok: the bond's other port carries on",
        "ok: without daemon and without nftables nothing leaks",
    ]


def test_the_routes_of_a_nic_in_a_vrf_are_those_of_the_vrf(machine: Machine, program: Path) -> None:
    told = machine.run(
        f"cd {shlex.quote(str(CHECKOUT))} && PYTHONPATH={program} {sys.executable} -m tests.vm.enslaved",
        limit_s=LIMIT_S,
    ).text

    assert told.splitlines() == [
        "ok: without a route in the VRF nothing of the pod leaves by the NIC, nor by another",
        "ok: a route of the VRF is followed as the egress IP, and answers come back",
        "ok: a VRF that discards answers to pods is told, and what is told mends it",
    ]


def a_story(machine: Machine, program: Path, name: str) -> str:
    """Run a program of this folder in the guest; return what it says."""
    command = f"PYTHONPATH={program} {sys.executable} -m tests.vm.{name}"
    return machine.run(f"cd {shlex.quote(str(CHECKOUT))} && {command}", limit_s=LIMIT_S).text

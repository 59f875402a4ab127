"""What many kernels of build machines lack is there in the guest: VLANs, bonds, VRFs, under the kernel of Debian 12."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from outgate.lab.ovn.programs import missing
from tests.vm.machine import Machine

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT_S = 400.0
MARKED_LIMIT_S = 1200.0  # two zones of OVN in a guest: some 150 s on an idle machine


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


def test_what_hangs_on_ovns_marks(tmp_path: Path, program: Path) -> None:
    if lacking := missing():
        pytest.skip(lacking)
    with Machine(tmp_path, memory_mb=3072) as machine:
        loaded = machine.run("modprobe br_netfilter; modprobe openvswitch && modprobe vport-geneve", check=False)
        if loaded.code:
            pytest.skip(f"NO OPEN VSWITCH in the guest's kernel: {loaded.text}")
        told = a_story(machine, program, "marked", limit_s=MARKED_LIMIT_S)

    assert told.splitlines() == [
        "ok: by a plain NIC, a bond, a bridge and a VLAN pods follow the host's route as their egress IP",
        "ok: explain says the same of each of them",
        "ok: to other nodes they keep their node's address, by the mark that OVN gives them and its answers get back",
        "ok: killed after each write of a round, on the way in and out, nothing leaves with another address",
        "ok: without its translation a pod elsewhere is stopped by its mark, one of the node leaves as its NIC",
    ]


def a_story(machine: Machine, program: Path, name: str, *, limit_s: float = LIMIT_S) -> str:
    """Run a program of this folder in the guest; return what it says."""
    command = f"PYTHONPATH={program} {sys.executable} -m tests.vm.{name}"
    return machine.run(f"cd {shlex.quote(str(CHECKOUT))} && {command}", limit_s=limit_s).text

"""What many kernels of build machines lack is there in the guest: VLANs and bonds, under the kernel of Debian 12."""

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
    told = machine.run(
        f"cd {shlex.quote(str(CHECKOUT))} && PYTHONPATH={program} {sys.executable} -m tests.vm.tagged", limit_s=LIMIT_S
    ).text

    assert machine.run("uname -r").text.startswith("6.1.")
    assert told.splitlines() == [
        "ok: every pod leaves as its tenant's egress IPs, over both families",
        "ok: the bond's other port carries on",
        "ok: without daemon and without nftables nothing leaks",
    ]

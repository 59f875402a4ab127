"""The guest itself: what it may touch on the host, what it hands back, and what is left of it when its power is cut."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.vm.machine import GuestFailed, Machine

MOUNT = "modprobe -a virtio_blk ext4 && mkdir -p /mnt/disk && mount /dev/vda /mnt/disk"


def test_a_guest_sees_the_hosts_files_changes_none_and_loses_its_own_with_its_power(tmp_path: Path) -> None:
    disk, file = tmp_path / "disk", tmp_path / "file"
    subprocess.run(("mke2fs", "-q", "-F", "-t", "ext4", disk, "8M"), check=True)
    file.write_text("of the host")

    with Machine(tmp_path, disk=disk) as machine:
        machine.run(f"{MOUNT} && cp {file} /mnt/disk/kept && sync && echo mine > {file}")
        assert machine.run(f"cat {file}").text == "mine"
        refused = machine.run(f"umount /mnt/disk; mount -t virtiofs host /mnt/disk; : > /mnt/disk{file}", check=False)
        assert "Read-only file system" in refused.text
        with pytest.raises(GuestFailed, match="exit code 3"):
            machine.run("exit 3")
        machine.cut_power()
        machine.switch_on()
        assert machine.run(f"cat {file}").text == "of the host"
        machine.run(MOUNT)
        machine.fetch_files("/mnt/disk", tmp_path / "back")

    assert (tmp_path / "back" / "kept").read_text() == "of the host"
    assert file.read_text() == "of the host"

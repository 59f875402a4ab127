"""A machine whose network services are configured by files of the distribution, of the image, and of the administrator.

The files lie below a directory of the test's own, as they would below /.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from outgate.model.host import Networkd
from outgate.systems.host import services
from outgate.systems.host.read import numbers

NOBODY: frozenset[str] = frozenset()


def put(root: Path, name: str, *lines: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*lines, ""]))


def test_networkd_deletes_what_it_did_not_make_unless_it_is_told(tmp_path: Path) -> None:
    assert services.networkd(tmp_path, frozenset({"systemd-network"})) == Networkd(running=True)


def test_a_drop_in_of_networkd_wins_over_the_main_file_and_is_named(tmp_path: Path) -> None:
    put(tmp_path, "etc/systemd/networkd.conf", "[Network]", "ManageForeignRoutes=yes", "#ManageForeignRoutes=no")
    put(tmp_path, "etc/systemd/networkd.conf.d/10-outgate.conf", "[Network]", "ManageForeignRoutes = No")

    found = services.networkd(tmp_path, NOBODY)

    assert (found.keeps_routes, found.keeps_rules) == (True, False)
    assert found.file == "/etc/systemd/networkd.conf.d/10-outgate.conf"


def test_a_drop_in_of_etc_hides_that_of_usr_and_the_names_decide_the_order(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/systemd/networkd.conf.d/50.conf", "[Network]", "ManageForeignRoutes=no")
    put(tmp_path, "etc/systemd/networkd.conf.d/50.conf", "[Network]")
    assert services.networkd(tmp_path, NOBODY).keeps_routes is False

    put(tmp_path, "run/systemd/networkd.conf.d/10.conf", "[Network]", "ManageForeignRoutes=yes")
    put(tmp_path, "usr/lib/systemd/networkd.conf.d/60.conf", "[Network]", "ManageForeignRoutes=no")
    assert services.networkd(tmp_path, NOBODY).keeps_routes is True


def test_an_assignment_of_another_section_says_nothing(tmp_path: Path) -> None:
    put(tmp_path, "etc/systemd/networkd.conf", "[DHCPv4]", "ManageForeignRoutes=no")
    assert services.networkd(tmp_path, NOBODY).keeps_routes is False


def test_networkmanager_adds_up_unmanaged_devices_only_where_a_plus_says_so(tmp_path: Path) -> None:
    put(tmp_path, "etc/NetworkManager/NetworkManager.conf", "[keyfile]", "unmanaged-devices=mac:00:11:22:33:44:55")
    put(tmp_path, "etc/NetworkManager/conf.d/a.conf", "[keyfile]", "unmanaged-devices+=interface-name:og-*;type:wifi")
    found = services.nm(tmp_path, frozenset({"NetworkManager"}))
    assert found.running
    assert found.unmanaged == ("mac:00:11:22:33:44:55", "interface-name:og-*", "type:wifi")

    put(tmp_path, "etc/NetworkManager/conf.d/b.conf", "[keyfile]", "unmanaged-devices=interface-name:veth*")
    assert services.nm(tmp_path, NOBODY).unmanaged == ("interface-name:veth*",)


@pytest.mark.parametrize(
    ("lines", "flushes"), [((), True), (("FlushAllOnReload=no",), False), (("FlushAllOnReload=yes",), True)]
)
def test_firewalld_flushes_all_rules_at_a_reload_unless_it_is_told(
    lines: tuple[str, ...], flushes: bool, tmp_path: Path
) -> None:
    put(tmp_path, "etc/firewalld/firewalld.conf", "# Default: yes", *lines)
    found = services.firewalld(tmp_path, frozenset({"firewalld"}))
    assert (found.running, found.flushes) == (True, flushes)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("etc/nftables.conf", "flush ruleset"),
        ("etc/sysconfig/nftables.conf", "  flush ruleset"),
        ("usr/lib/systemd/system/nftables.service", "ExecStop=/usr/sbin/nft flush ruleset"),
    ],
)
def test_an_enabled_nftables_service_that_flushes_is_found_with_its_file(file: str, line: str, tmp_path: Path) -> None:
    put(tmp_path, file, "#!/usr/sbin/nft -f", line)
    wants = tmp_path / "etc/systemd/system/sysinit.target.wants"
    assert services.nftables_service(tmp_path).enabled is False

    wants.mkdir(parents=True)
    (wants / "nftables.service").symlink_to("/lib/systemd/system/nftables.service")

    found = services.nftables_service(tmp_path)
    assert (found.enabled, found.flushed_by) == (True, f"/{file}")


def test_a_flush_that_is_commented_out_flushes_nothing(tmp_path: Path) -> None:
    put(tmp_path, "etc/nftables.conf", "# flush ruleset", "table inet mine {", "}")
    assert services.nftables_service(tmp_path).flushed_by == ""


def test_what_runs_is_told_by_the_names_that_the_kernel_keeps(tmp_path: Path) -> None:
    for pid, name in (("1", "systemd"), ("77", "systemd-network"), ("self", "not-a-pid")):
        put(tmp_path, f"proc/{pid}/comm", name)
    assert services.running(tmp_path) == {"systemd", "systemd-network"}


@pytest.mark.parametrize(
    ("text", "version"),
    [("6.18.44-fc-v669", (6, 18, 44)), ("5.14.0-570.el9", (5, 14, 0)), ("1.0.6", (1, 0, 6)), ("?", ())],
)
def test_a_version_is_its_leading_numbers(text: str, version: tuple[int, ...]) -> None:
    assert numbers(text) == version

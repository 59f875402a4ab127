"""The daemon runs under systemd on a machine that somebody attacks, and boots beside everything else that touches the
network. The unit is judged by systemd's own tools; nothing is started.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from outgate.control.lock import EX_TEMPFAIL
from outgate.control.peer import CHANGERS
from outgate.control.place import READERS, RUN, STATE

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "outgate-gateway.service"
WORST = 25  # tenths: the exposure that we promise to stay under is 2.5
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings() -> dict[str, list[str]]:
    """Every setting of the unit, with the words of all its lines."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if not line.startswith(("#", "[")) and "=" in line:
            name, _, value = line.partition("=")
            found[name] += value.split()
    return dict(found)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@needs_systemd
def test_the_exposure_stays_under_what_is_promised() -> None:
    judged = analyze("security", "--offline=true", "--no-pager", f"--threshold={WORST}", str(UNIT))
    strict = analyze("security", "--offline=true", "--no-pager", "--threshold=5", str(UNIT))

    (exposure,) = re.findall(r"exposure level for outgate-gateway\.service: ([0-9.]+) ", judged.stdout)
    assert judged.returncode == 0, judged.stdout
    assert float(exposure) <= WORST / 10
    assert strict.returncode != 0, "the threshold is looked at"


@needs_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    here = tmp_path / UNIT.name
    here.write_text(re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", UNIT.read_text()))

    verified = analyze("verify", "--man=no", str(here))

    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_guards_stand_before_the_network_and_nothing_earlier_waits_for_it() -> None:
    unit = settings()

    assert "network-pre.target" in unit["Before"]
    assert unit["Wants"] == ["network-pre.target"], "a passive target: somebody must want it"
    assert unit["DefaultDependencies"] == ["no"], "else it would wait for basic.target, which may wait for the network"
    assert {"systemd-sysctl.service", "nftables.service", "firewalld.service"} <= set(unit["After"])
    assert unit["Type"] == ["notify"], "ready when the guards stand, not when the process runs"
    assert not {one for one in unit["After"] if one.startswith(("network", "basic", "sysinit"))}


def test_a_stop_leaves_the_data_path_and_a_hang_or_a_failure_is_ended() -> None:
    unit = settings()

    assert not {"ExecStop", "ExecStopPost"} & unit.keys()
    assert unit["WatchdogSec"] == ["30s"]
    assert unit["Restart"] == ["on-failure"]
    assert unit["StartLimitIntervalSec"] == ["0"], "it never gives up"
    assert str(EX_TEMPFAIL) not in unit.get("RestartPreventExitStatus", [])


def test_it_has_two_capabilities_and_no_root() -> None:
    unit = settings()

    assert unit["AmbientCapabilities"] == unit["CapabilityBoundingSet"] == ["CAP_NET_ADMIN", "CAP_NET_RAW"]
    assert unit["User"] == unit["Group"] == [READERS]
    assert unit["NoNewPrivileges"] == ["yes"]


def test_its_directories_are_those_that_the_program_uses() -> None:
    unit = settings()

    assert Path("/run", *unit["RuntimeDirectory"]) == RUN
    assert Path("/var/lib", *unit["StateDirectory"]) == STATE
    assert unit["RuntimeDirectoryPreserve"] == ["yes"], "a lock in a directory that goes would be no lock"
    assert unit["ReadWritePaths"] == ["/proc/sys/net"]


def test_the_users_file_makes_the_user_and_both_groups() -> None:
    lines = (UNIT.parent / "outgate.sysusers").read_text().splitlines()

    assert {tuple(line.split()[:2]) for line in lines if not line.startswith("#")} == {("u", READERS), ("g", CHANGERS)}


def test_the_package_that_judges_the_unit_is_installed_by_the_set_up() -> None:
    packages = (ROOT / "tools" / "debian-packages.txt").read_text()

    assert re.search(r"(?m)^test +systemd\s", packages)

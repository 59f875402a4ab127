"""A laboratory ends: in order, by SIGKILL, by Ctrl-C, or it is kept for a user and then taken down. Nothing remains.

Whether a namespace is gone can be seen from outside only by what it held: the test keeps the far end of a cable to
each, which the kernel takes away together with the namespace.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from outgate.lab import keep, manifests
from outgate.lab.addresses import INNER4, OUTSIDE4
from outgate.lab.manifests import Manifests
from outgate.lab.namespace import Namespace
from outgate.lab.topology import Laboratory
from outgate.lab.waiting import eventually

PUBLISHED = Path("/run/netns")
PREFIX = f"og-test-{os.getpid()}-"  # several runs of these tests may share the machine
SHELL = """
import sys
from pathlib import Path
from outgate.lab.keep import shell

shell(sys.argv[1], Path(sys.argv[2]))
"""
OWNER = """
import json, os, sys, time
from outgate.lab.addresses import OUTSIDE4
from outgate.lab.batch import configure
from outgate.lab.topology import Laboratory

with Laboratory() as lab:
    configure({net: [f"link add witness{k} type veth peer name witness{k} netns {sys.argv[1]}"]
               for k, net in enumerate(lab.nets)})
    lab.pod("ns-blue").agent.udp(OUTSIDE4, count=1)
    busy = lab.gw.popen(("sleep", "1000"))
    pids = (lab.server.pid, lab.pod("ns-blue").agent.pid, busy.pid)
    print(json.dumps({"pids": pids, "namespaces": len(lab.nets)}), flush=True)
    time.sleep(1000)
"""


def runs(pid: int) -> bool:
    """Whether a process runs; one that merely waits for its parent to take notice does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def links(net: Namespace) -> list[str]:
    return [link["ifname"] for link in json.loads(net.run(("ip", "-j", "link")).stdout) if link["ifname"] != "lo"]


def published() -> set[str]:
    return {entry.name for entry in PUBLISHED.iterdir()} if PUBLISHED.exists() else set()


@pytest.fixture
def observer() -> Iterator[Namespace]:
    with Namespace("observer") as net:
        yield net


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A place for a kept laboratory, which is taken down whatever happens."""
    yield tmp_path / "kept"
    if (tmp_path / "kept").exists():
        keep.down(tmp_path / "kept")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_nothing_remains_however_the_owner_ends(observer: Namespace, how: signal.Signals) -> None:
    command = (sys.executable, "-c", OWNER, observer.path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout is not None
        built = json.loads(owner.stdout.readline())
        assert len(links(observer)) == built["namespaces"] == 10
        assert all(runs(pid) for pid in built["pids"])
        owner.send_signal(how)
        owner.wait()
    eventually(lambda: not links(observer), "every namespace is gone", within_s=20)
    eventually(lambda: not any(runs(pid) for pid in built["pids"]), "every process has ended", within_s=20)


def test_closing_ends_every_process_and_every_namespace(observer: Namespace) -> None:
    with Laboratory() as lab:
        for number, net in enumerate(lab.nets):
            name = f"witness{number}"
            net.run(("ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", observer.path))
        assert lab.pod("ns-blue").agent.udp(OUTSIDE4, count=1).sent == 1
        lab.gw.publish(PREFIX + "gw")
        pids = [lab.server.pid, lab.pod("ns-blue").agent.pid or 0, lab.gw.popen(("sleep", "1000")).pid]
        assert all(runs(pid) for pid in pids)
    assert not any(runs(pid) for pid in pids)
    assert PREFIX + "gw" not in published()
    eventually(lambda: not links(observer), "every namespace is gone", within_s=20)


def test_a_forked_child_that_closes_the_laboratory_ends_nothing(observer: Namespace) -> None:
    with Laboratory(nodes=1) as lab:
        child = os.fork()
        if child == 0:
            lab.gw.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert runs(lab.server.pid)
        assert lab.gw.sysctl("net/ipv4/ip_forward") == "0"


def test_a_published_namespace_has_a_name_until_it_is_withdrawn() -> None:
    with Namespace("shown") as net:
        net.publish(PREFIX + "shown")
        seen = subprocess.run(
            ("ip", "netns", "exec", PREFIX + "shown", "readlink", "/proc/self/ns/net"),
            capture_output=True,
            text=True,
            check=True,
        )
        assert str(net.inode) in seen.stdout
        with Namespace("rival") as rival, pytest.raises(subprocess.CalledProcessError):
            rival.publish(PREFIX + "shown")
        net.withdraw()
        assert PREFIX + "shown" not in published()


def test_a_kept_laboratory_serves_until_it_is_taken_down(place: Path) -> None:
    kept = keep.up(place, prefix=PREFIX)
    assert {PREFIX + name for name in ("gw", "ext", "n2", "ns-red-app-2")} <= published()
    client = (sys.executable, "-m", "outgate.lab.client", "fetch", str(OUTSIDE4))
    inside = ("ip", "netns", "exec", PREFIX + "ext")
    seen = subprocess.run((*inside, *client), capture_output=True, text=True, check=True)
    assert json.loads(seen.stdout)["source"] == str(OUTSIDE4)
    rule = subprocess.run(
        ("ip", "netns", "exec", PREFIX + "n1", "ip", "route", "show", "table", "1005"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "default via 192.168.99.13" in rule.stdout
    with pytest.raises(FileExistsError, match="outgate lab down"):
        keep.up(place, prefix=PREFIX)

    assert keep.down(place) == {}
    assert not runs(kept.server)
    assert not published() & set(kept.namespaces)
    assert not place.exists()
    with pytest.raises(FileNotFoundError, match="no laboratory is up"):
        keep.down(place)


def test_what_a_user_left_in_a_kept_laboratory_is_named_and_left_alone(place: Path) -> None:
    keep.up(place, prefix=PREFIX, nodes=1)
    mine = place / "manifests" / "mine.yaml"
    mine.write_text("kind: List\n")
    with subprocess.Popen(("ip", "netns", "exec", PREFIX + "gw", "sleep", "1000")) as program:
        eventually(lambda: Path(f"/proc/{program.pid}/comm").read_text() == "sleep\n", "the program runs")
        assert keep.down(place) == {program.pid: "gw"}
        assert runs(program.pid)
        program.kill()
    assert [file.name for file in place.rglob("*")] == ["manifests", "mine.yaml"]
    mine.unlink()
    mine.parent.rmdir()
    place.rmdir()


def test_a_shell_opens_in_the_namespace_that_was_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep.up(place, prefix=PREFIX, nodes=1)
    inode = str((PUBLISHED / f"{PREFIX}ns-blue-app-1").stat().st_ino)
    monkeypatch.setenv("SHELL", "/bin/sh")
    opened = subprocess.run(
        (sys.executable, "-c", SHELL, "ns-blue/app-1", str(place)),
        input="readlink /proc/self/ns/net; echo $OUTGATE_LAB",
        capture_output=True,
        text=True,
        check=True,
    )
    assert opened.stdout.split() == [f"net:[{inode}]", "ns-blue-app-1"]
    with pytest.raises(LookupError, match="gw"):
        keep.shell("gateway", place)


def test_manifests_say_what_the_laboratory_is(tmp_path: Path) -> None:
    with Laboratory(nodes=2, bare=True) as lab:
        written = Manifests(tmp_path)
        written.put_all(lab)
        read = {file.name: yaml.safe_load(file.read_text()) for file in tmp_path.iterdir()}
        assert read["node-n2.yaml"] == manifests.node(lab.nodes["n2"])
        assert read["pod-ns-blue-app-1.yaml"] == manifests.pod(lab.pod("ns-blue"))
        assert read["egresstenant-ns-red.yaml"] == manifests.egress_tenant(lab.tenants[1])
        assert read["network-cluster.yaml"]["status"]["clusterNetwork"][1] == {"cidr": "fd01::/48", "hostPrefix": 64}
        assert json.loads(read["node-n1.yaml"]["metadata"]["annotations"]["k8s.ovn.org/node-subnets"]) == {
            "default": ["10.132.0.0/24", "fd01:0:0:1::/64"]
        }
        written.drop_node(lab.remove_node("n2"))
        written.put(manifests.egress_tenant(lab.tenants[0], egressIPs=None, fromPool={"name": "lab", "count": 1}))
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {name for name in read if "n2" not in name and "app-2" not in name}
    changed = yaml.safe_load((tmp_path / "egresstenant-ns-blue.yaml").read_text())["spec"]
    assert "egressIPs" not in changed
    assert changed["fromPool"] == {"name": "lab", "count": 1}


def test_strange_values_survive_being_written(tmp_path: Path) -> None:
    strange = [
        "",
        "no",
        "NULL",
        "1e3",
        "0x10",
        "a: b",
        "- x",
        'a";drop#x',
        "naïve",
        "12:30",
        "~",
        " x",
        "x\ny",
        "{",
        "=",
        "1_000",
    ]
    manifest = {**manifests.namespace("strange"), "spec": {"lists": [[], {}, strange, [[1, True, None]], {"a": [{}]}]}}
    file = Manifests(tmp_path).put(manifest)
    assert yaml.safe_load(file.read_text()) == manifest


def test_a_directory_never_shows_a_torn_manifest(tmp_path: Path) -> None:
    written = Manifests(tmp_path)
    file = written.put(manifests.network())
    before = file.stat().st_ino
    assert written.put(manifests.network()) == file
    assert file.stat().st_ino != before, "replaced, not overwritten"
    assert [entry.name for entry in tmp_path.iterdir()] == ["network-cluster.yaml"]


def test_the_laboratory_is_as_large_as_wanted() -> None:
    with Laboratory(nodes=1, pods_per_namespace=2, namespaces=("ns-a", "ns-b", "ns-c"), bare=True) as lab:
        assert [(pod.namespace, pod.name, pod.host) for pod in lab.pods[:3]] == [
            ("ns-a", "app-1", 5),
            ("ns-a", "app-2", 6),
            ("ns-b", "app-1", 7),
        ]
        assert len(lab.nets) == 4 + 1 + 6
        lab.steer("ns-a", INNER4)
        lab.pod("ns-a").agent.udp(OUTSIDE4, count=1)
        assert lab.server.pid, "a bare laboratory starts what is asked for"
    with pytest.raises(ValueError, match="tenant 8"):
        Laboratory(namespaces=tuple(f"ns-{number}" for number in range(9)))

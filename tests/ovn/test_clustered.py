"""A northbound database of three servers, as where OVN is central: real ovsdb-servers that elect a leader."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from outgate.lab.namespace import Namespace
from outgate.lab.ovn.addresses import CLUSTER_ROUTER
from outgate.lab.ovn.programs import missing
from outgate.lab.waiting import eventually
from outgate.model.errors import Unreachable
from outgate.model.ovn import Action, Policy
from outgate.systems.ovn.northbound import Northbound

SCHEMA = Path("/usr/share/ovn/ovn-nb.ovsschema")
POLICY = Policy(router=CLUSTER_ROUTER, priority=103, match="ip4.src == 10.128.0.5", action=Action.DROP, owner="node:x")
_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Servers:
    """Three members of one database, in a network namespace of their own."""

    net: Namespace
    place: Path
    stopped: set[int] = field(default_factory=set)
    children: dict[int, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def targets(self) -> dict[int, str]:
        return {number: f"unix:{self.place / f'{number}.sock'}" for number in (1, 2, 3)}

    def status(self, number: int) -> str:
        words = ("ovs-appctl", "-t", str(self.place / f"{number}.ctl"), "cluster/status", "OVN_Northbound")
        return self.net.run(words, check=False).stdout

    def is_member(self, number: int) -> bool:
        """Whether a server has joined."""
        return "Status: cluster member" in self.status(number)

    def leader(self) -> int:
        """The member that leads; 0 while none does."""
        alive = (number for number in (1, 2, 3) if number not in self.stopped)
        return next((number for number in alive if "Role: leader" in self.status(number)), 0)

    def start(self, number: int) -> subprocess.Popen[str]:
        own = (f"--unixctl={self.place / f'{number}.ctl'}", f"--remote=punix:{self.place / f'{number}.sock'}")
        words = ("ovsdb-server", *own, "-vconsole:off", str(self.place / f"{number}.db"))
        return self.net.popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def servers() -> Iterator[Servers]:
    if lacking := missing():
        pytest.skip(lacking)
    if not SCHEMA.exists():
        pytest.skip(f"{SCHEMA} is not there")
    with tempfile.TemporaryDirectory(prefix="outgate-raft-") as folder, Namespace("raft") as net:
        net.run(("ip", "link", "set", "lo", "up"))
        made = Servers(net, Path(folder))
        with contextlib.ExitStack() as opened:
            for number in (1, 2, 3):
                here = f"tcp:127.0.0.1:{6640 + number}"
                database = str(made.place / f"{number}.db")
                if number == 1:
                    net.run(("ovsdb-tool", "create-cluster", database, str(SCHEMA), here))
                else:
                    net.run(("ovsdb-tool", "join-cluster", database, "OVN_Northbound", here, "tcp:127.0.0.1:6641"))
                child = made.children[number] = made.start(number)
                opened.callback(child.wait)
                opened.callback(child.kill)
                eventually(partial(made.is_member, number), "it has joined", within_s=_LIMIT_S)
            net.run(("ovn-nbctl", f"--db={','.join(made.targets.values())}", "lr-add", CLUSTER_ROUTER))
            yield made


@contextlib.contextmanager
def connected(servers: Servers, *order: int) -> Iterator[Northbound]:
    made = Northbound(",".join(servers.targets[number] for number in order or (1, 2, 3)))
    with contextlib.closing(made):
        yield made


def test_the_leader_is_spoken_to_whoever_is_named_first(servers: Servers) -> None:
    leader = eventually(servers.leader, "one leads", within_s=_LIMIT_S)
    others = [number for number in (1, 2, 3) if number != leader]

    with connected(servers, *others, leader) as northbound:
        northbound.write([POLICY], [])
        assert northbound.read().actual == {POLICY}
    with pytest.raises(Unreachable, match="another member of the cluster leads"), connected(servers, *others):
        pass


def test_a_connection_ends_when_its_server_leads_no_more_and_the_next_one_sees_what_was_written(
    servers: Servers,
) -> None:
    leader = eventually(servers.leader, "one leads", within_s=_LIMIT_S)
    with connected(servers) as northbound:
        northbound.write([POLICY], [])
        servers.children[leader].send_signal(signal.SIGSTOP)
        servers.stopped.add(leader)
        eventually(servers.leader, "another one leads", within_s=_LIMIT_S)
        servers.children[leader].send_signal(signal.SIGCONT)

        def is_over() -> bool:
            try:
                northbound.catch_up()
            except Unreachable:
                return True
            return False

        eventually(is_over, "it is told that another one leads", within_s=_LIMIT_S)
    with connected(servers) as northbound:
        assert northbound.read().actual == {POLICY}


def test_when_the_leader_dies_the_other_two_go_on(servers: Servers) -> None:
    leader = eventually(servers.leader, "one leads", within_s=_LIMIT_S)
    with connected(servers) as northbound:
        northbound.write([POLICY], [])
    servers.children[leader].kill()
    servers.stopped.add(leader)
    eventually(servers.leader, "another one leads", within_s=_LIMIT_S)
    with connected(servers) as northbound:
        assert northbound.read().actual == {POLICY}
        northbound.write([], [POLICY])
        assert northbound.read().actual == frozenset()

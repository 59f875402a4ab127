"""A service manager started the daemon and wants to know when the guards stand, and whether the loop still turns."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outgate.control import notify


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(10)
        yield listening


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_manager_hears_each_word(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@outgate-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)

    with manager(name.replace("@", "\0")) as listening:
        heard = []
        for say in (notify.ready, notify.alive, notify.stopping):
            assert say("2 tenants,\n3 nodes")
            heard.append(listening.recv(4096).decode())
        assert notify.reloading()
        heard.append(listening.recv(4096).decode())

    status = "STATUS=2 tenants, 3 nodes"
    assert heard[:3] == [f"READY=1\n{status}", f"WATCHDOG=1\n{status}", f"STOPPING=1\n{status}"]
    assert heard[3].startswith("RELOADING=1\nMONOTONIC_USEC=")


@pytest.mark.parametrize("name", ["", "relative", "/nowhere/notify", "vsock:2:1234"])
def test_without_a_manager_nothing_happens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert not notify.ready()


def test_the_watchdog_is_fed_twice_as_often_as_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert notify.watchdog_s() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.watchdog_s() == 15.0


@pytest.mark.parametrize(("usec", "pid"), [("", ""), ("0", ""), ("soon", ""), ("30000000", "1")])
def test_a_watchdog_that_watches_somebody_else_is_not_fed(usec: str, pid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert notify.watchdog_s() is None

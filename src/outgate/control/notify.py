"""What the service manager is told: one datagram to the socket it named (sd_notify(3), systemd.service(5))."""

from __future__ import annotations

import os
import socket
import time

_USEC = 1_000_000


def notify(*lines: str) -> bool:
    """Send lines such as `READY=1`; return whether a service manager took them. Never waits, never fails: without a
    manager, or with one that is gone, the gateway serves on.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if name[:1] not in ("/", "@"):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
        try:
            connection.sendto("\n".join(lines).encode(), name.replace("@", "\0", 1) if name[0] == "@" else name)
        except OSError:
            return False
    return True


def ready(text: str = "") -> bool:
    """Say that the guards stand; who waits for the service starts now."""
    return notify("READY=1", *_status(text))


def alive(text: str = "") -> bool:
    """Say that the loop is not stuck; see `watchdog_s`."""
    return notify("WATCHDOG=1", *_status(text))


def stopping(text: str = "") -> bool:
    """Say that the daemon is about to end."""
    return notify("STOPPING=1", *_status(text))


def reloading(text: str = "") -> bool:
    """Say that the configuration is read anew; `ready` ends that."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", *_status(text))


def watchdog_s() -> float | None:
    """Return how often to say `alive`, in seconds: half of the manager's patience. None where nobody watches."""
    patience_usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not patience_usec.isdecimal() or int(patience_usec) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(patience_usec) / _USEC / 2


def _status(text: str) -> tuple[str, ...]:
    """Return the line that `systemctl status` shows: one line, whatever is in the text."""
    return ("STATUS=" + " ".join(text.split()),) if text else ()

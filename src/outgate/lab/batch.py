"""Many settings at once, by `ip -batch`: one process a namespace, all of them side by side.

Why a process and not netlink from Python: a laboratory is some two hundred settings. pyroute2 spends 0.3 ms of
encoding on each, and its import alone costs more than everything here; `ip` reads its lines in microseconds, and the
lines can be read by people.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from outgate.lab.namespace import Namespace, failure

Lines: TypeAlias = Mapping[Namespace, Sequence[str]]

_FIRST_INDEX = 1000
_IPV6_ONLY = "-6 "  # `ip rule` does not guess the family from the addresses, and a batch can not change it on the way


def configure(lines: Lines) -> None:
    """Carry out lines of `ip -batch` in several namespaces at once, in order within each.

    A line that begins with `-6 ` goes to a second process of that namespace; there is no order between the two.

    Raises:
        subprocess.CalledProcessError: a line was refused; the lines after it in that namespace were not tried.
    """
    started = [(namespace, script, _start(namespace, argv, script)) for namespace, argv, script in _scripts(lines)]
    ended = [(namespace, script, child, child.communicate()) for namespace, script, child in started]
    for namespace, script, child, (output, errors) in ended:
        if child.returncode:
            error = failure(namespace, subprocess.CompletedProcess(child.args, child.returncode, output, errors))
            error.add_note("\n".join(f"{number}: {line}" for number, line in enumerate(script, 1)))
            raise error


def cable(name: str, number: int, *, to: Namespace, link: str, mac: str = "") -> str:
    """Return the line that makes a cable from here, where it is `name`, to another namespace, where it is `link`.

    `number` tells this end from others here; `mac` is of the other end. The number becomes an interface index that no
    other end is likely to have: two ends with the same index are taken for a device without a lower link, and the
    kernel then tells of their carrier up to a second late (linkwatch_urgent_event in net/core/link_watch.c).
    """
    address = f"address {mac} " if mac else ""
    return f"link add {name} index {_FIRST_INDEX + number} type veth peer name {link} {address}netns {to.path}"


def _scripts(lines: Lines) -> Iterator[tuple[Namespace, tuple[str, ...], list[str]]]:
    """Yield each namespace's program and its script; empty scripts are left out."""
    for namespace, script in lines.items():
        either = [line for line in script if not line.startswith(_IPV6_ONLY)]
        only6 = [line.removeprefix(_IPV6_ONLY) for line in script if line.startswith(_IPV6_ONLY)]
        if either:
            yield namespace, ("ip", "-batch", "-"), either
        if only6:
            yield namespace, ("ip", "-6", "-batch", "-"), only6


def _start(namespace: Namespace, argv: Sequence[str], script: Sequence[str]) -> subprocess.Popen[str]:
    """Start `ip` and feed it. It says nothing before it has failed, so writing all at once can not block for ever."""
    child = namespace.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has failed already; its exit status says so
        child.stdin.write("\n".join((*script, "")))
        child.stdin.flush()
    return child

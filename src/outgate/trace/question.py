"""What people ask `explain`: a pod or an address, and where it wants to go."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from outgate.model.errors import IntentError
from outgate.model.net import Address
from outgate.trace.steps import target

PROTOCOLS = ("tcp", "udp", "sctp", "icmp", "icmpv6")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A destination. Port 0: any. An empty protocol is not said."""

    address: Address
    port: int = 0
    protocol: str = ""

    def __str__(self) -> str:
        return target(self.address, self.port, self.protocol)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodName:
    """A pod as people write it: NAMESPACE/POD."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who is asked about, and where it wants to go; `to` None means anywhere outside.

    `by` is a next hop to take for granted, whatever the cluster's routes say.
    """

    subject: PodName | Address
    to: Target | None = None
    by: Address | None = None


def parse_question(subject: str, to: str = "", by: str = "") -> Question:
    """Return the question that three words of a command line ask.

    Raises:
        IntentError: a word is no NAMESPACE/POD, address, or IP[:PORT][/PROTO]; the text says what was expected.
    """
    return Question(
        subject=_subject(subject),
        to=parse_target(to) if to else None,
        by=_address(by, "a next hop is an address, such as 192.168.99.13") if by else None,
    )


def parse_target(text: str) -> Target:
    """Return the destination that `IP[:PORT][/PROTO]` says; an IPv6 address with a port stands in square brackets.

    Raises:
        IntentError: it says something else.
    """
    form = "write IP[:PORT][/PROTO], such as 203.0.113.9:443/tcp or [2001:db8::9]:443"
    spot, _, protocol = text.partition("/")
    if "/" in text and protocol.lower() not in PROTOCOLS:
        raise IntentError(f"{text!r}: {protocol!r} is none of {', '.join(PROTOCOLS)}; {form}")
    if spot.startswith("["):
        host, closed, rest = spot[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise IntentError(f"{text!r}: {form}")
        port = rest[1:] if rest else ""
        with_port = bool(rest)
    else:
        host, colon, port = spot.partition(":") if spot.count(":") == 1 else (spot, "", "")
        with_port = bool(colon)
    if with_port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise IntentError(f"{text!r}: {port!r} is no port (1 to 65535); {form}")
    return Target(address=_address(host, form), port=int(port or 0), protocol=protocol.lower())


def _subject(text: str) -> PodName | Address:
    form = "write NAMESPACE/POD, such as ns-blue/app-0, or an address"
    if "/" not in text:
        return _address(text, form)
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        raise IntentError(f"{text!r} names no pod; {form}")
    return PodName(namespace=namespace, name=name)


def _address(text: str, form: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise IntentError(f"{text!r} is no address; {form}") from None

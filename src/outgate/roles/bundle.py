"""Taking a support bundle: everything that a question about this gateway needs, redacted, in one file.

What can not be read is no reason to have nothing: the bundle says of each part that it lacks why. Nothing is changed.
"""

from __future__ import annotations

import hmac
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from outgate.control.ask import ask
from outgate.model.errors import OutgateError, Refused, Unreachable
from outgate.model.flow import Flow
from outgate.model.host import Host
from outgate.model.intent import Intent
from outgate.model.ledger import Ledger
from outgate.model.state import Reading
from outgate.model.status import Status
from outgate.roles.gateway import machine_of, state_of
from outgate.roles.options import GatewayOptions, place_of
from outgate.sources.bundle import About, Bundle, write
from outgate.sources.exact import Misread, value_of
from outgate.sources.manifests import ManifestSource
from outgate.sources.redact import redact_firewall, redact_intent, redact_kind, redact_ruleset
from outgate.systems.conntrack import read as conntrack
from outgate.systems.host import journal
from outgate.systems.host import read as host
from outgate.systems.iptables import read as firewall
from outgate.systems.nft import program
from outgate.systems.nft.read import LIST
from outgate.systems.nft.table import digest
from outgate.systems.statefile.state import Loaded

SAMPLE = 5_000  # live flows that are kept
LINES = 2_000  # of the daemon's log
PATIENCE_S = 10.0  # with a daemon that does not answer; it may be what is wrong

_Part = TypeVar("_Part")
_MACHINE_ID = Path("/etc/machine-id")


@dataclass(slots=True)
class _Taking:
    """A bundle that is being taken: tells what comes next, and keeps why a part is missing."""

    options: GatewayOptions
    told: Callable[[str], None]
    missing: dict[str, str] = field(default_factory=dict)

    def part(self, name: str, words: str, read: Callable[[], _Part]) -> _Part | None:
        """Return what `read` gives, or None, with the reason noted."""
        self.told(words)
        try:
            return read()
        except OutgateError as error:
            self.missing[name] = str(error)
            return None


def take(options: GatewayOptions, told: Callable[[str], None]) -> Bundle:
    """Return what this machine shows now; `told` hears what is being read."""
    taking = _Taking(options, told)
    taken_s = time.time()
    asked = taking.part("intent", f"manifests in {options.manifests}", lambda: _intent(options))
    intent, left_out = asked or (None, MappingProxyType({}))
    loaded = taking.part("ledger", "state file", lambda: state_of(place_of(options)).load())
    reading = taking.part("reading", "links, addresses, routes, rules and the table", lambda: _reading(options, loaded))
    flows = taking.part("flows", "live flows", _flows)
    surroundings = taking.part("host", "services and limits of the machine", host.read)
    rules = taking.part("firewall", "other programs' firewalls", lambda: redact_firewall(firewall.read()))
    ruleset = taking.part("ruleset", "the whole ruleset", _ruleset)
    status = taking.part("status", "the daemon", lambda: _status(options))
    log = taking.part("log", "the daemon's log", lambda: journal.last_lines(LINES))
    return Bundle(
        about=About(
            written_by=version("outgate"),
            taken_s=taken_s,
            host=_host_hash(),
            kernel=platform.release(),
            nft=_dotted(surroundings),
            gateway=options.name,
            digest=digest(),
            flows=flows[1] if flows else 0,
            left_out=left_out,
            missing=MappingProxyType(taking.missing),
            findings=loaded.findings if loaded else (),
        ),
        intent=intent,
        ledger=loaded.ledger if loaded else None,
        reading=reading,
        flows=flows[0] if flows else None,
        host=surroundings,
        firewall=rules,
        status=status,
        log=log,
        ruleset=ruleset or b"",
    )


def save(bundle: Bundle, path: Path) -> int:
    """Write a bundle to a file that only its owner reads, whole or not at all; return its size in bytes.

    Raises:
        Refused: it can not be written, or is too large to be read back.
    """
    try:
        descriptor, beside = tempfile.mkstemp(prefix=".", suffix=".new", dir=path.parent)  # mode 0600
    except OSError as failed:
        raise Refused(f"write {path}", failed.strerror or str(failed)) from failed
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(bundle, file)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        Path(beside).replace(path)
    except (OSError, ValueError) as failed:
        raise Refused(f"write {path}", str(failed)) from failed
    finally:
        with suppress(FileNotFoundError):
            Path(beside).unlink()
    return size


def _intent(options: GatewayOptions) -> tuple[Intent, Mapping[str, int]]:
    """Return the redacted intent, and how many objects of each kind that nobody reads were beside it."""
    source = ManifestSource(options.manifests)
    try:
        intent = redact_intent(source.read())
        left_out: dict[str, int] = {}
        for kind, count in source.ignored().items():
            left_out[redact_kind(kind)] = left_out.get(redact_kind(kind), 0) + count
    finally:
        source.close()
    return intent, MappingProxyType(left_out)


def _reading(options: GatewayOptions, loaded: Loaded | None) -> Reading:
    with machine_of(place_of(options)) as machine:
        return machine.read(loaded.ledger if loaded else Ledger())


def _flows() -> tuple[tuple[Flow, ...], int]:
    """Return a sample of the live flows, and how many there are."""
    sample = tuple(conntrack.flows(limit=SAMPLE))
    return sample, max(len(sample), conntrack.count().entries)


def _ruleset() -> bytes:
    listing = program.run((*LIST, "ruleset"), change="list the ruleset")
    try:
        return msgspec.json.encode(redact_ruleset(msgspec.json.decode(listing)))
    except msgspec.DecodeError as torn:
        raise Unreachable(f"nft lists the ruleset in a way that is no JSON: {torn}") from torn


def _status(options: GatewayOptions) -> Status:
    answer: Any = ask(place_of(options).socket, "status", {"redacted": True}, patience_s=PATIENCE_S)
    if not isinstance(answer, dict) or "redacted" not in answer:
        raise Unreachable("the daemon is of a version that can not redact its answer: restart it")
    try:
        status: Status = value_of(Status, answer["redacted"])
    except Misread as wrong:
        raise Unreachable(f"the daemon is of another version ({wrong}): restart it") from wrong
    return status


def _host_hash() -> str:
    """Return a hash of the host name under the machine's own id: nobody else can try names against it."""
    try:
        key = _MACHINE_ID.read_bytes().strip()
    except OSError:
        key = b""
    return hmac.digest(key or os.urandom(16), platform.node().encode(), "sha256").hex()[:16]


def _dotted(surroundings: Host | None) -> str:
    return ".".join(map(str, surroundings.nft)) if surroundings else ""

"""The support bundle: all that `explain`, `trace`, `doctor` and `plan` look at, in one file that can be sent.

A tar.gz of JSON texts (`archive`), each a value of the model by its type (`exact`), and of manifests for people. What
is in it was redacted when it was taken (`redact`). Reading one never runs, imports or writes anything: it may come from
anybody. The page docs/reference/bundle.md lists its files.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import msgspec

from outgate.model.errors import IntentError, NotReady
from outgate.model.firewall import Firewall
from outgate.model.flow import Flow
from outgate.model.host import Host
from outgate.model.intent import Intent
from outgate.model.ledger import Ledger
from outgate.model.state import Reading
from outgate.model.status import Status
from outgate.model.why import Finding
from outgate.sources.archive import MOST_BYTES, Unfit, pack, unpack
from outgate.sources.dump import dump
from outgate.sources.dump_cluster import dump_cluster
from outgate.sources.exact import Kind, Misread, plain_of, value_of
from outgate.sources.own import OwnObject
from outgate.sources.words import printable, quote
from outgate.sources.yaml_writer import to_yaml

FORMAT = 1  # a change of meaning is a new number; a new field or file is not, as long as it has a default
MOST_VALUES = (
    12_000_000  # of one file, a mapping counts as four: a text of brackets takes fifty times its size in memory
)

LATEST_S = 4e9  # wall clock: the year 2096

_ROOT = "outgate-bundle"
_ABOUT = "about.json"
_PARTS: Mapping[str, Kind] = MappingProxyType(
    {
        "intent": Intent,
        "ledger": Ledger,
        "reading": Reading,
        "flows": tuple[Flow, ...],
        "host": Host,
        "firewall": Firewall,
        "status": Status,
        "log": tuple[Mapping[str, str], ...],
    }
)
_FOR_PEOPLE = ("manifests/outgate.yaml", "manifests/cluster.json", "ruleset.json")
_FILES = frozenset({f"{_ROOT}/{name}" for name in (_ABOUT, *(f"{part}.json" for part in _PARTS), *_FOR_PEOPLE)})


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Where a bundle comes from, and what it lacks.

    `host` is a keyed hash of the host name: bundles of one machine have the same. `digest` is that of the table which
    the writing version renders. `missing` says of each part that could not be read why, `left_out` how many objects of
    each kind that outgate does not read the manifests held, `flows` how many live flows there were in all.
    """

    format: int = FORMAT
    written_by: str = ""
    taken_s: float = 0.0  # wall clock
    host: str = ""
    kernel: str = ""
    nft: str = ""
    gateway: str = ""  # what `--name` said
    digest: str = ""
    flows: int = 0
    left_out: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    missing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    findings: tuple[Finding, ...] = ()  # about the state file


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What one machine showed at one moment. A part that is None could not be read; `about.missing` says why.

    `flows` is a sample, `log` the fields of the last lines of the daemon's log, `ruleset` the JSON of nftables for
    people: it is not parsed.
    """

    about: About
    intent: Intent | None = None
    ledger: Ledger | None = None
    reading: Reading | None = None
    flows: tuple[Flow, ...] | None = None
    host: Host | None = None
    firewall: Firewall | None = None
    status: Status | None = None
    log: tuple[Mapping[str, str], ...] | None = None
    ruleset: bytes = b""

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read a bundle.

        Raises:
            IntentError: it can not be read, or is no bundle that this version knows.
        """
        try:
            with path.open("rb") as file:
                found = dict(unpack(file, _FILES, MOST_BYTES))
        except OSError as failed:
            raise IntentError(f"{path}: can not be read: {failed.strerror}") from failed
        except Unfit as unfit:
            raise IntentError(f"{path}: is no bundle of outgate: {unfit}") from unfit
        try:
            with _uncollected():
                return _bundle({name.removeprefix(f"{_ROOT}/"): content for name, content in found.items()})
        except Misread as wrong:
            raise IntentError(f"{path}: {wrong}") from wrong

    def need(self, part: str) -> Any:
        """Return a part by its name.

        Raises:
            NotReady: the bundle lacks it; the text says why.
        """
        value = getattr(self, part)
        if value is None:
            raise NotReady(f"the bundle holds no {part}: {self.about.missing.get(part, 'it was not taken')}")
        return value


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the cyclic collector from walking over what is being read: it has no cycles, and takes a third of the time
    otherwise.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def write(bundle: Bundle, file: IO[bytes]) -> None:
    """Write a bundle as one file.

    Raises:
        ValueError: it is larger than what is ever read back.
        OSError: the file can not be written.
    """
    pack(((f"{_ROOT}/{name}", content) for name, content in _contents(bundle)), file, bundle.about.taken_s)


def _contents(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    """Give the files of a bundle, made one at a time."""
    yield _ABOUT, msgspec.json.format(_encoded(About, bundle.about)) + b"\n"
    for part, kind in _PARTS.items():
        value = getattr(bundle, part)
        if value is not None:
            yield f"{part}.json", _encoded(kind, value)
    if bundle.intent is not None:
        own: list[OwnObject] = [*bundle.intent.gateways, *bundle.intent.tenants]
        own += (*bundle.intent.pools, *bundle.intent.claims)
        yield "manifests/outgate.yaml", "".join(f"---\n{to_yaml(dump(one))}" for one in own).encode()
        listing = {"apiVersion": "v1", "kind": "List", "items": list(dump_cluster(bundle.intent))}
        yield "manifests/cluster.json", msgspec.json.encode(listing)
    if bundle.ruleset:
        yield "ruleset.json", bundle.ruleset


def _encoded(kind: Kind, value: object) -> bytes:
    return msgspec.json.encode(plain_of(kind, value))


def _bundle(files: Mapping[str, bytes]) -> Bundle:
    if _ABOUT not in files:
        raise Misread(f"is no bundle of outgate: it lacks {_ABOUT}")
    about = _plain(_ABOUT, files[_ABOUT])
    known = about.get("format") if isinstance(about, dict) else None
    if type(known) is not int or known > FORMAT:
        by = quote(str(about.get("written_by"))) if isinstance(about, dict) else "nobody"
        raise Misread(f"was written by outgate {by} in another format; this version knows format {FORMAT}")
    if not 0 <= value_of(float, about.get("taken_s", 0.0)) < LATEST_S:
        raise Misread(f"{_ABOUT}: taken_s is no moment")
    parts = {part: _value(f"{part}.json", kind, files) for part, kind in _PARTS.items() if f"{part}.json" in files}
    return Bundle(about=_value(_ABOUT, About, files), ruleset=files.get("ruleset.json", b""), **parts)


def _value(name: str, kind: Kind, files: Mapping[str, bytes]) -> Any:
    try:
        return value_of(kind, _plain(name, files[name]))
    except Misread as wrong:
        raise Misread(f"{name}: {wrong}") from None


def _plain(name: str, content: bytes) -> Any:
    """Return the plain data of a file; what a terminal would not show as it is becomes its escape."""
    if content.count(b",") + content.count(b"[") + 4 * content.count(b"{") > MOST_VALUES:
        raise Misread(f"{name} has more than {MOST_VALUES:,} values")
    try:
        plain = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as torn:
        raise Misread(f"{name} is no JSON: {torn}") from None
    may_draw = not content.isascii() or b"\\u" in content or b"\x7f" in content
    return _printable(plain) if may_draw else plain


def _printable(plain: Any) -> Any:
    match plain:
        case str():
            return "\n".join(map(printable, plain.split("\n")))
        case list():
            return [_printable(inner) for inner in plain]
        case dict():
            return {printable(key): _printable(inner) for key, inner in plain.items()}
        case _:
            return plain

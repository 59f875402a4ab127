"""Reads the firewalls of others: one process per family and variant of iptables, one for nftables; nothing is changed.

A program that is not installed leaves its part unread, and the reading says so: legacy rules do live on in a kernel
whose iptables-legacy was removed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, product

from outgate.model.errors import Unreachable
from outgate.model.firewall import Firewall, HookChain, IptablesRule, MarkUse, SourceNat, Variant, program
from outgate.systems.iptables import nftables, rules
from outgate.systems.iptables.save import Saved, parse

OWN_TABLE = ("inet", "outgate")
_SEARCHED = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"  # a service's PATH may lack what is in sbin
_LIMIT_S = 30.0  # another program may hold iptables' lock


def read(path: str = _SEARCHED) -> Firewall:
    """Return all that others hold in the calling thread's network namespace. Programs are searched in `path`.

    What can not be read is named; the rest is read all the same.
    """
    missing = _Missing()
    listings = list(_saves(path, missing))
    tables = _foreign_tables(path, listings, missing)
    every = tuple(rule for saved, _, _ in listings for rule in saved.rules)
    chains: Iterator[HookChain] = chain(
        *(rules.hook_chains(saved, version=version, variant=variant) for saved, version, variant in listings),
        nftables.hook_chains(tables),
    )
    nats: Iterator[SourceNat] = chain(rules.source_nats(every), nftables.source_nats(tables))
    marks: Iterator[MarkUse] = chain(rules.mark_uses(every), nftables.mark_uses(tables))
    return Firewall(
        rules=every,
        chains=tuple(chains),
        nats=tuple(nats),
        marks=tuple(marks),
        unread=tuple(missing.unread),
        failed=tuple(missing.failed),
    )


def read_rules(path: str = _SEARCHED) -> tuple[tuple[IptablesRule, ...], tuple[str, ...]]:
    """Return the iptables rules alone, and the programs that are not installed, in sentences.

    Raises:
        Unreachable: a program is there, but fails or does not answer.
    """
    missing = _Missing()
    found = tuple(rule for saved, _, _ in _saves(path, missing) for rule in saved.rules)
    if missing.failed:
        raise Unreachable("; ".join(missing.failed))
    return found, tuple(missing.unread)


@dataclass(slots=True)
class _Missing:
    """What could not be read, as it turns out."""

    unread: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run(argv: list[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in the C locale and return what it said.

    Raises:
        Unreachable: it does not start, or does not end in time.
    """
    environment = {"PATH": _SEARCHED, "LC_ALL": "C"}
    try:
        return subprocess.run(
            argv, input=stdin, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise Unreachable(f"{argv[0]} did not end within {_LIMIT_S:.0f} s") from late
    except OSError as failed:
        raise Unreachable(f"{argv[0]} does not start: {os.strerror(failed.errno or 0)}") from failed


def _saves(path: str, missing: _Missing) -> Iterator[tuple[Saved, int, Variant]]:
    for version, variant in product((4, 6), Variant):
        name = f"{program(version, variant)}-save"
        text = _output(name, [], path, missing)
        if text is not None:
            yield parse(text, version=version, variant=variant), version, variant


def _foreign_tables(path: str, listings: list[tuple[Saved, int, Variant]], missing: _Missing) -> nftables.ForeignTables:
    # Terse, which leaves out the elements of named sets: ours alone may be 100,000.
    text = _output("nft", ["-j", "-t", "list", "ruleset"], path, missing)
    if text is None:
        return nftables.ForeignTables((), ())
    shown = {
        ("ip" if version == 4 else "ip6", table)
        for saved, version, variant in listings
        if variant is Variant.NFT
        for table in saved.tables
    }
    return nftables.foreign(json.loads(text)["nftables"], {OWN_TABLE, *shown})


def _output(name: str, arguments: list[str], path: str, missing: _Missing) -> str | None:
    """Return what a program prints, None where it is not installed or fails."""
    found = shutil.which(name, path=path)
    if found is None:
        missing.unread.append(f"{name} is not installed: rules of that kind, if there are any, were not read")
        return None
    try:
        ran = run([found, *arguments])
    except Unreachable as silent:
        missing.failed.append(str(silent))
        return None
    if ran.returncode:
        missing.failed.append(f"{name} failed: {ran.stderr.strip()}")
        return None
    return ran.stdout

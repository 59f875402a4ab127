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

    Raises:
        Unreachable: a program is there, but fails or does not answer.
    """
    unread: list[str] = []
    listings = list(_saves(path, unread))
    tables = _foreign_tables(path, listings, unread)
    every = tuple(rule for saved, _, _ in listings for rule in saved.rules)
    chains: Iterator[HookChain] = chain(
        *(rules.hook_chains(saved, version=version, variant=variant) for saved, version, variant in listings),
        nftables.hook_chains(tables),
    )
    nats: Iterator[SourceNat] = chain(rules.source_nats(every), nftables.source_nats(tables))
    marks: Iterator[MarkUse] = chain(rules.mark_uses(every), nftables.mark_uses(tables))
    return Firewall(rules=every, chains=tuple(chains), nats=tuple(nats), marks=tuple(marks), unread=tuple(unread))


def read_rules(path: str = _SEARCHED) -> tuple[tuple[IptablesRule, ...], tuple[str, ...]]:
    """Return the iptables rules alone, and what of them could not be read.

    Raises:
        Unreachable: a program is there, but fails or does not answer.
    """
    unread: list[str] = []
    return tuple(rule for saved, _, _ in _saves(path, unread) for rule in saved.rules), tuple(unread)


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


def _saves(path: str, unread: list[str]) -> Iterator[tuple[Saved, int, Variant]]:
    for version, variant in product((4, 6), Variant):
        name = f"{program(version, variant)}-save"
        found = shutil.which(name, path=path)
        if found is None:
            unread.append(f"{name} is not installed: rules of that kind, if there are any, were not read")
            continue
        ran = run([found])
        if ran.returncode:
            raise Unreachable(f"{name} failed: {ran.stderr.strip()}")
        yield parse(ran.stdout, version=version, variant=variant), version, variant


def _foreign_tables(path: str, listings: list[tuple[Saved, int, Variant]], unread: list[str]) -> nftables.ForeignTables:
    found = shutil.which("nft", path=path)
    if found is None:
        unread.append("nft is not installed: other nftables, if there are any, were not read")
        return nftables.ForeignTables((), ())
    ran = run([found, "-j", "-t", "list", "ruleset"])  # without elements: ours alone may be 100,000
    if ran.returncode:
        raise Unreachable(f"nft list ruleset failed: {ran.stderr.strip()}")
    shown = {
        ("ip" if version == 4 else "ip6", table)
        for saved, version, variant in listings
        if variant is Variant.NFT
        for table in saved.tables
    }
    return nftables.foreign(json.loads(ran.stdout)["nftables"], {OWN_TABLE, *shown})

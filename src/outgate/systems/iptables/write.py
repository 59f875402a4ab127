"""Removes rules of others that were handed over to us: exactly the lines that were read, one transaction per table.

`iptables-restore --noflush` takes the words that `iptables-save` printed, so nothing is put together anew, and a table
is changed wholly or not at all (iptables-restore(8)).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from outgate.model.errors import Refused
from outgate.model.firewall import IptablesRule, Variant, program
from outgate.systems.iptables.read import run


def remove(rules: Iterable[IptablesRule]) -> None:
    """Remove exactly these rules, each once: of a rule that stands twice, two must be given.

    Raises:
        Refused: a rule is not there any more, so its table is as it was; what was removed before stays removed.
        Unreachable: the program does not start or does not end.
    """
    ordered = sorted(rules, key=lambda rule: (rule.version, rule.variant.value))
    for (version, variant), group in groupby(ordered, key=lambda rule: (rule.version, rule.variant)):
        _remove(list(group), version, variant)


def _remove(rules: list[IptablesRule], version: int, variant: Variant) -> None:
    lines = []
    for table, group in groupby(sorted(rules, key=lambda rule: rule.table), key=lambda rule: rule.table):
        lines += [f"*{table}", *(f"-D{rule.line.removeprefix('-A')}" for rule in group), "COMMIT"]
    name = f"{program(version, variant)}-restore"
    ran = run([name, "--noflush"], stdin="\n".join([*lines, ""]))
    if ran.returncode:
        raise Refused(f"remove {len(rules)} rules by {name}", ran.stderr.strip())

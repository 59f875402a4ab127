"""Checks of other services on the machine, and of what a former script left."""

from __future__ import annotations

from outgate.plan.doctor.seen import Seen, Troubles, listed, warn
from outgate.plan.script_rules import script_links, script_rules

_NETWORKD_FILE = "/etc/systemd/networkd.conf.d/outgate.conf"
_NM_FILE = "/etc/NetworkManager/conf.d/outgate.conf"
_OWN_LINKS = "interface-name:og-*"


def networkd(seen: Seen) -> Troubles:
    """Say when systemd-networkd would delete our routes or rules."""
    found = seen.host.networkd
    keys = [("ManageForeignRoutes", found.keeps_routes, "routes")]
    keys += [("ManageForeignRoutingPolicyRules", found.keeps_rules, "policy rules")]
    lost = [(key, what) for key, kept, what in keys if not kept]
    if found.running and lost:
        text = f"at a restart it deletes {' and '.join(what for _, what in lost)} that it did not make, ours among them"
        lines = "\\n".join(["[Network]", *(f"{key}=no" for key, _ in lost)])
        fix = f"printf '{lines}\\n' > {_NETWORKD_FILE}; systemctl restart systemd-networkd"
        yield warn("systemd-networkd", text + (f" (set in {found.file})" if found.file else " (its default)"), fix)


def nm(seen: Seen) -> Troubles:
    """Say when NetworkManager may take addresses and links of ours in hand."""
    found = seen.host.nm
    if found.running and not any(_spares_ours(word) for word in found.unmanaged):
        text = (
            f"it is not told to leave outgate's links alone ({_OWN_LINKS}); it may set them down or give them addresses"
        )
        fix = f"printf '[keyfile]\\nunmanaged-devices+={_OWN_LINKS}\\n' > {_NM_FILE}; nmcli general reload"
        yield warn("NetworkManager", text, fix)


def firewalld(seen: Seen) -> Troubles:
    """Say when a reload of firewalld flushes everybody's iptables rules."""
    if seen.host.firewalld.running and seen.host.firewalld.flushes:
        text = "a reload flushes all iptables rules (FlushAllOnReload=yes); outgate's own table stays, but rules of"
        text += " others that accept tenants' packets go"
        yield warn("firewalld", text, "write FlushAllOnReload=no in /etc/firewalld/firewalld.conf")


def nftables_service(seen: Seen) -> Troubles:
    """Say when nftables.service would flush our table."""
    found = seen.host.nftables_service
    if found.enabled and found.flushed_by:
        text = (
            f"it flushes the whole ruleset when it starts or stops ({found.flushed_by}), outgate's table too: pods are"
        )
        text += " stopped by policy routing, and tenants are cut off until outgate has loaded it again"
        fix = f"let {found.flushed_by} delete its own tables only; or systemctl disable nftables"
        yield warn("nftables.service", text, fix)


def script_leftovers(seen: Seen) -> Troubles:
    """Name what a former script left, with the command that takes it over."""
    adopted = seen.snapshot.ledger.adopting
    links = [link.name for link in script_links(seen.host.macvlans) if link.name not in adopted]
    rules = script_rules(seen.firewall.rules).every
    if links or rules:
        parts = [f"links {listed(links)}"] if links else []
        parts += (
            [f"{len(rules)} iptables rules ({rules[0].place}{' and more' if len(rules) > 1 else ''})"] if rules else []
        )
        text = f"a script for the same job left {' and '.join(parts)}"
        fix = "outgate gateway import-script shows them as manifests, with --adopt it takes them over"
        yield warn("macvlan-*", text, fix)


def _spares_ours(word: str) -> bool:
    """Whether a device specification of NetworkManager.conf(5) covers our links."""
    kind, _, pattern = word.rpartition(":")
    return kind in ("", "interface-name") and pattern in ("*", "og*", "og-*")

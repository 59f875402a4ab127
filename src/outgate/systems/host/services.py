"""What other network services are configured to do, read from their files as they read them themselves.

Sources: networkd.conf(5), NetworkManager.conf(5), firewalld.conf(5), and the nftables.service of Debian and Fedora. A
drop-in of /etc hides one of the same name of /run, and that hides one of /usr; they are read in the order of their
names.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from outgate.model.host import Firewalld, Networkd, NftablesService, NmService

_LAYERS = ("etc", "run", "usr/local/lib", "usr/lib", "lib")  # the first hides the later ones
_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
_NFT_CONFIGURATIONS = ("etc/nftables.conf", "etc/sysconfig/nftables.conf")
_FLUSH = "flush ruleset"


def running(root: Path) -> frozenset[str]:
    """Return the names of the programs that run (15 bytes at most, as the kernel keeps them)."""
    return frozenset(filter(None, (_read(comm).strip() for comm in (root / "proc").glob("[0-9]*/comm"))))


def networkd(root: Path, programs: frozenset[str]) -> Networkd:
    """Return what systemd-networkd does to routes and rules that it did not make."""
    keeps = {"ManageForeignRoutes": False, "ManageForeignRoutingPolicyRules": False}
    last = ""
    for file in _files(root, "systemd", "networkd.conf"):
        for section, key, value in _settings(file):
            if section == "Network" and key in keeps and value:
                keeps[key] = value.lower() not in _TRUE
                last = _shown(root, file)
    return Networkd(
        running="systemd-network" in programs,
        keeps_routes=keeps["ManageForeignRoutes"],
        keeps_rules=keeps["ManageForeignRoutingPolicyRules"],
        file=last,
    )


def nm(root: Path, programs: frozenset[str]) -> NmService:
    """Return which devices NetworkManager leaves alone."""
    listed: tuple[str, ...] = ()
    for file in _files(root, "NetworkManager", "NetworkManager.conf", drop_ins="conf.d"):
        for section, key, value in _settings(file):
            if section == "keyfile" and key.rstrip("+-") == "unmanaged-devices":
                found = tuple(part.strip() for part in value.replace(",", ";").split(";") if part.strip())
                listed = (*listed, *found) if key.endswith("+") else found
    return NmService(running="NetworkManager" in programs, unmanaged=listed)


def firewalld(root: Path, programs: frozenset[str]) -> Firewalld:
    """Return whether firewalld runs, and what a reload of it flushes."""
    told = {key: value for _, key, value in _settings(root / "etc/firewalld/firewalld.conf")}
    return Firewalld(running="firewalld" in programs, flushes=told.get("FlushAllOnReload", "yes").lower() in _TRUE)


def nftables_service(root: Path) -> NftablesService:
    """Return whether nftables.service is enabled, and what would flush everybody's rules when it starts or stops."""
    units = [root / layer / "systemd/system/nftables.service" for layer in _LAYERS]
    files = [*(root / name for name in _NFT_CONFIGURATIONS), *units]
    flushing = (file for file in files if any(_FLUSH in line for line in _lines(file)))
    enabled = any(
        link.is_symlink() or link.exists() for link in (root / "etc/systemd/system").glob("*.wants/nftables.service")
    )
    return NftablesService(enabled=enabled, flushed_by=next((_shown(root, file) for file in flushing), ""))


def _files(root: Path, folder: str, name: str, *, drop_ins: str = "") -> Iterator[Path]:
    """Yield the main file and its drop-ins, in the order in which later ones win."""
    places = [root / layer / folder for layer in _LAYERS]
    main = next((place / name for place in places if (place / name).is_file()), None)
    found: dict[str, Path] = {}
    for place in reversed(places):
        found.update((file.name, file) for file in (place / (drop_ins or f"{name}.d")).glob("*.conf"))
    return chain([main] if main else [], (found[key] for key in sorted(found)))


def _settings(file: Path) -> Iterator[tuple[str, str, str]]:
    """Yield section, key and value of each assignment; a key of `key+=value` keeps its sign."""
    section = ""
    for line in _lines(file):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line:
            key, _, value = line.partition("=")
            yield section, key.strip(), value.strip()


def _lines(file: Path) -> Iterator[str]:
    """Yield the lines that are no comments, stripped."""
    for line in _read(file).splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith(("#", ";")):
            yield stripped


def _read(file: Path) -> str:
    """Return a file's text; "" when it is not there, gone meanwhile, or not for us to read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _shown(root: Path, file: Path) -> str:
    return f"/{file.relative_to(root)}"

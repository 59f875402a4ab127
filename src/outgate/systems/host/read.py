"""Reads the machine around a gateway. Files are looked up below a root: pictures of other machines can be read too."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from outgate.model.host import Conntrack, Host
from outgate.systems.host import services
from outgate.systems.host.macvlans import macvlans

_LIMIT_S = 10.0
_NFT = ("nft", "-j", "list", "tables")
_SEARCHED = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"


def read(root: Path = Path("/")) -> Host:
    """Return what the machine is and what runs on it.

    Links, limits and the version of nft are those of the calling thread's network namespace, whatever the root.

    Raises:
        Unreachable: netlink does not answer.
    """
    unread: list[str] = []
    programs = services.running(root)
    return Host(
        kernel=numbers(_text(root / "proc/sys/kernel/osrelease")),
        nft=_nft_version(unread),
        networkd=services.networkd(root, programs),
        nm=services.nm(root, programs),
        firewalld=services.firewalld(root, programs),
        nftables_service=services.nftables_service(root),
        conntrack=Conntrack(
            count=_number(root / "proc/sys/net/netfilter/nf_conntrack_count"),
            maximum=_number(root / "proc/sys/net/netfilter/nf_conntrack_max"),
        ),
        macvlans=macvlans(),
        unread=tuple(unread),
    )


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: `6.18.44-fc` is (6, 18, 44)."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def _nft_version(unread: list[str]) -> tuple[int, ...]:
    """Return nft's version as it says itself in JSON, with every answer."""
    try:
        ran = subprocess.run(
            _NFT, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env={"PATH": _SEARCHED, "LC_ALL": "C"}
        )
    except OSError as failed:
        unread.append(f"nft does not start: {failed.strerror}")
        return ()
    except subprocess.TimeoutExpired:
        unread.append(f"nft did not answer within {_LIMIT_S:.0f} s")
        return ()
    if ran.returncode:
        unread.append(f"nft does not list tables: {ran.stderr.strip()}")
        return ()
    items = json.loads(ran.stdout)["nftables"]
    return next((numbers(item["metainfo"]["version"]) for item in items if "metainfo" in item), ())


def _number(file: Path) -> int:
    """Return the number in a file; 0 when there is none, as where connection tracking is not loaded."""
    text = _text(file)
    return int(text) if text.isdigit() else 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""

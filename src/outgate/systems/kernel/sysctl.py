"""Settings that netlink does not write: those of IPv6, those of the pseudo link `all`, and what has no place in a link.

Source: `Documentation/networking/ip-sysctl.rst` of the kernel. /proc/sys/net shows the network namespace of the calling
thread, whatever the mount was made in. A name of a link can hold no "/", and none is "." or ".."
(`dev_valid_name`), so a name is always one path component.
"""

from __future__ import annotations

import os
from pathlib import Path

from outgate.model.net import ALL_LINKS, LinkName, Setting

_ROOT = "/proc/sys/net"


def read_all() -> dict[Setting, int]:
    """Return the settings of the pseudo link `all`; those of IPv6 are missing where the kernel has none."""
    found = {}
    for setting in Setting:
        try:
            found[setting] = int(Path(_path(ALL_LINKS, setting)).read_text(encoding="ascii"))
        except FileNotFoundError:
            continue
    return found


def write(link: LinkName, setting: Setting, value: int) -> str:
    """Set one value. Return "" when it was taken, else the kernel's words."""
    return _put(_path(link, setting), value)


def value_of(key: str) -> int | None:
    """Return the value of a setting by its name under net, as `ipv6/conf/eth1/proxy_ndp`; None where there is none."""
    try:
        return int(Path(f"{_ROOT}/{key}").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


def put(key: str, value: int) -> str:
    """Set a value by the setting's name under net. Return "" when it was taken, else the kernel's words."""
    return _put(f"{_ROOT}/{key}", value)


def _put(path: str, value: int) -> str:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # a third of what pathlib takes, 4,000 times
        try:
            os.write(file, b"%d\n" % value)
        finally:
            os.close(file)
    except OSError as error:
        return f"{error.strerror}: {path}"
    return ""


def _path(link: LinkName, setting: Setting) -> str:
    family, key = setting.value.split("/")
    return f"{_ROOT}/{family}/conf/{link}/{key}"

"""The program ovn-trace: what OVN itself says of a packet, from a zone's southbound database.

It has no output for programs. Of its detailed form four things are taken, which have stood since 2016: the name of each
flow, the ports of its `output to` remarks, the address of `ct_snat`, and what is loaded into the next hop's register.
All that it said is handed on, for people. Source: ovn-trace(8), utilities/ovn-trace.c of OVN 23.03.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from ipaddress import ip_address

from outgate.model.errors import NotReady, Refused, Unreachable
from outgate.model.net import Address
from outgate.model.zone import Microflow, Output, OvnSaid
from outgate.systems.ovn.wire import Database

_SOUTHBOUND = "OVN_Southbound"
_PLACES = "/usr/bin:/usr/sbin:/usr/local/bin:/bin"
_LIMIT_S = 30.0  # a zone of 10,000 pods is read in some seconds
_FLOW = re.compile(r"^\s*\d+\. (\w+) \([^)]*\): (.*), priority (\d+), uuid \w+$", re.MULTILINE)
_OUTPUT = re.compile(r'/\* output to "([^"]*)"(?:, type "([^"]*)")?')
_SNAT = re.compile(r"\bct_snat(?:_in_czone)?\((?:ip[46]\.src=)?([0-9a-fA-F.:]+)\)")
_NEXT_HOP = re.compile(r"^\s*x{0,2}reg0 = ([0-9a-fA-F]+[.:][0-9a-fA-F.:]+);$", re.MULTILINE)
_ASKS = re.compile(r"^\s*(?:arp|nd_ns) \{", re.MULTILINE)
_INSIDE = frozenset({"patch", "l3gateway", "router", "vtep", "chassisredirect"})  # ports that lead on within OVN


def ovn_trace(southbound: str, zone: str, flow: Microflow) -> OvnSaid:
    """Return what it says of a packet. `southbound` is `unix:PATH` or `tcp:HOST:PORT`, `zone` the name of its node.

    Raises:
        NotReady: ovn-trace is not installed.
        Refused: with its words, or because that is no southbound database.
        Unreachable: nobody answers at the database, or it did not end in time and was killed.
    """
    program = shutil.which("ovn-trace", path=_PLACES)
    if program is None:
        raise NotReady(f"there is no ovn-trace in {_PLACES}: install the package ovn-common, or leave out --southbound")
    _ask_for_schema(southbound)
    argv = (
        program,
        f"--db={southbound}",
        "--no-leader-only",
        "--detailed",
        "--ct=new",
        flow.datapath,
        expression(flow),
    )
    try:
        ran = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": _PLACES, "LC_ALL": "C"},
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise Unreachable(f"ovn-trace at {southbound} did not end within {_LIMIT_S:g} s") from late
    if ran.returncode:
        words = "; ".join(line for line in ran.stderr.splitlines() if line.strip())
        raise Refused(f"trace in the zone of {zone}", words or f"ovn-trace ended with {ran.returncode}")
    return parse(zone, ran.stdout)


def _ask_for_schema(southbound: str) -> None:
    """See that a southbound database answers: of another one, ovn-trace would wait for rows for ever."""
    with contextlib.closing(Database(southbound, _SOUTHBOUND)) as database:
        try:
            database.call("get_schema", [_SOUTHBOUND])
        except Refused as refused:
            raise Refused(f"read the southbound database at {southbound}", refused.words) from refused


def expression(flow: Microflow) -> str:
    """Return a packet in the language of ovn-trace; names stand in quotes, as JSON strings do."""
    ip = f"ip{flow.source.version}"
    protocol = {"icmp": "icmp4", "icmpv6": "icmp6"}.get(flow.protocol, flow.protocol)
    if protocol == "icmp4" and flow.source.version == 6:
        protocol = "icmp6"
    parts = [
        f"inport == {_quoted(flow.inport)}",
        f"eth.src == {flow.eth_src}",
        f"eth.dst == {flow.eth_dst}",
        f"{ip}.src == {flow.source}",
        f"{ip}.dst == {flow.destination}",
        f"ip.ttl == {flow.ttl}",
        protocol,
    ]
    parts += [f"{protocol}.dst == {flow.port}"] if flow.port else []
    return " && ".join(parts)


def parse(zone: str, text: str) -> OvnSaid:
    """Return what a trace in detailed form says."""
    flows = _FLOW.findall(text)
    policies = [one for one in flows if one[0] == "lr_in_policy" and one[1] != "1"]
    hops, sources = _NEXT_HOP.findall(text), _SNAT.findall(text)
    outputs = (Output(port, kind) for port, kind in _OUTPUT.findall(text) if kind not in _INSIDE)
    return OvnSaid(
        zone=zone,
        outputs=tuple(dict.fromkeys(outputs)),
        next_hop=_address(hops),
        source=_address(sources),
        asks_neighbour=_ASKS.search(text) is not None,
        policy=_words(policies),
        flow=_words(flows),
        text=text,
    )


def _words(flows: list[tuple[str, str, str]]) -> str:
    """Return the last of some flows in words, empty where there is none."""
    return f"{flows[-1][0]} {flows[-1][2]} `{flows[-1][1]}`" if flows else ""


def _address(found: list[str]) -> Address | None:
    """Return the last of some addresses."""
    return ip_address(found[-1]) if found else None


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'

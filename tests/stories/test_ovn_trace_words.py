"""What is taken of ovn-trace's words, and how a packet is said to it. The texts are cut from answers of OVN 23.03."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import click
import pytest

from outgate.cli.trace import ZoneDatabase
from outgate.model.errors import Unreachable
from outgate.model.zone import Microflow, Output
from outgate.systems.ovn.topology import read_zone
from outgate.systems.ovn.trace_program import expression, parse

FLOW = Microflow(
    datapath="n1",
    inport="shop_p11",
    eth_src="0a:58:0a:80:00:05",
    eth_dst="0a:58:0a:80:00:01",
    source=ip_address("10.128.0.5"),
    destination=ip_address("203.0.113.10"),
)
BY_TUNNEL = """
15. lr_in_policy (northd.c:9526): ip4.src == 10.128.1.5, priority 100, uuid deb5bad8
    reg0 = 100.88.0.2;
    reg1 = 100.88.0.3;
    eth.src = 0a:58:64:58:00:03;
    outport = "rtots-n2";
    next;
    /* output to "rtots-n2", type "patch" */
 9. ls_out_apply_port_sec (northd.c:5777): 1, priority 0, uuid 57474bab
    output;
    /* output to "tstor-n1", type "remote" */
"""
TRANSLATED = """
13. lr_in_ip_routing (northd.c:10388): reg7 == 0 && ip6.dst == ::/0, priority 1, uuid 6b0dd3a0
    xxreg0 = fd99::1;
    xxreg1 = fd99::21;
15. lr_in_policy (northd.c:12213): 1, priority 0, uuid a7dc14da
    reg8[0..15] = 0;
 3. lr_out_snat (northd.c:13893): ip && ip6.src == fd01:0:0:1::5, priority 129, uuid 3ea0b1d2
    ct_snat(fd99::150);
    /* output to "br-ex_n1", type "localnet" */
"""
DROPPED = """
15. lr_in_policy (northd.c:9526): ip4.src == 10.128.0.6, priority 101, uuid ff88f8a9
    drop;
"""
TO_HOST = """
    /* output to "k8s-n1", type "" */
"""


def test_a_tunnel_is_an_output_and_ports_within_ovn_are_not() -> None:
    said = parse("n2", BY_TUNNEL)

    assert said.outputs == (Output("tstor-n1", "remote"),)
    assert (said.next_hop, said.source) == (ip_address("100.88.0.2"), None)
    assert said.policy == "lr_in_policy 100 `ip4.src == 10.128.1.5`"


def test_an_address_and_a_next_hop_are_read_of_both_families() -> None:
    said = parse("n1", TRANSLATED)

    assert (said.source, said.next_hop) == (ip_address("fd99::150"), ip_address("fd99::1"))
    assert said.policy == ""  # the one that matches everything is no policy


def test_no_output_is_a_drop_and_the_last_flow_did_it() -> None:
    said = parse("n1", DROPPED)

    assert (said.outputs, said.flow) == ((), "lr_in_policy 101 `ip4.src == 10.128.0.6`")


def test_a_port_without_a_type_is_one_of_a_pod_or_the_host() -> None:
    assert parse("n1", TO_HOST).outputs == (Output("k8s-n1", ""),)


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        (FLOW, "ip4.src == 10.128.0.5 && ip4.dst == 203.0.113.10 && ip.ttl == 64 && tcp"),
        (replace(FLOW, port=443), "tcp && tcp.dst == 443"),
        (replace(FLOW, protocol="icmp"), "&& icmp4"),
        (replace(FLOW, source=ip_address("fd01::5"), destination=ip_address("2001:db8::9")), "ip6.src == fd01::5"),
        (replace(FLOW, source=ip_address("fd01::5"), destination=ip_address("2001:db8::9"), protocol="icmp"), "icmp6"),
        (replace(FLOW, inport='a" || ip4 || "b'), 'inport == "a\\" || ip4 || \\"b" && eth.src'),
    ],
)
def test_a_packet_is_said_in_the_language_of_ovn(flow: Microflow, words: str) -> None:
    assert words in expression(flow)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("unix:/run/nb.sock", ("", "unix:/run/nb.sock")),
        ("n1=unix:/run/nb.sock", ("n1", "unix:/run/nb.sock")),
        ("unix:/run/a=b.sock", ("", "unix:/run/a=b.sock")),
        ("n1=tcp:[fd00::1]:6641", ("n1", "tcp:[fd00::1]:6641")),
    ],
)
def test_a_database_is_named_with_or_without_the_node_of_its_zone(text: str, meant: tuple[str, str]) -> None:
    assert ZoneDatabase().convert(text, None, None) == meant


@pytest.mark.parametrize("text", ["", "n1=", "/run/nb.sock", "n1=/run/nb.sock"])
def test_what_names_no_database_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write it as in n1=unix:"):
        ZoneDatabase().convert(text, None, None)


def test_a_database_where_nobody_listens_is_named() -> None:
    with pytest.raises(Unreachable, match=r"OVN_Northbound at unix:/nowhere/nb\.sock"):
        read_zone("unix:/nowhere/nb.sock")

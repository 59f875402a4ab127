"""Prometheus scrapes a gateway with two tenants, and one with more than labels should tell apart. The page is read back
with the library's own parser.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from prometheus_client.parser import text_string_to_metric_families

from outgate.control.exposition import Exposition
from outgate.control.loop import Loop
from outgate.control.metrics import METRICS, MOST_LABELS, OTHER, Distribution, Meter, MetricsView, reference
from outgate.model.errors import IntentError, Refused
from outgate.model.net import LinkAddress, LinkName, OnLink, Route
from outgate.model.ruleset import Table
from outgate.model.state import Changes, Outcome
from outgate.model.status import (
    Blocked,
    GuardStatus,
    Health,
    Layer,
    NodeStatus,
    PortUse,
    SourceStatus,
    Status,
    TenantState,
    TenantStatus,
)
from outgate.model.why import Finding, Severity

UPLINK = LinkName("enp7s0")
BLUE_IP = ip_address("192.168.55.113")
ROUTE = Route(dst=ip_network("10.128.0.0/23"), hop=OnLink(link=UPLINK))
ADDRESS = LinkAddress(link=UPLINK, address=BLUE_IP)


def blue() -> TenantStatus:
    return TenantStatus(
        name="ns-blue",
        state=TenantState.OK,
        egress_ips=(BLUE_IP,),
        packets=10,
        sent_bytes=1000,
        received_bytes=5000,
        opened=3,
        ports=(PortUse(address=BLUE_IP, used=120, available=64_511, age_s=4.0),),
    )


def status() -> Status:
    return Status(
        gateway="gw1",
        version="0.1.0",
        health=Health.DEGRADED,
        uptime_s=60.0,
        sources=(SourceStatus(name="/etc/outgate", health=Health.OK, age_s=2.0),),
        guard=GuardStatus(
            table=True,
            rules=False,
            blocked=(
                Blocked(layer=Layer.ENTER, counter="no_identity", packets=5),
                Blocked(layer=Layer.ENTER, counter="wrong_source", packets=2),
                Blocked(layer=Layer.GUARD, counter="guard", packets=0),
            ),
        ),
        tenants=(blue(), TenantStatus(name="ns-red", state=TenantState.REFUSED)),
        nodes=(NodeStatus(name="worker-1", ready=True, routed=2), NodeStatus(name="worker-2", ready=False, routed=1)),
        findings=(
            Finding("NodeNotReady", "Node/worker-2", "is not ready"),
            Finding("SameEgressIP", "EgressTenant/ns-red", "is taken", Severity.REFUSAL),
        ),
    )


def metered() -> Meter:
    """Three rounds: a start, a repair that left something, and one that was put off."""
    meter = Meter()
    start = Changes(make=(ADDRESS, ROUTE, Table("abc")))
    meter.count(Outcome(changes=start), 0.02, wall_s=1_800_000_000.0, drift=False)
    repair = Outcome(changes=Changes(make=(ROUTE,), drop=(ADDRESS,)), left=Changes(drop=(ADDRESS,)))
    meter.count(repair, 3.0, wall_s=1_800_000_030.0, drift=True)
    meter.fail()
    return meter


def view(now_s: float | None = None) -> MetricsView:
    return metered().view(status(), now_s=time.monotonic() if now_s is None else now_s, flows=(1200, 262_144))


@contextmanager
def serving(shown: MetricsView | None) -> Iterator[Exposition]:
    """A page whose loop hangs: what was shown before the scrape is all there is."""
    with closing(Exposition("127.0.0.1:0", patience_s=0.0)) as exposition:
        if shown is not None:
            exposition.show(shown)
        yield exposition


def page(port: int, host: str = "127.0.0.1") -> str:
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        text: bytes = answer.read()
    return text.decode()


def samples(text: str) -> dict[str, float]:
    """The samples of ours, as they are written: `outgate_tenants{state="ok"}`."""
    return {
        sample.name
        + ("{" + ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items())) + "}" if sample.labels else ""): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("outgate_")
    }


def test_a_scrape_shows_what_the_last_round_left() -> None:
    with serving(view()) as exposition:
        found = samples(page(exposition.port))

    expected = {
        "outgate_build_info{gateway=gw1,version=0.1.0}": 1,
        "outgate_health{health=ok}": 0,
        "outgate_health{health=degraded}": 1,
        "outgate_rounds_total{result=converged}": 1,
        "outgate_rounds_total{result=unfinished}": 1,
        "outgate_rounds_total{result=failed}": 1,
        "outgate_round_seconds_bucket{le=0.01}": 0,
        "outgate_round_seconds_bucket{le=0.025}": 1,
        "outgate_round_seconds_bucket{le=5.0}": 2,
        "outgate_round_seconds_bucket{le=+Inf}": 2,
        "outgate_round_seconds_sum": 3.02,
        "outgate_round_seconds_count": 2,
        "outgate_last_successful_round_timestamp_seconds": 1_800_000_000,
        "outgate_changes_total{action=make,kind=route}": 2,
        "outgate_changes_total{action=drop,kind=link_address}": 1,
        "outgate_drift_repaired_total{kind=route}": 1,
        "outgate_tenants{state=ok}": 1,
        "outgate_tenants{state=degraded}": 0,
        "outgate_tenants{state=refused}": 1,
        "outgate_tenant_bytes_total{direction=sent,tenant=ns-blue}": 1000,
        "outgate_tenant_bytes_total{direction=received,tenant=ns-blue}": 5000,
        "outgate_tenant_packets_total{direction=sent,tenant=ns-blue}": 10,
        "outgate_tenant_connections_total{direction=sent,tenant=ns-blue}": 3,
        "outgate_snat_ports_in_use{egress_ip=192.168.55.113}": 120,
        "outgate_snat_ports_available{egress_ip=192.168.55.113}": 64_511,
        "outgate_leaks_blocked_total{layer=enter}": 7,
        "outgate_leaks_blocked_total{layer=guard}": 0,
        "outgate_guard_up{part=table}": 1,
        "outgate_guard_up{part=rules}": 0,
        "outgate_findings{reason=NodeNotReady,severity=warning}": 1,
        "outgate_findings{reason=SameEgressIP,severity=refusal}": 1,
        "outgate_nodes": 2,
        "outgate_routes": 3,
        "outgate_conntrack_entries": 1200,
        "outgate_conntrack_limit": 262_144,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert not [name for name in found if "ns-red" in name], "who has not been counted has no zero"


def test_a_scrape_waits_for_what_the_loop_counts_when_it_is_asked() -> None:
    with closing(Exposition("127.0.0.1:0", patience_s=60.0)) as exposition, closing(Loop()) as loop:

        def count() -> None:
            exposition.show(view())
            loop.stop()

        loop.watch(exposition, count)
        with ThreadPoolExecutor(1) as pool:
            scraped = pool.submit(page, exposition.port)
            loop.run(lambda: None)
            assert samples(scraped.result(timeout=60))["outgate_nodes"] == 2


def test_ages_grow_while_the_loop_hangs() -> None:
    with serving(view(now_s=time.monotonic() - 100)) as exposition:
        found = samples(page(exposition.port))

    assert 102 <= found["outgate_source_freshness_seconds{source=/etc/outgate}"] < 160
    assert 104 <= found["outgate_snat_ports_sample_age_seconds{egress_ip=192.168.55.113}"] < 160


def test_before_the_first_round_the_page_is_there_and_says_nothing_of_ours() -> None:
    with serving(None) as exposition:
        text = page(exposition.port)

    assert samples(text) == {}
    assert "process_resident_memory_bytes" in text


def test_thousands_of_tenants_are_a_thousand_labels_and_the_rest_in_one() -> None:
    count = MOST_LABELS + 500
    addresses = [ip_address(int(ip_address("10.200.0.0")) + number) for number in range(count)]
    many = tuple(
        replace(blue(), name=f"t{number:05}", ports=(PortUse(address=at, used=number, available=1, age_s=0.0),))
        for number, at in enumerate(addresses)
    )
    shown = replace(view(), status=replace(status(), tenants=many))

    with serving(shown) as exposition:
        found = samples(page(exposition.port))

    sent = {name: value for name, value in found.items() if name.startswith("outgate_tenant_bytes") and "=sent" in name}
    assert len(sent) == MOST_LABELS + 1
    assert sent[f"outgate_tenant_bytes_total{{direction=sent,tenant={OTHER}}}"] == 500 * 1000
    assert sum(sent.values()) == count * 1000, "nothing is lost"
    assert found[f"outgate_snat_ports_in_use{{egress_ip={OTHER}}}"] == count - 1, "the fullest of those without a label"


def test_a_hostile_name_stays_within_its_label() -> None:
    name = 'a"} 1\noutgate_health{health="ok\\'
    shown = replace(view(), status=replace(status(), tenants=(replace(blue(), name=name),)))

    with serving(shown) as exposition:
        found = samples(page(exposition.port))

    assert found[f"outgate_tenant_packets_total{{direction=sent,tenant={name}}}"] == 10
    assert found["outgate_health{health=ok}"] == 0


def test_no_label_can_hold_the_address_of_a_pod() -> None:
    labels = {label for definition in METRICS for label in definition.labels}
    assert labels == {
        *("version", "gateway", "health", "result", "kind", "action", "state", "tenant", "direction"),
        *("egress_ip", "layer", "part", "source", "severity", "reason"),
    }


@pytest.mark.parametrize("at", ["0.0.0.0:9461", "192.168.55.1:9461", "[::]:9461", "[fd55::1]:9461"])
def test_an_address_that_can_be_reached_from_outside_must_be_allowed(at: str) -> None:
    with pytest.raises(IntentError, match=r"take 127\.0\.0\.1:9461, or allow it with --metrics-remote"):
        Exposition(at)


def test_allowed_in_so_many_words_it_listens_on_every_address() -> None:
    with closing(Exposition("0.0.0.0:0", remote=True, patience_s=0.0)) as exposition:
        exposition.show(view())
        assert "outgate_nodes 2.0" in page(exposition.port)


def test_it_listens_on_the_loopback_of_ipv6() -> None:
    with closing(Exposition("[::1]:0", patience_s=0.0)) as exposition:
        exposition.show(view())
        assert "outgate_nodes 2.0" in page(exposition.port, host="[::1]")


def test_it_asks_no_name_server_before_it_listens() -> None:
    """A gateway whose name servers are silent would else stand without its guards for ten seconds."""
    program = """
import sys
def refuse(event, arguments):
    if event.startswith("socket.get"):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
from outgate.control.exposition import Exposition
from outgate.control.loop import Loop
for at in ("127.0.0.1:0", "[::1]:0"):
    Exposition(at).close()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("at", ["", "9461", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "gw1:9461"])
def test_what_is_no_address_and_port_is_told_how_one_looks(at: str) -> None:
    with pytest.raises(IntentError, match=r"is no ADDRESS:PORT, such as 127\.0\.0\.1:9461"):
        Exposition(at)


def test_a_port_that_is_taken_is_a_refusal_that_names_it() -> None:
    with serving(None) as first, pytest.raises(Refused, match=f"serve metrics at 127.0.0.1:{first.port}: Address alr"):
        Exposition(f"127.0.0.1:{first.port}")


def test_a_scraper_that_says_nothing_holds_up_others_only_for_a_moment() -> None:
    with serving(view()) as exposition, socket.create_connection(("127.0.0.1", exposition.port)) as silent:
        silent.sendall(b"GET /metr")

        assert "outgate_nodes 2.0" in page(exposition.port)


def test_every_metric_has_one_line_in_the_reference() -> None:
    lines = reference().splitlines()

    assert len(lines) == 2 + len(METRICS) == 2 + len({definition.name for definition in METRICS})
    assert (
        "| `outgate_leaks_blocked_total` | counter | layer | Packets stopped by layer: enter, forward, guard (above 0: "
        "an outer layer had a hole), inbound |"
    ) in lines


def test_a_distribution_counts_a_value_on_a_bound_as_within() -> None:
    seconds = Distribution().observe(0.005).observe(0.0051).observe(99.0)

    assert seconds.cumulated()[:2] == [("0.005", 1.0), ("0.01", 2.0)]
    assert seconds.cumulated()[-2:] == [("10.0", 2.0), ("+Inf", 3.0)]

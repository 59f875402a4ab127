"""How much? Connections, rate and quota of a tenant, what is counted for it, segment sizes, reloading under traffic.

Tenants blue and red have a link and an egress IP each, of both families; see `tests.kernel.passage`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from outgate.lab.batch import configure
from outgate.lab.waiting import eventually
from outgate.model.ruleset import Connections, Element, Limit, Quota
from outgate.systems.nft import read, write
from outgate.systems.nft.parse import Tally
from tests.kernel.passage import (
    BLUE,
    INNER,
    LIMIT_S,
    PORT,
    RED,
    REFUSED,
    UPLINK,
    V4,
    V6,
    Passage,
    Plan,
    listening,
    ruleset,
    seen_as,
    send,
    tcp,
    told,
    udp,
)

BOTH = pytest.mark.parametrize("plan", [V4, V6], ids=str)
HEADERS = {4: 20 + 8, 6: 40 + 8}  # of a UDP packet
LOADS = 50
MSS_HEADERS = {4: 20 + 20, 6: 40 + 20}


@pytest.fixture
def passage() -> Iterator[Passage]:
    made = Passage()
    try:
        yield made
    finally:
        made.close()


def answering(passage: Passage, server: socket.socket, plan: Plan, count: int) -> None:
    """Let blue send so many packets of 100 bytes, and the server answer each."""
    with udp(passage.node, plan.blue) as pod:
        for _ in range(count):
            send(pod, plan.server, content=bytes(100))
            content, seen = server.recvfrom(200)
            server.sendto(content, seen)
            pod.recv(200)


def until_refused(pod: socket.socket) -> None:
    """Send more and more; the refusal of one packet is told by the next call."""
    while True:
        pod.send(bytes(100))


@BOTH
def test_a_tenant_has_as_many_connections_as_it_may_and_not_one_more(passage: Passage, plan: Plan) -> None:
    passage.load(Element("connections", (BLUE,), Connections(3)))
    with listening(passage.outside, plan.server) as server, contextlib.ExitStack() as open_:
        for _ in range(3):
            client = open_.enter_context(tcp(passage.node, plan.blue))
            client.connect((str(plan.server), PORT))
            open_.enter_context(server.accept()[0])

        assert told(passage, plan.blue, plan.server) in REFUSED
        assert told(passage, plan.red, plan.server) == 0, "another tenant has its own"
    assert passage.stopped("connections_refused") >= 1


@BOTH
def test_a_connection_that_ended_makes_room_for_another(passage: Passage, plan: Plan) -> None:
    passage.load(Element("connections", (BLUE,), Connections(1)))
    with listening(passage.outside, plan.server) as server:
        with tcp(passage.node, plan.blue) as client:
            client.connect((str(plan.server), PORT))
            with server.accept()[0] as there:
                there.close()
        eventually(lambda: told(passage, plan.blue, plan.server) == 0, "there is room for another connection")


@BOTH
def test_a_limit_that_changes_is_in_force_with_the_next_connection(passage: Passage, plan: Plan) -> None:
    passage.load(Element("connections", (BLUE,), Connections(1)))
    passage.change([Element("connections", (BLUE,), Connections(2))])
    with listening(passage.outside, plan.server) as server, contextlib.ExitStack() as open_:
        for _ in range(2):
            client = open_.enter_context(tcp(passage.node, plan.blue))
            client.connect((str(plan.server), PORT))
            open_.enter_context(server.accept()[0])
        assert told(passage, plan.blue, plan.server) in REFUSED

        passage.change((), [Element("connections", (BLUE,), Connections(2))])

        assert told(passage, plan.blue, plan.server) == 0


@BOTH
def test_what_exceeds_a_tenants_rate_is_dropped_and_counted(passage: Passage, plan: Plan) -> None:
    passage.load(Element("rates", (BLUE,), Limit(1000, 5000)))
    with udp(passage.node, plan.blue) as pod, udp(passage.outside, plan.server, PORT) as server:
        for _ in range(100):
            send(pod, plan.server, content=bytes(1000))
        server.recv(2000)
        eventually(lambda: passage.stopped("rate_dropped") >= 80, "most of 100 kB are too much for 1 kB/s")
    assert passage.counts().accounts["sent", BLUE].packets == 100 - passage.stopped("rate_dropped")
    assert seen_as(passage, plan.red, plan.server) == plan.red_ip, "another tenant has its own"


@BOTH
def test_answers_count_towards_the_rate_too(passage: Passage, plan: Plan) -> None:
    passage.load(Element("rates", (BLUE,), Limit(1000, 5000)))
    with udp(passage.node, plan.blue) as pod, udp(passage.outside, plan.server, PORT) as server:
        send(pod, plan.server)
        _, seen = server.recvfrom(10)
        for _ in range(100):
            server.sendto(bytes(1000), seen)
        eventually(lambda: passage.stopped("rate_dropped") >= 80, "most of 100 kB are too much for 1 kB/s")


@BOTH
def test_a_used_up_quota_refuses_what_leaves_and_says_so(passage: Passage, plan: Plan) -> None:
    passage.load(Element("quotas", (BLUE,), Quota(1000)))
    with udp(passage.outside, plan.server, PORT) as server:
        answering(passage, server, plan, 3)
        with udp(passage.node, plan.blue) as pod:
            pod.connect((str(plan.server), PORT))
            with pytest.raises(OSError, match=r"No route|Permission"):
                until_refused(pod)
        assert passage.stopped("quota_dropped") >= 1
        assert passage.counts().used[BLUE] >= 1000
    assert seen_as(passage, plan.red, plan.server) == plan.red_ip, "another tenant has its own"


@BOTH
def test_what_was_used_of_a_quota_outlives_a_reload_and_ends_with_a_new_period(passage: Passage, plan: Plan) -> None:
    quota = Element("quotas", (BLUE,), Quota(1000))
    with passage.gateway.inside():
        write.load(ruleset() | {quota}, used={BLUE: 990})
        assert read.read().counts.used == {BLUE: 990}
    with udp(passage.node, plan.blue) as pod:
        pod.connect((str(plan.server), PORT))
        pod.send(bytes(100))
        with pytest.raises(OSError, match=r"No route|Permission"):
            pod.recv(10)

    with passage.gateway.inside():
        write.renew([BLUE])

    assert passage.counts().used == {BLUE: 0}
    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip


@BOTH
def test_what_a_tenant_sends_receives_and_opens_is_counted_exactly(passage: Passage, plan: Plan) -> None:
    passage.load()
    with udp(passage.outside, plan.server, PORT) as server:
        answering(passage, server, plan, 5)
        answering(passage, server, plan, 2)

    counted = passage.counts().accounts

    size = 100 + HEADERS[plan.version]
    assert counted["sent", BLUE] == counted["received", BLUE] == Tally(7, 7 * size)
    assert counted["opened", BLUE].packets == 2
    assert counted["sent", RED] == counted["received", RED] == counted["opened", RED] == Tally(0, 0)
    with passage.gateway.inside():
        assert read.read().counts == read.counts()


@BOTH
@pytest.mark.parametrize("link", [UPLINK, INNER])
def test_segments_are_as_small_as_the_smaller_side_needs(passage: Passage, plan: Plan, link: str) -> None:
    passage.load()
    configure({passage.gateway: [f"link set {link} mtu 1380"]})
    with listening(passage.outside, plan.server) as server, tcp(passage.node, plan.blue) as client:
        client.connect((str(plan.server), PORT))
        with server.accept()[0] as there:
            sizes = [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) for end in (client, there)]
    assert max(sizes) <= 1380 - MSS_HEADERS[plan.version]


@BOTH
def test_replacing_the_whole_table_under_traffic_leaks_nothing_and_ends_no_flow(passage: Passage, plan: Plan) -> None:
    passage.load()
    done, echoed = threading.Event(), [0]

    with listening(passage.outside, plan.server) as server, tcp(passage.node, plan.blue) as client:
        client.connect((str(plan.server), PORT))
        there, _ = server.accept()
        there.settimeout(LIMIT_S)

        def keep_talking() -> None:
            while not done.is_set():
                client.sendall(b"ping")
                assert there.recv(4, socket.MSG_WAITALL) == b"ping"
                there.sendall(b"pong")
                assert client.recv(4, socket.MSG_WAITALL) == b"pong"
                echoed[0] += 1

        with there, concurrent.futures.ThreadPoolExecutor(1) as threads:
            talking = threads.submit(keep_talking)
            for _ in range(LOADS):
                passage.load()
            done.set()
            talking.result(LIMIT_S)

    assert echoed[0] > LOADS
    assert passage.leaks.seen().keys() == {plan.blue_ip}


@BOTH
def test_replacing_the_whole_table_loses_at_most_the_packet_that_is_in_it(passage: Passage, plan: Plan) -> None:
    passage.load()
    done, lost, echoed = threading.Event(), [0], [0]

    def keep_asking() -> None:
        with udp(passage.node, plan.blue) as pod, udp(passage.outside, plan.server, PORT) as server:
            pod.settimeout(0.2)
            server.settimeout(0.2)
            while not done.is_set():
                try:
                    send(pod, plan.server)
                    server.sendto(*server.recvfrom(10))
                    pod.recv(10)
                    echoed[0] += 1
                except TimeoutError:
                    lost[0] += 1

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        asking = threads.submit(keep_asking)
        for _ in range(LOADS):
            passage.load()
        done.set()
        asking.result(LIMIT_S)

    assert echoed[0] > LOADS
    assert lost[0] <= LOADS
    assert passage.leaks.seen().keys() == {plan.blue_ip}

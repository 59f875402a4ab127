"""A namespace with routes on loopback, written and read through a netlink socket of our own; `ip` is the oracle."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from outgate.lab.namespace import Namespace
from outgate.model.errors import Refused, Unreachable
from outgate.systems import netlink
from outgate.systems.netlink import HEADER_SIZE, NetlinkSocket, Overrun, attr, header, nest, pack, walk

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE, RTNLGRP_IPV4_ROUTE = 24, 25, 26, 7
RTA_DST, RTA_OIF, RTA_TABLE = 1, 4, 15
TABLE = 500
RTM_NEWADDR, RTM_GETADDR, IFA_LOCAL = 20, 22, 2
IFADDRMSG = struct.Struct("=BBBBi")
RTMSG = struct.Struct("=BBBBBBBBI")
LOOPBACK = 1
DUMP_IPV4 = pack(RTM_GETROUTE, 0, RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("netlink") as made:
        made.run(("ip", "link", "set", "lo", "up"))
        yield made


@pytest.fixture
def kernel(namespace: Namespace) -> Iterator[NetlinkSocket]:
    with namespace.inside():
        opened = NetlinkSocket(socket.NETLINK_ROUTE)
    with opened:
        yield opened


def new_route(number: int, *, prefix_len: int = 32) -> bytes:
    place = RTMSG.pack(socket.AF_INET, prefix_len, 0, 0, 0, 4, 253, 1, 0)
    address = attr(RTA_DST, struct.pack(">I", 0x0A800000 + number))
    link, table = attr(RTA_OIF, struct.pack("=i", LOOPBACK)), attr(RTA_TABLE, struct.pack("=I", TABLE))
    return pack(RTM_NEWROUTE, netlink.CREATE | netlink.EXCL, place + address + link + table)


def new_address(number: int) -> bytes:
    place = IFADDRMSG.pack(socket.AF_INET, 32, 0, 0, LOOPBACK)
    return pack(RTM_NEWADDR, netlink.CREATE, place + attr(IFA_LOCAL, struct.pack(">I", 0x0A800000 + number)))


def shown(namespace: Namespace) -> list[str]:
    return namespace.run(("ip", "route", "show", "table", str(TABLE)), check=False).stdout.splitlines()


def destinations(messages: Iterator[memoryview]) -> set[int]:
    """The destinations in our table, as numbers."""
    found = set()
    for message in messages:
        attributes = dict(walk(message[HEADER_SIZE + RTMSG.size :]))
        if int.from_bytes(attributes[RTA_TABLE], "little") == TABLE:
            found.add(int.from_bytes(attributes[RTA_DST]) - 0x0A800000)
    return found


def test_an_attribute_is_padded_and_a_nest_holds_attributes() -> None:
    inner = attr(3, b"abcde")
    assert inner == struct.pack("=HH", 9, 3) + b"abcde" + bytes(3)

    outer = memoryview(nest(2, inner, attr(4, b"")))

    ((kind, content),) = walk(outer)
    assert kind == 2
    assert [(number, bytes(value)) for number, value in walk(content)] == [(3, b"abcde"), (4, b"")]


def test_thousands_of_requests_are_written_in_order_and_dumped_back(
    namespace: Namespace, kernel: NetlinkSocket
) -> None:
    assert kernel.batch(map(new_route, range(3000))) == []

    assert len(shown(namespace)) == 3000
    assert destinations(kernel.dump(DUMP_IPV4)) == set(range(3000))


def test_each_refusal_names_its_request_and_stops_no_other(namespace: Namespace, kernel: NetlinkSocket) -> None:
    requests = [new_route(number % 1200) for number in range(1300)]
    requests[700] = new_route(5000, prefix_len=33)

    refusals = kernel.batch(requests)

    assert [refusal.index for refusal in refusals] == [700, *range(1200, 1300)]
    assert refusals[0].errno == errno.EINVAL
    assert refusals[0].words == "Invalid argument: Invalid prefix length"
    assert {(refusal.errno, refusal.words) for refusal in refusals[1:]} == {(errno.EEXIST, "File exists")}
    assert len(shown(namespace)) == 1199


def test_a_batch_of_nothing_is_done_at_once(kernel: NetlinkSocket) -> None:
    assert kernel.batch([]) == []


def test_a_question_is_answered_once_and_a_bad_one_refused_with_the_words_of_the_kernel(kernel: NetlinkSocket) -> None:
    ask = RTMSG.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0) + attr(RTA_DST, socket.inet_aton("127.0.0.1"))

    (answer,) = kernel.ask(pack(RTM_GETROUTE, 0, ask))

    assert header(answer).kind == RTM_NEWROUTE
    with pytest.raises(Refused, match="Invalid values in header for FIB dump request"):
        list(kernel.dump(pack(RTM_GETROUTE, 0, RTMSG.pack(socket.AF_INET, 33, 0, 0, 0, 0, 0, 0, 0))))


def test_a_dump_that_was_left_in_the_middle_does_not_spoil_the_next_answer(kernel: NetlinkSocket) -> None:
    kernel.batch(map(new_route, range(20)))
    next(kernel.dump(DUMP_IPV4))

    assert destinations(kernel.dump(DUMP_IPV4)) == set(range(20))


def test_a_table_that_changes_while_it_is_read_is_no_reading(kernel: NetlinkSocket, namespace: Namespace) -> None:
    everything = pack(RTM_GETADDR, 0, IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, 0))
    kernel.batch(map(new_address, range(3000)))
    reading = kernel.dump(everything)
    next(reading)
    with namespace.inside(), NetlinkSocket(socket.NETLINK_ROUTE) as other:
        assert other.batch([new_address(4000)]) == []

    with pytest.raises(netlink.DumpInterrupted):
        list(reading)

    assert len(list(kernel.dump(everything))) == 3002


def test_an_event_names_the_socket_that_caused_it(kernel: NetlinkSocket, namespace: Namespace) -> None:
    with namespace.inside(), NetlinkSocket(socket.NETLINK_ROUTE) as listener:
        listener.subscribe([RTNLGRP_IPV4_ROUTE])
        assert list(listener.events()) == []

        kernel.batch([new_route(1)])
        namespace.run(("ip", "route", "del", "10.128.0.1", "table", str(TABLE)))

        made, dropped = (header(event) for event in listener.events())
        assert (made.kind, made.port) == (RTM_NEWROUTE, kernel.port)
        assert dropped.kind == RTM_DELROUTE
        assert dropped.port != kernel.port


def test_events_that_did_not_fit_the_buffer_are_reported_as_lost_once(
    kernel: NetlinkSocket, namespace: Namespace
) -> None:
    with namespace.inside(), NetlinkSocket(socket.NETLINK_ROUTE, receive_buffer=4096) as listener:
        listener.subscribe([RTNLGRP_IPV4_ROUTE])
        kernel.batch(map(new_route, range(500)))

        with pytest.raises(Overrun):
            list(listener.events())

        list(listener.events())
        kernel.batch([new_route(501)])
        assert len(list(listener.events())) == 1


def test_a_protocol_or_a_group_that_the_kernel_does_not_have_is_unreachable(kernel: NetlinkSocket) -> None:
    with pytest.raises(Unreachable, match="protocol 31 does not open"):
        NetlinkSocket(31)
    with pytest.raises(Unreachable, match="group 4000000 can not be joined"):
        kernel.subscribe([4000000])

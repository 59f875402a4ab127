"""Frames on a wire: 192.168.55.113 and fd55::113 stand behind the tenant's MAC 02:e6:00:11:22:33.

The bytes are written out field by field, as the RFCs draw them. The checksums were computed another way than the code
does it, as a number modulo 65535.
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.model.net import LinkName, Mac
from outgate.systems.wire.frames import Announcement, Heard, announcing, hear, probing

MAC, OTHER_MAC = Mac("02:e6:00:11:22:33"), Mac("02:aa:00:00:00:01")
ADDRESS, ADDRESS6 = ip_address("192.168.55.113"), ip_address("fd55::113")

BROADCAST, OWN, NO_MAC = "ffffffffffff", "02e600112233", "000000000000"
ARP, ARP_KIND, REQUEST, REPLY = "0806", "0001 0800 06 04", "0001", "0002"
IP, NO_IP = "c0a83771", "00000000"
IP6, NO_IP6 = "fd55000000000000 0000000000000113", "0000000000000000 0000000000000000"


def octets(*fields: str) -> bytes:
    return bytes.fromhex("".join(fields))


REQUEST_FRAME = octets(BROADCAST, OWN, ARP, ARP_KIND, REQUEST, OWN, IP, NO_MAC, IP)
REPLY_FRAME = octets(BROADCAST, OWN, ARP, ARP_KIND, REPLY, OWN, IP, OWN, IP)
PROBE_FRAME = octets(BROADCAST, OWN, ARP, ARP_KIND, REQUEST, OWN, NO_IP, NO_MAC, IP)
ADVERTISEMENT_FRAME = octets(
    *("333300000001", OWN, "86dd"),
    *("60000000", "0020", "3a", "ff", IP6, "ff02000000000000 0000000000000001"),
    *("88", "00", "b4a3", "a0000000", IP6),  # router, override
    *("02", "01", OWN),  # target link-layer address
)
SOLICITATION_FRAME = octets(
    *("3333ff000113", OWN, "86dd"),
    *("60000000", "0018", "3a", "ff", NO_IP6, "ff02000000000000 00000001ff000113"),
    *("87", "00", "7b2c", "00000000", IP6),
)


def announced(address: str, *, refresh: bool = False) -> tuple[bytes, ...]:
    return announcing(Announcement(link=LinkName("uplink"), address=ip_address(address), mac=MAC, refresh=refresh))


def test_an_ipv4_announcement_is_a_request_and_a_reply_about_itself() -> None:
    assert announced("192.168.55.113") == (REQUEST_FRAME, REPLY_FRAME)


def test_a_question_to_one_neighbour_says_what_a_question_to_all_says() -> None:
    assert probing(ADDRESS, MAC) == PROBE_FRAME
    assert probing(ADDRESS, MAC, at=OTHER_MAC) == octets("02aa00000001") + PROBE_FRAME[6:]
    assert probing(ADDRESS6, MAC, at=OTHER_MAC) == SOLICITATION_FRAME, "its answer is for all anyway"


def test_a_refresh_needs_one_frame() -> None:
    assert announced("192.168.55.113", refresh=True) == (REQUEST_FRAME,)
    assert announced("fd55::113", refresh=True) == (ADVERTISEMENT_FRAME,)


def test_an_ipv6_announcement_is_an_unsolicited_advertisement_that_overrides() -> None:
    assert announced("fd55::113") == (ADVERTISEMENT_FRAME,)


def test_a_probe_asks_without_claiming() -> None:
    assert probing(ADDRESS, MAC) == PROBE_FRAME
    assert probing(ADDRESS6, MAC) == SOLICITATION_FRAME


@pytest.mark.parametrize("frame", [REQUEST_FRAME, REPLY_FRAME], ids=["request", "reply"])
def test_the_sender_of_arp_claims_its_address(frame: bytes) -> None:
    assert hear(frame) == Heard(address=ADDRESS, mac=MAC, asking=False)
    assert hear(frame + bytes(18)) == hear(frame), "Ethernet pads short frames"


def test_an_advertisement_claims_its_target_for_the_mac_in_its_option() -> None:
    bridged = ADVERTISEMENT_FRAME[:6] + octets("02aa00000001") + ADVERTISEMENT_FRAME[12:]

    assert hear(bridged) == Heard(address=ADDRESS6, mac=MAC, asking=False)


def test_a_probe_of_somebody_else_asks_and_does_not_claim() -> None:
    assert hear(PROBE_FRAME) == Heard(address=ADDRESS, mac=MAC, asking=True)
    assert hear(SOLICITATION_FRAME) == Heard(address=ADDRESS6, mac=MAC, asking=True)


def test_who_asks_for_a_neighbour_claims_the_address_that_it_asks_from() -> None:
    asking = octets(
        *("3333ff000001", OWN, "86dd"),
        *("60000000", "0020", "3a", "ff", IP6, "ff02000000000000 00000001ff000001"),
        *("87", "00", "58b4", "00000000", "fd55000000000000 0000000000000001"),
        *("01", "01", OWN),
    )

    assert hear(asking) == Heard(address=ADDRESS6, mac=MAC, asking=False)


@pytest.mark.parametrize(
    ("frame", "place", "value"),
    [
        (REQUEST_FRAME, 13, 0x00),  # IPv4, not ARP
        (REQUEST_FRAME, 15, 0x06),  # not Ethernet
        (REQUEST_FRAME, 18, 0x08),  # MACs of eight bytes
        (ADVERTISEMENT_FRAME, 20, 17),  # UDP
        (ADVERTISEMENT_FRAME, 21, 254),  # a router passed it on
        (ADVERTISEMENT_FRAME, 57, 0x00),  # wrong checksum
        (ADVERTISEMENT_FRAME, 19, 0xFF),  # longer than it is
    ],
    ids=["no ARP", "no Ethernet", "long MACs", "UDP", "routed", "damaged", "cut"],
)
def test_a_frame_that_says_nothing_about_an_address_is_passed_over(frame: bytes, place: int, value: int) -> None:
    assert hear(frame) is not None

    assert hear(frame[:place] + bytes([value]) + frame[place + 1 :]) is None


@given(st.sampled_from([REQUEST_FRAME, PROBE_FRAME, ADVERTISEMENT_FRAME, SOLICITATION_FRAME]), st.data())
def test_no_damage_to_a_frame_breaks_the_listener(frame: bytes, data: st.DataObject) -> None:
    damaged = bytearray(frame[: data.draw(st.integers(0, len(frame)))])
    for _ in range(data.draw(st.integers(0, 4)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    heard = hear(bytes(damaged))

    assert heard is None or heard.address.version in (4, 6)


@given(st.ip_addresses(), st.binary(min_size=6, max_size=6))
def test_what_is_announced_and_probed_is_what_is_heard(address: object, mac: bytes) -> None:
    own, said = Mac(mac.hex(":")), ip_address(str(address))

    frames = announcing(Announcement(link=LinkName("uplink"), address=said, mac=own))

    unspecified = int(said) == 0 and said.version == 4
    assert {hear(frame) for frame in frames if not unspecified} <= {Heard(address=said, mac=own, asking=False)}
    assert hear(probing(said, own)) == Heard(address=said, mac=own, asking=True)

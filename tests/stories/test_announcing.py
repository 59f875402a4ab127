"""A gateway announces 192.168.55.113 and its other addresses through `uplink`, at 50 frames a second.

Time is what the story says it is: the schedule holds no clock.
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from outgate.control.announce import Schedule
from outgate.model.net import LinkName, Mac
from outgate.systems.wire.frames import Announcement, announcing
from outgate.systems.wire.pace import Pace

UPLINK = LinkName("uplink")
START_S = 1000.0


def announcement(number: int, *, mac: int | None = None, address: str = "") -> Announcement:
    host = ip_address(address or f"192.168.{55 + (number >> 8)}.{number & 255}")
    own = number if mac is None else mac
    return Announcement(link=UPLINK, address=host, mac=Mac(f"02:e6:00:00:{own >> 8:02x}:{own & 255:02x}"))


def played(schedule: Schedule, until_s: float) -> list[tuple[float, Announcement]]:
    """What a loop that asks exactly when it is told to would send, with the seconds since the start."""
    sent: list[tuple[float, Announcement]] = []
    now = START_S
    while (next_s := schedule.next_s()) is not None and next_s <= START_S + until_s:
        now = max(now, next_s)
        sent += [(round(now - START_S, 3), each) for each in schedule.due(now)]
    return sent


def test_an_address_is_announced_at_once_and_four_times_more_within_a_minute() -> None:
    schedule, red = Schedule(), announcement(113)
    schedule.hold([red], made=[red], now_s=START_S)

    sent = played(schedule, 59)

    assert sent == [(0.0, red), (1.0, red), (3.0, red), (10.0, red)]
    assert schedule.due(START_S + 60)[0] == red


def test_after_the_first_minute_each_mac_reminds_the_switch_once_a_minute() -> None:
    schedule = Schedule()
    red, blue = announcement(113), announcement(114)
    held = [red, announcement(115, mac=113), announcement(116, mac=113, address="fd55::116"), blue]
    schedule.hold(held, now_s=START_S)

    sent = played(schedule, 190)

    assert [(at, each.mac) for at, each in sent] == [(at, each.mac) for at in (60, 120, 180) for each in (red, blue)]
    assert all(each.refresh for _, each in sent)


def test_what_is_no_longer_held_falls_silent_and_what_is_made_again_begins_again() -> None:
    schedule, red, blue = Schedule(), announcement(113), announcement(114)
    schedule.hold([red, blue], made=[red, blue], now_s=START_S)
    assert schedule.due(START_S) == [red, blue]

    schedule.hold([blue], made=[blue], now_s=START_S + 0.5)

    assert played(schedule, 59) == [(0.5, blue), (1.5, blue), (3.5, blue), (10.5, blue)]


def test_a_mac_that_comes_back_is_reminded_of_once_a_minute_as_before() -> None:
    schedule, red = Schedule(), announcement(113)
    schedule.hold([red], now_s=START_S)
    schedule.hold([], now_s=START_S + 10)
    assert schedule.next_s() is None

    schedule.hold([red], now_s=START_S + 20)
    schedule.hold([red], now_s=START_S + 30)

    assert [at for at, _ in played(schedule, 150)] == [80, 140]


def test_four_thousand_tenants_at_once_keep_to_the_rate_and_none_is_forgotten() -> None:
    schedule = Schedule(rate_per_s=500)
    tenants = [announcement(number) for number in range(4000)]
    schedule.hold(tenants, made=tenants, now_s=START_S)

    sent = played(schedule, 90)

    frames = [(at, len(announcing(each))) for at, each in sent]
    for second in range(90):
        assert sum(count for at, count in frames if second <= at < second + 1) <= 550, "and a tenth of a second's slack"
    assert [each for _, each in sent[:4000]] == tenants, "every first announcement goes before any repeat"
    assert [sum(each == tenant for _, each in sent) for tenant in (tenants[0], tenants[-1])] == [5, 5]


def test_a_new_tenant_is_announced_before_the_repeats_of_a_thousand_others() -> None:
    schedule = Schedule(rate_per_s=50)
    tenants = [announcement(number) for number in range(1000)]
    schedule.hold(tenants, made=tenants, now_s=START_S)
    before = played(schedule, 45)
    late = announcement(2000)

    schedule.hold([*tenants, late], made=[late], now_s=START_S + 45)

    assert any(each == tenants[0] for _, each in before[1000:]), "the repeats had begun"
    first = next(at for at, each in played(schedule, 50) if each == late)
    assert first <= 45.2


@pytest.mark.parametrize("rate_per_s", [3.0, 50.0, 1000.0])
def test_a_pace_lets_a_tenth_of_a_second_pass_at_once_and_its_rate_in_the_long_run(rate_per_s: float) -> None:
    pace = Pace(rate_per_s)
    at_once = sum(pace.take(START_S) for _ in range(2000))

    later, now = 0, START_S
    while now < START_S + 10:
        now = pace.next_s(now + 0.001)
        while pace.take(now):
            later += 1

    assert at_once == max(1, round(rate_per_s / 10))
    assert later == pytest.approx(10 * rate_per_s, rel=0.05, abs=2)

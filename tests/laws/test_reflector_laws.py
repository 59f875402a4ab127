"""Whatever order events, repetitions and lists come in: what is held ends as what the server has, and nothing that one
doubtful list left out is gone before a second one leaves it out too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from outgate.model.intent import Namespace
from outgate.sources.kube.holding import Entry, Holding, Listed

AGREE_S = 5.0
NAMES = st.sampled_from("abcdef")
WISHES = st.lists(st.tuples(st.sampled_from(("write", "delete", "renew")), NAMES), max_size=30)


@dataclass
class Server:
    """Objects with uids and versions, and everything that happened to them."""

    objects: dict[str, Entry] = field(default_factory=dict)
    history: list[tuple[str, str, Entry]] = field(default_factory=list)
    version: int = 10

    def do(self, what: str, name: str) -> None:
        if what in ("delete", "renew") and name in self.objects:
            gone = self.objects.pop(name)
            self.version += 1
            self.history.append(("DELETED", name, Entry(gone.uid, str(self.version), gone.value)))
        if what in ("write", "renew"):
            self.version += 1
            uid = self.objects[name].uid if name in self.objects else f"uid-{self.version}"
            kind = "MODIFIED" if name in self.objects else "ADDED"
            value = Namespace(name=name, labels=(("v", str(self.version)),))
            self.objects[name] = Entry(uid, str(self.version), value)
            self.history.append((kind, name, self.objects[name]))

    def listed(self, names: frozenset[str] = frozenset("abcdef")) -> Listed:
        return Listed({name: one for name, one in self.objects.items() if name in names}, str(self.version))


def replay(holding: Holding, history: list[tuple[str, str, Entry]]) -> None:
    for kind, name, entry in history:
        if kind == "DELETED":
            holding.drop(name, entry)
        else:
            holding.put(name, entry)


def served(wishes: list[tuple[str, str]]) -> Server:
    server = Server()
    for what, name in wishes:
        server.do(what, name)
    return server


def values(server: Server) -> tuple[object, ...]:
    return tuple(server.objects[name].value for name in sorted(server.objects))


@given(before=WISHES, after=WISHES, again=st.integers(0, 60))
def test_a_list_and_the_events_after_it_are_the_server_also_when_events_come_again(
    before: list[tuple[str, str]], after: list[tuple[str, str]], again: int
) -> None:
    server = served(before)
    holding = Holding(AGREE_S)
    holding.relist(server.listed(), 0.0)
    start = len(server.history)
    for what, name in after:
        server.do(what, name)
    replay(holding, server.history[start:])
    replay(holding, server.history[max(start, len(server.history) - again) :])
    assert holding.objects() == values(server)


@given(
    first=WISHES,
    lists=st.lists(st.tuples(st.frozensets(NAMES), st.floats(0.0, 20.0), WISHES), max_size=6),
)
def test_after_any_lists_however_short_two_whole_ones_end_in_what_the_server_has(
    first: list[tuple[str, str]], lists: list[tuple[frozenset[str], float, list[tuple[str, str]]]]
) -> None:
    server, now_s = served(first), 0.0
    holding = Holding(AGREE_S)
    holding.relist(server.listed(), now_s)
    for names, later_s, wishes in lists:
        now_s += later_s
        holding.relist(server.listed(names), now_s)
        for what, name in wishes:
            server.do(what, name)
    for _ in range(3):  # a doubt that is there already may have to begin anew
        now_s += AGREE_S
        holding.relist(server.listed(), now_s)
    assert holding.doubt is None
    assert holding.objects() == values(server)
    assert set(server.objects) == {one.name for one in holding.objects() if isinstance(one, Namespace)}


@given(wishes=WISHES, shown=st.frozensets(NAMES))
def test_a_list_of_less_than_half_deletes_nothing_until_a_second_one_agrees(
    wishes: list[tuple[str, str]], shown: frozenset[str]
) -> None:
    server = served(wishes)
    holding = Holding(AGREE_S)
    holding.relist(server.listed(), 0.0)
    before = holding.objects()
    short = server.listed(shown)
    holding.relist(short, 100.0)
    is_bulk = len(short.entries) * 2 < len(before)
    assert (holding.objects() == before) == (is_bulk or len(short.entries) == len(before))
    holding.relist(short, 100.0 + AGREE_S - 0.1)
    assert (holding.objects() == before) == (is_bulk or len(short.entries) == len(before))
    holding.relist(short, 100.0 + AGREE_S)
    assert len(holding) == len(short.entries)


@given(wishes=WISHES)
def test_a_list_from_the_past_deletes_nothing_until_a_second_one_agrees(wishes: list[tuple[str, str]]) -> None:
    server = served([("write", "a"), ("write", "b"), ("write", "c")])
    old = server.listed()
    holding = Holding(AGREE_S)
    holding.relist(old, 0.0)
    for what, name in [*wishes, ("renew", "f")]:
        server.do(what, name)
    replay(holding, server.history[3:])
    holding.relist(old, 10.0)
    assert "f" in {one.origin.name or getattr(one, "name", "") for one in holding.objects()}
    holding.relist(old, 10.0 + AGREE_S)
    assert len(holding) == 3


def test_an_event_of_an_object_that_is_gone_says_nothing_about_its_successor() -> None:
    holding = Holding(AGREE_S)
    holding.put("a", Entry("new", "7", Namespace(name="a")))
    assert not holding.drop("a", Entry("old", "8", None))
    assert len(holding) == 1


def test_an_object_that_became_unreadable_stays_in_force_as_it_was() -> None:
    holding = Holding(AGREE_S)
    holding.put("a", Entry("u", "7", Namespace(name="a")))
    holding.put("a", Entry("u", "8", None))
    assert holding.objects() == (Namespace(name="a"),)


def test_what_does_not_differ_keeps_its_very_value() -> None:
    holding = Holding(AGREE_S)
    value = Namespace(name="a")
    holding.put("a", Entry("u", "7", value))
    assert not holding.put("a", Entry("u", "8", Namespace(name="a")))
    assert holding.objects()[0] is value
    assert holding.version == "8"

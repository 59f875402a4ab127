"""Values of the model as plain data and back again, exactly: what a bundle or an answer of the daemon carries.

`report.plain` is for readers, and says some things in one word for all. Here each value is written by its type, and
read back by its type: text that should be an address is parsed as one, and whatever does not fit is refused. Nothing
that is read can name a class or a function to call, so it may come from anybody.

- A dataclass is an object with all its fields; one that is missing takes its default, one that is not known is refused.
- Of a union of several, a value is an object of one key that says which: `{"Via": {...}}`; None is null.
- Addresses, prefixes and enums are text (enums: their values), tuples are lists, sets are sorted lists. A mapping is an
  object where its keys are text, else a list of pairs.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Any, NewType, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"
Kind: TypeAlias = Any  # a class, an alias of several, or `tuple[X, ...]` and the like: what an annotation may be

_TEXTS = (IPv4Address, IPv6Address, IPv4Network, IPv6Network)
_ADDRESS, _PREFIX = frozenset({IPv4Address, IPv6Address}), frozenset({IPv4Network, IPv6Network})
_NONE = type(None)


class Misread(ValueError):
    """Plain data is not what its place needs: `steps` lead there from the outside."""

    def __init__(self, text: str, steps: tuple[str, ...] = ()) -> None:
        super().__init__(f"{''.join(steps).lstrip('.')}: {text}" if steps else text)
        self.text = text
        self.steps = steps

    def below(self, step: str) -> Misread:
        """Return the same, one step further out."""
        return Misread(self.text, (step, *self.steps))


def plain_of(kind: Kind, value: object) -> Plain:
    """Return a value of a kind as plain data.

    Raises:
        TypeError: the kind is none that the model is made of, or a value of a union is of none of its kinds.
    """
    written: Plain = _form(kind).write(value)
    return written


def value_of(kind: Kind, plain: object) -> Any:
    """Return the value of a kind that plain data says.

    Raises:
        Misread: it says none.
    """
    return _form(kind).read(plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How values of one kind are written and read. `name` tells it in a union, `classes` are those of its values."""

    name: str
    classes: tuple[type, ...]
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


@cache
def _form(kind: Kind) -> _Form:
    """Return the form of a kind; made once for each."""
    if isinstance(kind, NewType):
        inner = _form(kind.__supertype__)
        return _Form(name=kind.__name__, classes=inner.classes, write=inner.write, read=inner.read)
    if kind in (str, int, bool, float):
        return _scalar(kind)
    if kind in _TEXTS:
        return _text(kind.__name__, (kind,), kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass(kind)
    return _generic(kind)


def _generic(kind: Kind) -> _Form:
    """Return the form of a union, a tuple, a set or a mapping."""
    origin: Any = get_origin(kind)
    inside = get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(frozenset(inside))
    if origin is tuple:
        return _list(_form(inside[0])) if inside[1:] == (...,) else _row(tuple(map(_form, inside)))
    if origin is frozenset:
        return _set(_form(inside[0]))
    if origin is Mapping:
        return _mapping(_form(inside[0]), _form(inside[1]))
    raise TypeError(f"{kind} is nothing that the model is made of")


def _as_it_is(value: Any) -> Any:
    return value


def _scalar(kind: type) -> _Form:
    def read(plain: object) -> object:
        if type(plain) is kind:
            return plain
        if kind is float and type(plain) is int:
            return float(plain)
        raise Misread(f"expected {kind.__name__}, found {_described(plain)}")

    return _Form(name=kind.__name__, classes=(kind,), write=_as_it_is, read=read)


def _text(name: str, classes: tuple[type, ...], parse: Callable[[str], object]) -> _Form:
    """Return the form of what is text, and is only read from the very text that it is written as."""

    def read(plain: object) -> object:
        if type(plain) is not str:
            raise Misread(f"expected {name} as text, found {_described(plain)}")
        try:
            value = parse(plain)
        except ValueError:
            raise Misread(f"{_described(plain)} is no {name}") from None
        if str(value) != plain:
            raise Misread(f"{_described(plain)} is written as {value}")
        return value

    return _Form(name=name, classes=classes, write=str, read=read)


def _parse_address(text: str) -> IPv4Address | IPv6Address:
    return IPv6Address(text) if ":" in text else IPv4Address(text)


def _parse_prefix(text: str) -> IPv4Network | IPv6Network:
    return IPv6Network(text) if ":" in text else IPv4Network(text)


def _enum(kind: type[Enum]) -> _Form:
    members = {member.value: member for member in kind}

    def read(plain: object) -> object:
        if type(plain) in (str, int) and plain in members:
            return members[plain]
        raise Misread(f"{_described(plain)} is no {kind.__name__}")

    return _Form(name=kind.__name__, classes=(kind,), write=lambda value: value.value, read=read)


def _dataclass(kind: type[Any]) -> _Form:
    hints = get_type_hints(kind)
    parts = {part.name: _form(hints[part.name]) for part in fields(kind) if part.init}
    needed = {part.name for part in fields(kind) if part.init} - {
        part.name for part in fields(kind) if part.default is not MISSING or part.default_factory is not MISSING
    }
    writers = tuple((name, part.write) for name, part in parts.items())
    readers = {name: part.read for name, part in parts.items()}

    def write(value: object) -> Plain:
        return {name: write_part(getattr(value, name)) for name, write_part in writers}

    def read(plain: object) -> object:
        if type(plain) is not dict:
            raise Misread(f"expected {kind.__name__}, found {_described(plain)}")
        for name in plain.keys() - readers.keys():
            raise Misread(f"there is no field {_described(name)} in {kind.__name__}")
        for name in needed - plain.keys():
            raise Misread(f"{kind.__name__} lacks {name}")
        given = {}
        for name, inner in plain.items():
            try:
                given[name] = readers[name](inner)
            except Misread as wrong:
                raise wrong.below(f".{name}") from None
        try:
            return kind(**given)
        except ValueError as refused:
            raise Misread(f"{kind.__name__}: {refused}") from None

    return _Form(name=kind.__name__, classes=(kind,), write=write, read=read)


def _list(item: _Form) -> _Form:
    def write(value: Iterable[object]) -> Plain:
        write_item = item.write
        return [write_item(one) for one in value]

    def read(plain: object) -> object:
        return tuple(_items(item, plain))

    return _Form(name="list", classes=(tuple,), write=write, read=read)


def _row(parts: tuple[_Form, ...]) -> _Form:
    def write(value: tuple[object, ...]) -> Plain:
        return [part.write(one) for part, one in zip(parts, value, strict=True)]

    def read(plain: object) -> object:
        if type(plain) is not list or len(plain) != len(parts):
            raise Misread(f"expected a list of {len(parts)}, found {_described(plain)}")
        return tuple(_step(part, one, number) for number, (part, one) in enumerate(zip(parts, plain, strict=True)))

    return _Form(name="row", classes=(tuple,), write=write, read=read)


def _set(item: _Form) -> _Form:
    def write(value: Iterable[object]) -> Plain:
        return sorted(map(item.write, value), key=msgspec.json.encode)

    def read(plain: object) -> object:
        found = _items(item, plain)
        unique = frozenset(found)
        if len(unique) < len(found):
            raise Misread("something stands twice in a set")
        return unique

    return _Form(name="set", classes=(frozenset,), write=write, read=read)


def _mapping(key: _Form, item: _Form) -> _Form:
    pairs = _list(_row((key, item)))
    is_text = key.classes == (str,)

    def write(value: Mapping[Any, object]) -> Plain:
        if is_text:
            return {one: item.write(inner) for one, inner in value.items()}
        written: Plain = pairs.write(value.items())
        return written

    def read(plain: object) -> object:
        if not is_text:
            found = pairs.read(plain)
            if len(dict(found)) < len(found):
                raise Misread("something stands twice in a mapping")
            return MappingProxyType(dict(found))
        if type(plain) is not dict:
            raise Misread(f"expected a mapping, found {_described(plain)}")
        return MappingProxyType({one: _step(item, inner, one) for one, inner in plain.items()})

    return _Form(name="mapping", classes=(MappingProxyType, dict), write=write, read=read)


def _union(kinds: frozenset[Kind]) -> _Form:
    """Return the form of one of several. The two families of an address are one kind, told by their text."""
    both = [
        (names, _text(name, tuple(names), parse))
        for names, name, parse in ((_ADDRESS, "Address", _parse_address), (_PREFIX, "Prefix", _parse_prefix))
        if names <= kinds
    ]
    single = kinds - {_NONE}.union(*(names for names, _ in both))
    forms = [*(form for _, form in both), *map(_form, single)]
    known = [one for form in forms for one in form.classes]
    if len(known) > len(set(known)):
        raise TypeError(f"the values of {kinds} can not be told apart")
    one = forms[0] if len(forms) == 1 else _tagged(forms)
    return _or_none(one) if _NONE in kinds else one


def _or_none(form: _Form) -> _Form:
    def write(value: object) -> Plain:
        written: Plain = None if value is None else form.write(value)
        return written

    def read(plain: object) -> object:
        return None if plain is None else form.read(plain)

    return _Form(name=form.name, classes=(*form.classes, _NONE), write=write, read=read)


def _tagged(forms: list[_Form]) -> _Form:
    by_class = {one: form for form in forms for one in form.classes}
    by_name = {form.name: form for form in forms}

    def write(value: object) -> Plain:
        form = by_class.get(type(value))
        if form is None:
            raise TypeError(f"{type(value).__name__} is none of {', '.join(sorted(by_name))}")
        return {form.name: form.write(value)}

    def read(plain: object) -> object:
        if type(plain) is dict and len(plain) == 1:
            ((name, inner),) = plain.items()
            if name in by_name:
                return _step(by_name[name], inner, name)
        raise Misread(f"expected one of {', '.join(sorted(by_name))}, found {_described(plain)}")

    return _Form(name=" or ".join(sorted(by_name)), classes=tuple(by_class), write=write, read=read)


def _items(item: _Form, plain: object) -> list[Any]:
    if type(plain) is not list:
        raise Misread(f"expected a list, found {_described(plain)}")
    read_item = item.read
    found = []
    for number, one in enumerate(plain):
        try:
            found.append(read_item(one))
        except Misread as wrong:
            raise wrong.below(f"[{number}]") from None
    return found


def _step(form: _Form, plain: object, step: str | int) -> Any:
    try:
        return form.read(plain)
    except Misread as wrong:
        raise wrong.below(f"[{step}]" if isinstance(step, int) else f".{step[:40]}") from None


def _described(plain: object) -> str:
    """Return plain data as a message shows it: short, and fit for a terminal."""
    match plain:
        case dict():
            return "a mapping"
        case list():
            return f"a list of {len(plain)}"
        case _:
            shown = ascii(plain)
            return shown if len(shown) <= 60 else f"{shown[:60]}..."

"""The content of one file becomes objects: YAML or JSON, one or many documents, lists and single objects.

A list of cluster objects in JSON takes the short way: decoded straight into structs. Whatever does not fit (our own
kinds, unknown ones, one broken item) sends the whole list the long way, item by item, with positions.
"""

from __future__ import annotations

import gc
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

import msgspec

from outgate.model.why import Origin
from outgate.sources import cluster
from outgate.sources.convert import Converter, Misfit, ModelObject
from outgate.sources.fields import API_VERSION, GROUP
from outgate.sources.json_reader import MOST_JSON_BYTES, Content, Place, json_fault, place_at, read_json
from outgate.sources.node import Fault, Node, bare, child, describe, text_at
from outgate.sources.own import is_meant_as_own, read_own
from outgate.sources.parsed import Broken, Ignored, Parsed, key, refusal
from outgate.sources.tenant_fields import KINDS
from outgate.sources.words import instead, nearest, plain, printable
from outgate.sources.yaml_reader import MOST_YAML_BYTES, read_yaml

_LARGE_BYTES = 8 << 20  # about 3,000 pods; from here on a collection is felt
_LISTING = msgspec.json.Decoder(cluster.Listing)
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_ANY = msgspec.json.Decoder(cluster.RawListing)
_STEP = re.compile(r"\.([A-Za-z]\w*)|\[(\d+)\]|\[(\.\.\.)\]")
_EXPECTED = re.compile(r"Expected `([^`]+)`, got `[^`]+`")
_TYPES = {"str": "a string", "int": "a whole number", "bool": "true or false", "array": "a list", "object": "a mapping"}


def parse(file: str, content: Content) -> Parsed:
    """Return what a file holds. Nothing here raises for what a user wrote."""
    reading = _Reading(printable(file))
    is_json_name = file.endswith(".json")
    start = bytes(content[:64]).removeprefix(b"\xef\xbb\xbf").lstrip()
    with _uncollected(len(content)):
        if is_json_name or start.startswith((b"{", b"[")):
            reading.json(content, may_be_yaml=not is_json_name)
        else:
            reading.yaml(content)
        return reading.parsed()


@contextmanager
def _uncollected(size: int) -> Iterator[None]:
    """Keep the cyclic collector from walking over all pods again and again, now and later.

    What is read has no cycles. It ends in the collector's permanent generation; the garbage that is there before is
    collected first, so that it does not end there too.
    """
    if size < _LARGE_BYTES or not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


class _Reading:
    """Gathers the objects of one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._converter = Converter(file)
        self._objects: defaultdict[str, list[ModelObject]] = defaultdict(list)
        self._broken: list[Broken] = []
        self._ignored: dict[str, Ignored] = {}

    def parsed(self) -> Parsed:
        """Return what was gathered."""
        return Parsed(
            objects=MappingProxyType({kind: tuple(found) for kind, found in self._objects.items()}),
            broken=tuple(self._broken),
            ignored=MappingProxyType(self._ignored),
        )

    def yaml(self, content: Content) -> None:
        """Read YAML documents."""
        if len(content) > MOST_YAML_BYTES:
            self._too_large("YAML", MOST_YAML_BYTES, "save it as JSON (`-o json`), or as several files")
            return
        for document in read_yaml(bytes(content), self._take_item):
            if isinstance(document, Fault):
                self._fault(document)
            else:
                self._document(document)

    def json(self, content: Content, *, may_be_yaml: bool) -> None:
        """Read one JSON value; text in braces that is no JSON may be YAML, if the file's name allows it."""
        if len(content) > MOST_JSON_BYTES:
            self._too_large("JSON", MOST_JSON_BYTES, "split it into several files")
            return
        if content[:3] == b"\xef\xbb\xbf":
            content = bytes(content[3:])
        try:
            if not self._fast(content):
                self._items(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if may_be_yaml:
                self.yaml(content)
            else:
                self._fault(json_fault(error, content))

    def _fast(self, content: Content) -> bool:
        """Read a list of cluster objects straight away; False: it is something else, and nothing was taken."""
        try:
            found = _LISTING.decode(content).items
        except msgspec.ValidationError:
            return False
        if any(one.api_version != cluster.API_VERSIONS[type(one)] for one in found):
            return False
        try:
            converted = [self._converter.convert(one) for one in _emptied(found)]
        except Misfit:
            return False
        for one in converted:
            self._objects[one.origin.kind].append(one)
        return True

    def _items(self, content: Content) -> None:
        """Read a JSON value item by item."""
        is_array = bytes(content[:64]).lstrip().startswith(b"[")
        whole = cluster.RawListing(items=_ITEMS.decode(content)) if is_array else _ANY.decode(content)
        if isinstance(whole.items, msgspec.UnsetType):
            self._item(bytes(content), (1, 1), whole)
            return
        kind = whole.kind.removesuffix("List") if isinstance(whole.kind, str) else ""
        api_version = whole.api_version if isinstance(whole.api_version, str) and kind else ""
        offset, place = 0, (1, 1)
        for raw in whole.items:
            item = bytes(raw)
            here = content.find(item, offset)
            place = place_at(content, here, place, offset)
            offset = here
            head = _ANY.decode(item) if item.startswith(b"{") else cluster.RawListing()
            self._item(item, place, cluster.RawListing(head.api_version or api_version, head.kind or kind))

    def _item(self, item: bytes, place: Place, head: cluster.RawListing) -> None:
        """Read one object of a JSON text."""
        known = cluster.READ.get((str(head.api_version), str(head.kind)))
        if known is not None:
            try:
                self._keep(self._converter.convert(msgspec.json.decode(item, type=known), *place))
            except (msgspec.ValidationError, Misfit):
                pass  # read again, with positions, for the message
            else:
                return
        node = read_json(item, place)
        if isinstance(node, Fault):
            self._fault(node)
        else:
            self._object(node, str(head.api_version), str(head.kind))

    def _document(self, node: Node) -> None:
        """Read a YAML document: an object, a list object, or a plain list of objects."""
        if isinstance(node.value, list):
            for item in node.value:
                self._object(item, text_at(item, "apiVersion"), text_at(item, "kind"))
            return
        kind, api_version, items = text_at(node, "kind"), text_at(node, "apiVersion"), child(node, "items")
        if items is None or not kind.endswith("List") or not isinstance(items.value, list):
            if node.value is not None:
                self._object(node, api_version, kind)
            return
        item_kind = kind.removesuffix("List")
        for item in items.value:
            self._object(
                item,
                text_at(item, "apiVersion") or (api_version if item_kind else ""),
                text_at(item, "kind") or item_kind,
            )

    def _take_item(self, node: Node) -> bool:
        """Take an item of a large YAML list as soon as it is complete, if it says itself what it is."""
        api_version, kind = text_at(node, "apiVersion"), text_at(node, "kind")
        if not api_version or not kind:
            return False
        self._object(node, api_version, kind)
        return True

    def _object(self, node: Node, api_version: str, kind: str) -> None:
        """Read one object from its tree."""
        known = cluster.READ.get((api_version, kind))
        if known is not None:
            self._cluster_object(node, kind, known)
        elif api_version == API_VERSION and kind in KINDS:
            made = read_own(KINDS[kind], node, self._file)
            if not isinstance(made, list):
                self._keep(made)
                return
            for problem in made:
                self._refuse(node, kind, (problem.line, problem.column, problem.field), problem.text, problem.fix)
        else:
            self._unknown(node, api_version, kind)

    def _cluster_object(self, node: Node, kind: str, known: type[cluster.ClusterObject]) -> None:
        content = bare(node)
        if isinstance(content, dict):
            content = {"kind": kind, **content}
        try:
            self._keep(self._converter.convert(msgspec.convert(content, known), node.line, node.column))
        except Misfit as error:
            where, path = _find(node, error.path)
            self._refuse(node, kind, (where.line, where.column, path), error.text, error.fix)
        except msgspec.ValidationError as error:
            said, _, path = str(error).partition(" - at `$")
            path = path.strip(".`")
            where, path = _find(node, path)
            text = _worded(said, where)
            fix = "the API server would not have taken this; get the object anew"
            self._refuse(node, kind, (where.line, where.column, path), text, fix)

    def _unknown(self, node: Node, api_version: str, kind: str) -> None:
        where = (node.line, node.column, "")
        if not isinstance(node.value, dict):
            text = f"expected a manifest with apiVersion, kind, metadata and spec; found {describe(node.value)}"
            self._refuse(node, "", where, text, "write one, or take the file out of the directory")
        elif not kind:
            text = "this is no manifest: kind is missing"
            self._refuse(node, "", where, text, "add apiVersion and kind, or take the file out of the directory")
        elif api_version.partition("/")[0] == GROUP and kind not in KINDS:
            at = child(node, "kind") or node
            text = f"{GROUP} has no kind {plain(kind)}"
            self._refuse(node, kind, (at.line, at.column, "kind"), text, instead(kind, KINDS))
        elif kind in KINDS and is_meant_as_own(api_version):
            at = child(node, "apiVersion") or node
            text = f"expected apiVersion {API_VERSION}; found {plain(api_version) if api_version else 'none'}"
            self._refuse(node, kind, (at.line, at.column, "apiVersion"), text, f"write apiVersion: {API_VERSION}")
        else:
            self._ignore(node, api_version, kind)

    def _ignore(self, node: Node, api_version: str, kind: str) -> None:
        shown = f"{plain(kind)} ({plain(api_version) if api_version else 'no apiVersion'})"
        before = self._ignored.get(shown)
        if before is not None:
            self._ignored[shown] = replace(before, count=before.count + 1)
            return
        known = [name for version, name in cluster.READ if version == api_version]
        found = nearest(kind, known)
        origin = self._origin(node, kind, (node.line, node.column, ""))
        self._ignored[shown] = Ignored(count=1, origin=origin, hint=f"did you mean {found}?" if found else "")

    def _keep(self, made: ModelObject) -> None:
        self._objects[made.origin.kind].append(made)

    def _refuse(self, node: Node, kind: str, where: tuple[int, int, str], text: str, fix: str) -> None:
        origin = self._origin(node, kind, where)
        is_known = kind in KINDS or any(kind == one for _, one in cluster.READ)
        self._broken.append(Broken(refusal(text, fix, origin), key(origin) if origin.name and is_known else None))

    def _origin(self, node: Node, kind: str, where: tuple[int, int, str]) -> Origin:
        line, column, field = where
        name, namespace = text_at(node, "metadata", "name"), text_at(node, "metadata", "namespace")
        return Origin(
            file=self._file,
            line=line,
            column=column,
            field=field,
            kind=plain(kind) if kind else "",
            name=plain(name) if name else "",
            namespace=plain(namespace) if namespace and not (kind in KINDS and not KINDS[kind].is_namespaced) else "",
        )

    def _fault(self, fault: Fault) -> None:
        origin = Origin(file=self._file, line=fault.line, column=fault.column, kind=fault.kind, name=fault.name)
        if not (fault.kind and fault.name):
            origin = replace(origin, kind="", name="")
        self._broken.append(Broken(refusal(fault.text, fault.fix, origin), None))

    def _too_large(self, form: str, most: int, fix: str) -> None:
        text = f"the file is larger than {most >> 20} MiB, the limit for {form}"
        self._broken.append(Broken(refusal(text, fix, Origin(file=self._file)), None))


def _emptied(found: list[cluster.ClusterObject]) -> Iterator[cluster.ClusterObject]:
    """Give the items in order and let go of each, so that structs and model are never held both in full."""
    found.reverse()
    while found:
        yield found.pop()


def _find(node: Node, path: str) -> tuple[Node, str]:
    """Return the node at a path of msgspec or of the converter, or the last one on the way, and the path in full.

    msgspec writes `[...]` where it does not know the key; then it is the first whose value is no string.
    """
    said = path
    for name, index, some in _STEP.findall("." + path):
        step: str | int = name or (int(index) if index else "")
        if some and isinstance(node.value, dict):
            step = next((key for key, one in node.value.items() if not isinstance(one.value, str)), "")
            said = said.replace("[...]", f"[{plain(step)}]", 1)
        inner = child(node, step)
        if inner is None:
            break
        node = inner
    return node, said


def _worded(said: str, found: Node) -> str:
    """Return what msgspec says in the words of a user: its types are those of Python."""
    kinds = _EXPECTED.match(said)
    if kinds is None:
        return said[:1].lower() + said[1:].replace("`", "")
    names = [_TYPES.get(name, name) for name in kinds[1].split(" | ") if name != "null"]
    return f"expected {' or '.join(names)}; found {describe(found.value)}"

"""What may leave the machine in a bundle: by type, never by searching for what looks like a secret.

The model holds only fields that outgate reads: no data of Secrets and ConfigMaps, no environment, no annotation but the
node's subnets. What could still carry a user's secret has one of these types, and each has its rule here:

- a label: kept if some selector asks for its key, else left out;
- the words of a refusal: they may repeat what stands in the file, so they are left out, and the place is kept;
- a free text of a firewall rule (comment, string to match, log prefix): the option is kept, its text left out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from outgate.model.firewall import Firewall, IptablesRule
from outgate.model.intent import Intent
from outgate.model.selector import Labels, LabelSelector
from outgate.model.status import Status
from outgate.model.why import Finding
from outgate.sources import cluster
from outgate.sources.convert import NAME_LABEL
from outgate.sources.ovn_node import ASSIGNABLE
from outgate.sources.tenant_fields import KINDS

LEFT_OUT = "can not be read; what is wrong is left out here, because it may repeat the file: ask `outgate lint`"
GAP = "..."

_NAME = re.compile(r"[a-z0-9][-a-z0-9.]{0,252}")
_KINDS = frozenset(KINDS) | {kind for _, kind in cluster.READ}
_UNREAD_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62} \((?:[a-z0-9][-a-z0-9./]{0,252}|no apiVersion)\)")
_IGNORED = re.compile(r"(?P<count>\d+ objects?) of the kind (?P<kind>.*): outgate does not read it", re.DOTALL)
_FREE_TEXT = frozenset({"--comment", "--string", "--hex-string", "--log-prefix", "--nflog-prefix"})


def redact_intent(intent: Intent) -> Intent:
    """Return the intent as a bundle holds it: every answer about it is the same as about the original."""
    asked = _asked_labels(intent)

    def labels(given: Labels) -> Labels:
        return tuple((key, value) for key, value in given if key in asked)

    return replace(
        intent,
        namespaces=tuple(replace(one, labels=labels(one.labels)) for one in intent.namespaces),
        nodes=tuple(replace(one, labels=labels(one.labels)) for one in intent.nodes),
        pods=tuple(replace(one, labels=labels(one.labels)) for one in intent.pods),
        refusals=tuple(map(redact_finding, intent.refusals)),
    )


def redact_finding(finding: Finding) -> Finding:
    """Return a finding without words that a user may have written; what is made from parsed values stays."""
    if finding.reason == "KindIgnored":
        return _ignored(finding)
    if finding.reason != "InvalidManifest":
        return finding
    origin = finding.origin
    if origin is not None:
        is_known = origin.kind in _KINDS and _NAME.fullmatch(origin.name) is not None
        namespace = origin.namespace if is_known and _NAME.fullmatch(origin.namespace) else ""
        kind, name = (origin.kind, origin.name) if is_known else ("", "")
        origin = replace(origin, kind=kind, name=name, namespace=namespace, field="")
    about = (origin.object or origin.file) if origin is not None else ""
    return replace(finding, about=about, text=LEFT_OUT, fix="", origin=origin)


def redact_status(status: Status) -> Status:
    """Return a status whose findings, and the reasons taken from them, are redacted."""
    return replace(
        status,
        findings=tuple(map(redact_finding, status.findings)),
        tenants=tuple(replace(one, reason=_reason(one.reason)) for one in status.tenants),
        nodes=tuple(replace(one, reason=_reason(one.reason)) for one in status.nodes),
    )


def redact_kind(shown: str) -> str:
    """Return a kind that outgate does not read, `Secret (v1)`; one that no API server has is not repeated."""
    return shown if _UNREAD_KIND.fullmatch(shown) else "a kind that no cluster has"


def redact_firewall(firewall: Firewall) -> Firewall:
    """Return what firewalls hold without the free text of their rules."""
    return replace(firewall, rules=tuple(map(_rule, firewall.rules)))


def redact_ruleset(listing: Any) -> Any:
    """Return the JSON of `nft list ruleset` without comments and log prefixes."""
    match listing:
        case dict():
            return {key: redact_ruleset(inner) for key, inner in listing.items() if not _is_free(key, inner)}
        case list():
            return [redact_ruleset(inner) for inner in listing]
        case _:
            return listing


def _asked_labels(intent: Intent) -> frozenset[str]:
    """Return the keys of the labels that selectors ask for."""
    selectors: list[LabelSelector | None] = [
        *(selector for one in intent.tenants for selector in (one.namespace_selector, one.pod_selector)),
        *(one.namespace_selector for one in intent.external_routes),
        *(each for one in intent.egress_ips for each in (one.namespace_selector, one.pod_selector, one.node_selector)),
        *(one.allowed_namespaces for one in intent.pools),
    ]
    return frozenset(
        {NAME_LABEL, ASSIGNABLE}.union(*(_keys(selector) for selector in selectors if selector is not None))
    )


def _keys(selector: LabelSelector) -> Iterator[str]:
    yield from (key for key, _ in selector.match_labels)
    yield from (expression.key for expression in selector.expressions)


def _ignored(finding: Finding) -> Finding:
    """Keep the kind and the count of objects that are not read, and the file where the first of them stands."""
    said = _IGNORED.fullmatch(finding.text)
    if said is None:
        return finding  # a second Network: made from parsed values
    origin = replace(finding.origin, kind="", namespace="", name="", field="") if finding.origin else None
    kind = redact_kind(said["kind"])
    text = f"{said['count']} of the kind {kind}: outgate does not read it"
    return replace(finding, about=origin.file if origin else "", text=text, origin=origin)


def _reason(reason: str) -> str:
    return f"InvalidManifest: {LEFT_OUT}" if reason.startswith("InvalidManifest: ") else reason


def _is_free(key: str, value: object) -> bool:
    """Whether a member of a listing is free text; the prefix of an address is an object, that of a log is text."""
    return key == "comment" or (key == "prefix" and isinstance(value, str))


def _rule(rule: IptablesRule) -> IptablesRule:
    if not any(option in rule.line for option in _FREE_TEXT):
        return rule
    try:
        line = shlex.join(_words(shlex.split(rule.line)))
    except ValueError:  # an odd quote: nobody knows where the text ends, so the rest of the line goes with it
        before = min(found for option in _FREE_TEXT if (found := rule.line.find(option)) >= 0)
        return replace(rule, line=rule.line[:before] + GAP, more=(GAP,), arguments=())
    return replace(rule, line=line, more=tuple(map(_match, rule.more)), arguments=tuple(_words(rule.arguments)))


def _match(words: str) -> str:
    """Return a match of a rule, `! --comment a text`, with its option only, if what follows is free."""
    option = next((one for one in words.split() if one in _FREE_TEXT), None)
    return words if option is None else words[: words.index(option)] + f"{option} {GAP}"


def _words(words: Sequence[str]) -> Iterator[str]:
    """Give words, those behind an option that takes free text left out."""
    is_free = False
    for word in words:
        yield GAP if is_free else word
        is_free = word in _FREE_TEXT and not is_free

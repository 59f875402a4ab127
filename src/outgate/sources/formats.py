"""The texts that our kinds are made of: what each must be, in a sentence, as a function, and as a pattern for a schema.

Patterns are RE2 and allow at least what the function allows: a schema in the cluster may be laxer than outgate, never
stricter, or a file that works would not apply.
"""

from __future__ import annotations

from outgate.sources import values
from outgate.sources.shape import Text

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IP = rf"({_OCTET}(\.{_OCTET}){{3}}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)"
_LABEL = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DNS = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LONGEST_IP = 45  # 0000:0000:0000:0000:0000:0000:255.255.255.255

HOST = Text(
    what="an IPv4 or IPv6 address that a machine can hold, as in 192.168.55.113 or fd55::113",
    parse=values.parse_host,
    pattern=f"^{_IP}$",
    most=_LONGEST_IP,
)
PREFIX = Text(
    what="a prefix, as in 198.51.100.0/24 or 2001:db8::/32",
    parse=values.parse_prefix,
    pattern=f"^{_IP}/[0-9]{{1,3}}$",
    most=_LONGEST_IP + 4,
)
PART = Text(
    what="a prefix other than 0.0.0.0/0 and ::/0, as in 10.128.0.0/14 or fd01::/48",
    parse=values.parse_part,
    pattern=f"^{_IP}/[0-9]{{1,3}}$",
    most=_LONGEST_IP + 4,
)
_SPAN_PATTERN = rf"^{_IP}(/[0-9]{{1,3}}|-{_IP})?$"
_SPANS = "as in 192.168.55.120-192.168.55.139, 192.168.56.0/28 or 192.168.55.7"
HOST_SPAN = Text(
    what=f"a range of addresses that machines can hold, {_SPANS}",
    parse=values.parse_host_span,
    pattern=_SPAN_PATTERN,
    most=2 * _LONGEST_IP + 1,
)
SPAN = Text(
    what=f"a range of addresses, {_SPANS}",
    parse=values.parse_span,
    pattern=_SPAN_PATTERN,
    most=2 * _LONGEST_IP + 1,
)
LINK = Text(
    what="the name of a network interface, 1 to 15 bytes, as in enp7s0",
    parse=values.parse_link,
    pattern="^[A-Za-z0-9_.][A-Za-z0-9_.@-]*$",
    most=15,
)
NAME = Text(what="the name of an object, as in ns-red", parse=values.parse_name, pattern=f"^{_DNS}$", most=253)
LABEL_KEY = Text(
    what="a label key, as in app or kubernetes.io/metadata.name",
    parse=values.parse_label_key,
    pattern=f"^({_DNS}/)?{_LABEL}$",
    most=253 + 1 + 63,
)
LABEL_VALUE = Text(
    what="a label value: at most 63 letters, digits and - _ .",
    parse=values.parse_label_value,
    pattern=f"^({_LABEL})?$",
    most=63,
)


def duration(least_s: int, most_s: int) -> Text:
    """Return the shape of a duration within limits, in seconds."""
    shown = f"{values.show_duration(least_s)} to {values.show_duration(most_s)}"
    return Text(
        what=f"a duration of {shown}, as in 30s, 5m, 24h, 7d or 1h30m",
        parse=values.parse_duration(least_s, most_s),
        pattern="^([0-9]{1,8}[dhms])+$",
        most=32,
        show=values.show_duration,
    )

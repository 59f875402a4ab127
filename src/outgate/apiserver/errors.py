"""What an API server says no with, one class per thing that the caller can do about it."""

from __future__ import annotations

import msgspec

from outgate.model.errors import Refused, Unreachable


class Answered(Refused):
    """The server answered, and not with success. `change` is the request, `words` are the server's own."""

    def __init__(self, request: str, words: str, status: int) -> None:
        super().__init__(request, f"{words} ({status})")
        self.status = status


class Unauthorized(Answered):
    """401: the server does not know us; the credentials were read again already."""


class Denied(Answered):
    """403: we are known and may not. The server's own words name the verb and the resource."""


class Missing(Answered):
    """404: no such object, or no such kind."""


class Conflict(Answered):
    """409: somebody wrote in between, or owns the field; read again and decide again."""


class Gone(Answered):
    """410: the resourceVersion or the page is forgotten; list again."""


class Invalid(Answered):
    """400, 415, 422 and the like: the request itself is wrong; sending it again is no use."""


class Busy(Unreachable):
    """429 or 5xx: the server can not now; `after_s` is what it asks for, 0 when it says nothing."""

    def __init__(self, text: str, after_s: float) -> None:
        super().__init__(text)
        self.after_s = after_s


_CLASSES: dict[int, type[Answered]] = {401: Unauthorized, 403: Denied, 404: Missing, 409: Conflict, 410: Gone}
_LONGEST_WORDS = 500


class _Status(msgspec.Struct, frozen=True):
    message: str = ""


def error_of(request: str, status: int, body: bytes, retry_after: str = "") -> Answered | Busy:
    """Return the error that an answer of 300 or above means."""
    words = _words(body)
    if status == 429 or status >= 500:
        after_s = float(retry_after) if retry_after.isdigit() else 0.0
        return Busy(f"{request}: {words} ({status})", after_s)
    return _CLASSES.get(status, Invalid)(request, words, status)


def _words(body: bytes) -> str:
    """Return the message of a Status, or the start of whatever else was answered (a proxy's page)."""
    try:
        message = msgspec.json.decode(body, type=_Status).message
    except msgspec.DecodeError:
        message = ""
    words = message or body.decode("utf-8", "replace")
    return " ".join(words.split())[:_LONGEST_WORDS] or "no words"

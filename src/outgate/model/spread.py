"""Which of a tenant's egress IPs a source gets: the hash that the kernel computes (`jhash ip saddr mod 16 seed 0x6f`).

The kernel decides per packet, the planner and `explain` must say the same beforehand. Source: Bob Jenkins, lookup3.c
(public domain), as in `include/linux/jhash.h`; the scaling is `reciprocal_scale` of `include/linux/kernel.h`.
"""

from __future__ import annotations

import sys

from outgate.model.net import Address

BUCKETS = 16
SEED = 0x6F

_START = 0xDEADBEEF
_WORD = 0xFFFFFFFF


def bucket(source: Address) -> int:
    """Return the bucket of a source address, 0 to 15: stable for ever, about even over sources."""
    return jhash(source.packed, SEED) * BUCKETS >> 32


def jhash(key: bytes, seed: int) -> int:
    """Return the 32 bits that the kernel's `jhash` gives for a key of 4 or 16 bytes.

    Whole blocks of 12 bytes are read in the machine's byte order, the rest always little end first, as the kernel does.
    """
    a = b = c = (_START + len(key) + seed) & _WORD
    if len(key) > 12:
        a = a + int.from_bytes(key[0:4], sys.byteorder) & _WORD
        b = b + int.from_bytes(key[4:8], sys.byteorder) & _WORD
        c = c + int.from_bytes(key[8:12], sys.byteorder) & _WORD
        a, b, c = _mix(a, b, c)
    a = a + int.from_bytes(key[-4:], "little") & _WORD
    return _final(a, b, c)


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a, c = (a - c ^ _rotate(c, 4)) & _WORD, c + b & _WORD
    b, a = (b - a ^ _rotate(a, 6)) & _WORD, a + c & _WORD
    c, b = (c - b ^ _rotate(b, 8)) & _WORD, b + a & _WORD
    a, c = (a - c ^ _rotate(c, 16)) & _WORD, c + b & _WORD
    b, a = (b - a ^ _rotate(a, 19)) & _WORD, a + c & _WORD
    c, b = (c - b ^ _rotate(b, 4)) & _WORD, b + a & _WORD
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _rotate(b, 14) & _WORD
    a = (a ^ c) - _rotate(c, 11) & _WORD
    b = (b ^ a) - _rotate(a, 25) & _WORD
    c = (c ^ b) - _rotate(b, 16) & _WORD
    a = (a ^ c) - _rotate(c, 4) & _WORD
    b = (b ^ a) - _rotate(a, 14) & _WORD
    return (c ^ b) - _rotate(b, 24) & _WORD


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & _WORD

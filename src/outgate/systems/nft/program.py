"""The program nft: where it is, which version it is, how it is run. It runs in the calling thread's network namespace.

It is run as a process, not loaded: libnftables is under the GPL. Its version matters, because an older one reads some
JSON differently or not at all. 1.0.6 is what Debian 12 has, and the oldest that is tested; RHEL 9.4 and later have
1.0.9.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache

from outgate.model.errors import NotReady, Refused, Unreachable

OLDEST = (1, 0, 6)
TIMEOUT_S = 30.0  # loading 40,000 elements takes half a second; a machine that swaps takes longer

PLACES = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"  # of services and users, whatever their PATH
_ENVIRONMENT = {"LC_ALL": "C", "PATH": PLACES}


def run(arguments: tuple[str, ...], document: bytes = b"", *, change: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """Run nft and return what it printed. `change` says in a refusal what was asked.

    Raises:
        NotReady: nft is not installed, or too old.
        Refused: with nft's words; of the transaction nothing is in force.
        Unreachable: it did not end in time and was killed; the transaction is in force wholly or not at all.
    """
    version()
    done = _run(arguments, document, timeout_s)
    if done.returncode:
        raise Refused(change, _words(done.stderr) or f"nft ended with {done.returncode} and said nothing")
    return done.stdout


def _words(said: bytes) -> str:
    """Return each thing that nft said once; to JSON it says the same many times, of a place that does not exist."""
    lines = [line.removeprefix("internal:0:0-0: ") for line in said.decode(errors="replace").splitlines()]
    return "; ".join(dict.fromkeys(line.removeprefix("Error: ") for line in lines if line.strip()))


@cache
def version() -> tuple[int, ...]:
    """Return the version of the nft that is installed.

    Raises:
        NotReady: nft is not installed, or older than `OLDEST`.
        Unreachable: it did not answer.
    """
    words = _run(("--version",), b"", TIMEOUT_S).stdout.decode(errors="replace")
    found = re.match(r"nftables v(\d+(?:\.\d+)*)", words)
    if found is None:
        raise NotReady(f"nft --version says {words.strip()[:80]!r}, which names no version")
    numbers = tuple(int(number) for number in found[1].split("."))
    if numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise NotReady(f"nft {found[1]} is too old: install nftables {oldest} or later (Debian 12, RHEL 9.4)")
    return numbers


def _run(arguments: tuple[str, ...], document: bytes, timeout_s: float) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("nft", path=PLACES)
    if program is None:
        raise NotReady(f"there is no nft in {PLACES}: install the package nftables")
    try:
        return subprocess.run(
            (program, *arguments), input=document, capture_output=True, timeout=timeout_s, env=_ENVIRONMENT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"nft {' '.join(arguments)} did not end within {timeout_s:g} s") from error

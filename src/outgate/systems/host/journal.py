"""The last lines of the daemon's log, where journald keeps it: fields of our own, each by its name.

`journalctl -o json` is a format for programs (journalctl(1), systemd.journal-fields(7)). Lines that a library or an
uncaught error wrote are free text, and are not given.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping

UNIT = "outgate-gateway.service"

_PLACES = "/usr/bin:/bin"
_LIMIT_S = 10.0
_TIME = "__REALTIME_TIMESTAMP"  # microseconds since 1970
_EVENT = "OUTGATE_EVENT"
_FIELDS = (
    *("ROOM", "RESOURCE", "DRIFT", "MORE", "MADE", "DROPPED", "MS", "WORDS", "FLOWS", "WHY", "PAUSE_S"),
    *("GATEWAY", "MANIFESTS", "DATA_PATH", "ERROR"),
)
_PUT_OFF = "round put off"  # of this event the error is our own sentence; of others it may be anything


def last_lines(most: int, unit: str = UNIT) -> tuple[Mapping[str, str], ...] | None:
    """Return the fields of the last lines of a unit, the oldest first; None where there is no journal to read."""
    program = shutil.which("journalctl", path=_PLACES)
    if program is None:
        return None
    fields = ",".join(("PRIORITY", _EVENT, *(f"OUTGATE_{name}" for name in _FIELDS)))
    command = (program, "--quiet", "--no-pager", f"--unit={unit}", f"--lines={most}", "-o", "json")
    try:
        ran = subprocess.run(
            (*command, f"--output-fields={fields}"),
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
            env={"PATH": _PLACES, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if ran.returncode else tuple(parse(ran.stdout.splitlines()))


def parse(lines: list[bytes]) -> Iterator[Mapping[str, str]]:
    """Give the fields of each line that outgate logged: `time_us`, `priority`, `event`, and those of the event."""
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # cut while it was written
            continue
        if not isinstance(entry.get(_EVENT), str):
            continue
        names = {_TIME: "time_us", "PRIORITY": "priority", _EVENT: "event"}
        names |= {f"OUTGATE_{name}": name.lower() for name in _FIELDS}
        if entry[_EVENT] != _PUT_OFF:
            entry.pop("OUTGATE_ERROR", None)
        yield {shown: entry[name] for name, shown in names.items() if isinstance(entry.get(name), str)}

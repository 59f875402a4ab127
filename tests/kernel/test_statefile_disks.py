"""Real disks go wrong: they fill up, turn read-only under a running daemon, and belong to another user than the one who
types. Each disk here is a small file system in a mount namespace of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from outgate.model.ledger import Ledger
from outgate.systems.statefile.documents import Documents
from outgate.systems.statefile.state import StateFile

ON_A_SMALL_DISK = """
import subprocess, sys
from dataclasses import replace
from pathlib import Path
from outgate.model.errors import Refused
from outgate.model.ledger import Ledger
from outgate.model.net import Mark
from outgate.systems.statefile.documents import Documents
from outgate.systems.statefile.state import StateFile, not_written

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", disk], check=True)
file = StateFile(disk / "gateway", place="here", written_by="0.1.0")
old = Ledger(gateway="gw1", last_mark=Mark(0x100))
file.save(old)
for step in sys.argv[2:]:
    if step == "fill":
        with open(disk / "filler", "wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                pass
    elif step == "empty":
        (disk / "filler").unlink()
    else:
        subprocess.run(["mount", "-o", f"remount,{step}", disk], check=True)
    try:
        file.save(replace(old, last_mark=Mark(0x200)))
        print("written")
    except Refused as refused:
        print(not_written(refused).text)
    now = StateFile(disk / "gateway").load().ledger
    print(hex(now.last_mark), sorted(path.name for path in (disk / "gateway").iterdir()))
"""


def on_a_small_disk(folder: Path, *steps: str) -> list[str]:
    """What a daemon says that saves once on a good disk, then after each step."""
    command = ["unshare", "--mount", sys.executable, "-c", ON_A_SMALL_DISK, str(folder), *steps]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_full_disk_leaves_the_old_state_and_the_next_try_writes_when_there_is_room(tmp_path: Path) -> None:
    full, kept, written, now = on_a_small_disk(tmp_path, "fill", "empty")

    assert "state.json: No space left on device" in full
    assert "the gateway serves on from memory" in full
    assert kept == "0x100 ['state.json']"
    assert (written, now) == ("written", "0x200 ['state.json', 'state.json.previous']")


def test_a_disk_that_turns_read_only_leaves_the_old_state(tmp_path: Path) -> None:
    refused, kept, written, now = on_a_small_disk(tmp_path, "ro", "rw")

    assert "state.json: Read-only file system" in refused
    assert kept == "0x100 ['state.json']"
    assert (written, now) == ("written", "0x200 ['state.json', 'state.json.previous']")


def test_what_root_writes_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)

    StateFile(tmp_path / "gateway").save(Ledger(gateway="gw1"))
    Documents(tmp_path / "gateway").write("pending.json", b"{}")

    made = [tmp_path / "gateway", *(tmp_path / "gateway").iterdir()]
    assert len(made) == 3
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(65534, 65534)}

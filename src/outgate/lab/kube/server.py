"""One server of a control plane as a child: started, asked whether it is ready, held still, ended, killed.

It ends with whoever started it, however that ends (PR_SET_PDEATHSIG, by setpriv(1), which has it from the *thread* that
started it: a plane that is started in a thread ends with the thread). A Ctrl-C at the terminal does not reach it, so
that its owner decides in which order servers end.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from outgate.lab.waiting import eventually

READY_WITHIN_S = 180.0  # 3 s on an idle machine, 10 s with 50,000 pods; a busy one takes five times as long

_TIED = ("setpriv", "--pdeathsig", "KILL", "--")
_ENDS_WITHIN_S = 10.0
_TAIL = 3000  # characters of a log in a message


class ServerFailed(Exception):
    """A server ended by itself or did not come up; the message has its last words."""


class Server:
    """A program that serves until it is ended. Its log is NAME.log in the folder where it runs, each start appended."""

    def __init__(self, name: str, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """Describe it; `settings` are variables of its environment besides those of this process."""
        self.name, self.folder = name, folder
        self.log = folder / f"{name}.log"
        self._settings = dict(settings or {})
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            ServerFailed: it does not run.
        """
        if self._child is None:
            raise ServerFailed(f"{self.name} does not run")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self, argv: Sequence[str]) -> None:
        """Start it; `until_ready` waits. What runs already stays."""
        if self.is_running:
            return
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                (*_TIED, *argv),
                cwd=self.folder,
                env={**os.environ, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def until_ready(self, is_ready: Callable[[], bool]) -> None:
        """Wait until it answers that it is ready.

        Raises:
            ServerFailed: it ended, or it was not ready within three minutes.
        """

        def settled() -> bool:
            return not self.is_running or is_ready()

        try:
            eventually(settled, f"{self.name} is ready", within_s=READY_WITHIN_S)
        except TimeoutError as late:
            raise ServerFailed(f"{late}\n{self.tail()}") from None
        if not self.is_running:
            raise ServerFailed(f"{self.name} ended by itself\n{self.tail()}")

    def stop(self) -> None:
        """End it in order; after 10 s it is killed. What is held still is let go first."""
        if self._child is None:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        try:
            self._child.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
        self._child.wait()
        self._child = None

    def kill(self) -> None:
        """End it at once (SIGKILL): it says goodbye to nobody."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def pause(self) -> None:
        """Hold it still (SIGSTOP): its connections stay open, and nobody answers.

        The signal reaches each thread in its own time; this returns when the last of them stands.
        """
        self._signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")
        eventually(lambda: all(_state(thread) == "T" for thread in threads.iterdir()), f"{self.name} stands still")

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-_TAIL:] if self.log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        if self._child is None:
            raise ServerFailed(f"{self.name} does not run")
        self._child.send_signal(number)  # not os.kill: an id may belong to somebody else once its owner has ended


def _state(thread: Path) -> str:
    """Return the state of a thread, a letter of proc(5); `T` also for one that has just ended."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "T"

"""A small daemon with a real loop and a real socket, for the suites that ask it: `python -m tests.ear SOCKET [GROUPS]`.

GROUPS is two group numbers, of those who may look and of those who may change; the caller's own unless given. It prints
`listening`, then a line for every question that was withdrawn, and ends with SIGTERM.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from outgate.control.connection import Limits
from outgate.control.lock import AlreadyRunning
from outgate.control.loop import Loop
from outgate.control.peer import Right, Rights
from outgate.control.socket import LATER, Later, Question, Server, Verb
from outgate.model.errors import Refused

LIMITS = Limits(
    question_bytes=64 * 1024, change_bytes=1024 * 1024, question_s=0.5, stall_s=0.5
)  # short, so that nobody waits for them


def echo(question: Question) -> object:
    return dict(question.arguments)


def count(question: Question) -> object:
    for number in range(question.argument("to", int, 3)):
        question.progress(number=number, text="step\x1b[31m\n")
    return "counted"


def big(question: Question) -> object:
    return "x" * question.argument("bytes", int, 0)


def half(question: Question) -> object:
    return question.argument("of", float, 0.0) / 2


def refuse(question: Question) -> object:
    if question.argument("running", bool, False):
        raise AlreadyRunning(None)
    raise Refused("add route 10.128.0.0/23", "No such device")


class Daemon:
    """Answers `wait` when somebody asks `release`."""

    def __init__(self, path: Path, allowed: Rights) -> None:
        self.loop = Loop()
        self.waiting: list[Question] = []
        looking = {"echo": echo, "count": count, "big": big, "half": half, "refuse": refuse, "wait": self.wait}
        verbs = {name: Verb(needs=Right.LOOK, run=run) for name, run in looking.items()}
        verbs["release"] = Verb(needs=Right.CHANGE, run=self.release)
        self.server = Server(path, verbs, self.loop, allowed=allowed, limits=LIMITS)

    def wait(self, question: Question) -> Later:
        question.progress(text="waiting")
        self.waiting.append(question)
        return LATER

    def release(self, question: Question) -> object:
        waiting, self.waiting = self.waiting, []
        for other in waiting:
            other.answer("released")
        return len(waiting)

    def idle(self) -> None:
        for question in [question for question in self.waiting if question.withdrawn]:
            self.waiting.remove(question)
            print("withdrawn", flush=True)


def main(path: str, lookers: str = "", changers: str = "") -> None:
    own = os.getgid()
    daemon = Daemon(Path(path), Rights(lookers=int(lookers or own), changers=int(changers or own)))
    daemon.loop.stop_on_signals()
    print("listening", flush=True)
    daemon.loop.run(daemon.idle)
    daemon.server.close()
    daemon.loop.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A guest under QEMU's own translator (TCG): the host's files under another kernel, and a plug that can be pulled.

    with Machine(tmp_path) as machine:              # 3 s until its first command, 6 s on a busy host
        print(machine.run("uname -r").text)
        machine.cut_power()                         # no goodbye: what was not on the disk is lost
        machine.switch_on()

The guest sees the host's files at their places, read-only; what it writes goes to a layer in its memory, but for an
optional disk. Its processor runs Python about 15 times slower than the host. KVM is never used: nested, it hangs on
some clouds, and a test that needs it would prove nothing elsewhere. Power is cut by ending QEMU; the reset button of
its control socket comes to the same but takes 5 s longer, which the next kernel then spends on unpacking itself.

As a command it runs a line of shell and passes on output and exit code; what the line writes to $OUT is handed back:

    python -m tests.vm.machine [--files DIRECTORY] 'LINE'
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm.kernel import VIRTIOFSD, Unavailable, fetch

BOOT_LIMIT_S = 120.0  # it takes 3 s on an idle machine
RUN_LIMIT_S = 120.0

_START = Path(__file__).parent / "guest" / "start.sh"
_TIED = ("setpriv", "--pdeathsig", "KILL", "--")  # ends with the thread that started it
_READ_ONLY = ("unshare", "--mount", "--", "/bin/sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "read-only")
_FS = ("-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot", "-o", "log_level=warn")
_SETTINGS = "quiet loglevel=4 console=ttyS0 panic=-1 printk.devkmsg=on mitigations=off nokaslr random.trust_cpu=on"
_TAIL = 3000  # characters of a log in a message


class GuestFailed(Exception):
    """A command failed in the guest, or the guest itself did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A network card: the descriptor of a TAP device that it is wired to, and its MAC address."""

    tap: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What came of a script: its exit code, and what it wrote to standard output and standard error."""

    code: int
    output: bytes

    @property
    def text(self) -> str:
        """The output as text, without blanks around it."""
        return self.output.decode(errors="replace").strip()


class Machine:
    """A guest that is switched on by making it."""

    def __init__(
        self,
        place: Path,
        *,
        nics: Sequence[Nic] = (),
        disk: Path | None = None,
        install: Path | None = None,
        memory_mb: int = 1024,
    ) -> None:
        """Switch it on and wait until it takes commands. Its logs go to `place`.

        `disk` is an image, to the guest /dev/vda. `install` is a script of bash that each boot runs first, as an
        installer would; the guest then boots the systemd units that the script put into place, `guest.target` first.

        Raises:
            Unavailable: there can be no guest on this machine.
            GuestFailed: it did not come up.
        """
        self._kernel = fetch()
        self._nics, self._disk, self._install, self._memory_mb = nics, disk, install, memory_mb
        self._console, self._log = place / "console.log", place / "guest.log"
        self._token = secrets.token_hex(16)
        self._heard = b""
        self._power = contextlib.ExitStack()
        self.switch_on()

    def switch_on(self) -> None:
        """Boot, and return when it takes commands.

        Raises:
            GuestFailed: it did not come up within two minutes.
        """
        try:
            self._start_all()
            _, (word, _) = self._until_word("the end of booting", BOOT_LIMIT_S)
        except BaseException:
            self.cut_power()
            raise
        assert word == b"ready"

    def cut_power(self) -> None:
        """Switch it off as a power cut does: everything in its memory is gone. What is off already stays off."""
        self._power.close()
        self._heard = b""

    def run(
        self,
        script: str,
        *,
        check: bool = True,
        limit_s: float = RUN_LIMIT_S,
        listen: Callable[[bytes], object] | None = None,
    ) -> Finished:
        """Run a script of bash and return what came of it; `listen` gets the output as it comes.

        What the script leaves running must have its output elsewhere. One script runs at a time.

        Raises:
            GuestFailed: it exited with another code than 0 and `check` is set, or the guest went down meanwhile.
            TimeoutError: it still ran after `limit_s`.
        """
        self._channel.sendall(script.encode() + b"\0")
        output, (word, rest) = self._until_word(f"the end of {script[:80]!r}", limit_s, listen)
        assert word == b"done"
        finished = Finished(code=int(rest), output=output)
        if check and finished.code:
            raise GuestFailed(f"exit code {finished.code} of {script!r}:\n{finished.text[-_TAIL:]}")
        return finished

    def fetch_files(self, folder: str, into: Path) -> None:
        """Copy the files of one of the guest's folders to the host."""
        packed = self.run(f"tar -C {shlex.quote(folder)} -cf - .").output
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12's Python 3.11.2 has none
            archive.extractall(into)

    def tail(self) -> str:
        """Return the end of what the kernel and the scripts said."""
        texts = [path.read_text(errors="replace") for path in (self._console, self._log) if path.exists()]
        return "\n".join(text[-_TAIL:] for text in texts)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut_power()

    def _start_all(self) -> None:
        """Start the file server and QEMU."""
        self._said = self._power.enter_context(self._log.open("ab"))
        files = self._serve_files()
        self._channel, channel = socket.socketpair()
        self._power.enter_context(self._channel)
        settings = f"{_SETTINGS} og_modules={self._kernel.modules} og_start={_START} og_token={self._token}"
        if self._install is not None:
            settings += f" og_install={self._install}"
        memory = f"{self._memory_mb}M"
        options = [
            *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", memory),
            *("-M", "q35,memory-backend=memory", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-object", f"memory-backend-memfd,id=memory,size={memory},share=on"),  # the file server works in there
            *("-kernel", str(self._kernel.image), "-initrd", str(self._kernel.first_root), "-no-reboot"),
            *("-append", f"{settings} og_path={os.environ['PATH']}"),
            *("-chardev", f"file,id=console,path={self._console},append=on", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=channel,fd={channel.fileno()}", "-device", "virtio-serial-pci"),
            *("-device", "virtserialport,chardev=channel,nr=1"),
            *("-chardev", f"socket,id=files,fd={files.fileno()}"),
            *("-device", "vhost-user-fs-pci,chardev=files,tag=host"),
        ]
        if self._disk is not None:
            disk = f"if=none,id=disk,format=raw,file={self._disk}"
            options += ["-drive", disk, "-device", "virtio-blk-pci,drive=disk"]
        for number, nic in enumerate(self._nics):
            card = f"virtio-net-pci,netdev=net{number},mac={nic.mac},romfile="
            options += ["-netdev", f"tap,id=net{number},fd={nic.tap}", "-device", card]
        with channel, files:  # closed here once QEMU has them, so that its end is the end of the stream
            taps = (nic.tap for nic in self._nics)
            self._start(("qemu-system-x86_64", *options), channel.fileno(), files.fileno(), *taps)

    def _serve_files(self) -> socket.socket:
        """Start the file server, to which the host's root is read-only, and return a connection to it."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{folder}/files")
            listening.listen(1)
            command = (*_READ_ONLY, VIRTIOFSD, "-f", f"--fd={listening.fileno()}", *_FS)
            self._start(command, listening.fileno())
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(f"{folder}/files")
            return connection

    def _start(self, command: Sequence[str], *descriptors: int) -> None:
        """Start a child that is killed when power is cut; what it says goes to the log."""
        child = subprocess.Popen(
            (*_TIED, *command), stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said, pass_fds=descriptors
        )
        self._power.callback(child.wait)
        self._power.callback(child.kill)

    def _until_word(
        self, what: str, limit_s: float, listen: Callable[[bytes], object] | None = None
    ) -> tuple[bytes, tuple[bytes, bytes]]:
        """Return what the guest said before its agent's next word, and that word with what belongs to it.

        Raises:
            GuestFailed: it is gone.
            TimeoutError: there was no word within the limit; the message says `what` was waited for.
        """
        word = re.compile(self._token.encode() + rb" (\w+) (\S+)\n")
        end, shown = time.monotonic() + limit_s, 0
        while not (found := word.search(self._heard)):
            self._hear(what, end)
            safe = max(shown, len(self._heard) - 2 * len(self._token))  # behind this a word may have begun
            if listen is not None:
                listen(self._heard[shown:safe])
            shown = safe
        output, self._heard = self._heard[: found.start()], self._heard[found.end() :]
        if listen is not None:
            listen(output[shown:])
        return output, (found[1], found[2])

    def _hear(self, what: str, end: float) -> None:
        """Take what the guest says next."""
        self._channel.settimeout(max(0.01, end - time.monotonic()))
        try:
            heard = self._channel.recv(1 << 16)
        except TimeoutError:
            raise TimeoutError(f"not in time: {what}\n{self.tail()}") from None
        if not heard:
            raise GuestFailed(f"the guest is gone, before {what}\n{self.tail()}")
        self._said.write(heard)
        self._said.flush()
        self._heard += heard


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line in a guest, in the caller's directory, and return its exit code."""
    parser = argparse.ArgumentParser(prog="tests.vm.machine", description="Run a command under Debian's kernel.")
    parser.add_argument("command", help="a line for bash")
    parser.add_argument("--files", type=Path, metavar="DIRECTORY", help="gets what the command writes to $OUT")
    parser.add_argument("--memory", type=int, default=2048, metavar="MB")
    parser.add_argument("--limit", type=float, default=600.0, metavar="SECONDS")
    wanted = parser.parse_args(arguments)

    def show(output: bytes) -> None:
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()

    script = f"mkdir -p /run/out; export OUT=/run/out; cd {shlex.quote(str(Path.cwd()))}; {wanted.command}"
    with tempfile.TemporaryDirectory() as place, Machine(Path(place), memory_mb=wanted.memory) as machine:
        code = machine.run(script, check=False, limit_s=wanted.limit, listen=show).code
        if wanted.files:
            machine.fetch_files("/run/out", wanted.files)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Unavailable, GuestFailed, TimeoutError) as error:
        sys.exit(f"vm: {error}")

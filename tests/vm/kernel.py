"""The guest's kernel: Debian's cloud kernel, downloaded once, never installed, and a first root that mounts the host's.

Both lie in `$XDG_CACHE_HOME/outgate-vm` (27 MB to download, 110 MB unpacked). The cloud flavour has as modules all
link types that outgate deals with, and virtiofs; it lacks 9p. Whatever keeps a guest from being had is `Unavailable`.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

VIRTIOFSD = "/usr/lib/qemu/virtiofsd"  # of qemu-system-common; Debian keeps it out of PATH

_PACKAGE = "linux-image-cloud-amd64"  # depends on the image of the current version
_INIT = Path(__file__).parent / "guest" / "init.sh"
_FIRST_MODULES = ("virtio_pci", "virtio_console", "virtiofs", "overlay")  # the rest comes from the root, when asked for
_PROGRAMS = {  # and the Debian package that has it
    "qemu-system-x86_64": "qemu-system-x86",
    VIRTIOFSD: "qemu-system-common",
    "busybox": "busybox-static",
    "modprobe": "kmod",
    "mke2fs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}
_DOWNLOAD_LIMIT_S = 300.0


class Unavailable(Exception):
    """There can be no guest on this machine; the message names what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What a guest boots: an image, the modules that belong to it, and the first root as a cpio archive."""

    image: Path
    modules: Path
    first_root: Path

    @property
    def release(self) -> str:
        """The version as `uname -r` has it."""
        return self.modules.name


def fetch() -> Kernel:
    """Return the kernel from the cache, after downloading it if there is none.

    Raises:
        Unavailable: a program is missing, or the package can not be had.
    """
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is missing (Debian package {package})")
    if platform.machine() != "x86_64":
        raise Unavailable(f"the guest is an x86_64 machine, this one is {platform.machine()}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outgate-vm"
    cache.mkdir(parents=True, exist_ok=True)
    tree = next(iter(sorted(cache.glob("linux-image-*"), reverse=True)), None) or _download(cache)
    modules = next((tree / "lib/modules").iterdir())
    first_root = cache / f"first-root-{modules.name}-{hashlib.sha256(_INIT.read_bytes()).hexdigest()[:12]}.cpio"
    if not first_root.exists():
        _pack(modules, first_root)
    return Kernel(image=tree / "boot" / f"vmlinuz-{modules.name}", modules=modules, first_root=first_root)


def _download(cache: Path) -> Path:
    """Download and unpack the kernel's package, and return where; it appears there whole or not at all."""
    package = _image() or _image(after_update=True)
    if package is None:
        raise Unavailable(f"apt knows no {_PACKAGE}")
    place = cache / package
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        _call(("apt-get", "-q", "download", package), cwd=scratch)
        archive = next(Path(scratch).glob("*.deb"))
        unpacked = Path(scratch, "unpacked")
        _call(("dpkg-deb", "--extract", str(archive), str(unpacked)))
        _call(("depmod", "-b", str(unpacked), next((unpacked / "lib/modules").iterdir()).name))
        if not place.exists():  # else somebody was faster
            unpacked.rename(place)
    return place


def _image(*, after_update: bool = False) -> str | None:
    """Return the name of the package that the flavour's package depends on, None if apt does not know it."""
    if after_update:
        _call(("apt-get", "-q", "update"))
    shown = subprocess.run(("apt-cache", "show", _PACKAGE), check=False, capture_output=True, text=True).stdout
    depends = (line for line in shown.splitlines() if line.startswith("Depends: "))
    for word in next(depends, "").replace(",", " ").split():
        if word.startswith("linux-image-"):
            return word
    return None


def _pack(modules: Path, archive: Path) -> None:
    """Write the first root: a static busybox, the modules that the real root needs, and the script that mounts it."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        root = Path(scratch, "root")
        for folder in ("bin", "modules", "proc", "sys", "dev", "host", "scratch", "new"):
            (root / folder).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
        shutil.copy(_INIT, root / "init")
        (root / "init").chmod(0o755)
        for number, module in enumerate(_in_order(modules)):
            shutil.copy(module, root / "modules" / f"{number:02}-{module.name}")
        names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
        packed = Path(scratch, "packed")
        with packed.open("wb") as file:
            command = ("busybox", "cpio", "-o", "-H", "newc")
            subprocess.run(command, cwd=root, input=names.encode(), stdout=file, stderr=subprocess.DEVNULL, check=True)
        packed.rename(archive)


def _in_order(modules: Path) -> Iterator[Path]:
    """Yield the files of the first modules and of those they need, each once, in the order of loading."""
    seen: set[str] = set()
    for module in _FIRST_MODULES:
        tree = modules.parents[2]
        command = ("modprobe", "-d", str(tree), "-S", modules.name, "--show-depends", module)
        for line in _call(command).splitlines():
            word, _, path = line.strip().partition(" ")
            if word == "insmod" and path not in seen:
                seen.add(path)
                yield Path(path)


def _call(argv: Sequence[str], cwd: str | None = None) -> str:
    """Run a program and return its output.

    Raises:
        Unavailable: it failed; the message has its last words.
    """
    try:
        done = subprocess.run(argv, cwd=cwd, check=False, capture_output=True, text=True, timeout=_DOWNLOAD_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(argv)} took more than {_DOWNLOAD_LIMIT_S:.0f} s") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout

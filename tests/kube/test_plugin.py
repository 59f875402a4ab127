"""`kubectl outgate ...` is `outgate ...`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from outgate.lab.kube import binaries


def test_kubectl_knows_the_plug_in() -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ["env", f"PATH={path}", str(binaries().kubectl)]
    listed = subprocess.run([*words, "plugin", "list"], capture_output=True, text=True, check=True)
    assert "kubectl-outgate" in listed.stdout
    helped = subprocess.run([*words, "outgate", "cluster", "--help"], capture_output=True, text=True, check=True)
    assert "Judge all objects of a cluster" in helped.stdout

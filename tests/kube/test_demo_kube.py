"""`make demo-kube`: the demo, its objects on a real API server."""

from __future__ import annotations

import subprocess
import sys

DEMO = [sys.executable, "-m", "outgate", "demo", "--api-server"]


def test_the_demo_shows_every_sentence_on_a_real_api_server() -> None:
    ran = subprocess.run(DEMO, capture_output=True, text=True, timeout=180, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].startswith("PASSED: every sentence held")
    assert "laboratory and API server up" in ran.stdout


def test_without_an_api_server_it_is_said_how_to_get_one() -> None:
    ran = subprocess.run(
        ["env", "KUBEBUILDER_ASSETS=/nowhere", *DEMO], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 2
    assert "missing in /nowhere" in ran.stderr

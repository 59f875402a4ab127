"""Writing a kubeconfig as people have them: one cluster, one user, one context, files named by path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

Credentials = Mapping[str, object]


def write_kubeconfig(file: Path, *, name: str, server: str, ca: Path, user: Mapping[str, Credentials]) -> Path:
    """Write a kubeconfig whose context and cluster bear `name`, for the one user given, and return the file.

    It is written as JSON within YAML's lines, so that no value needs quoting rules, and appears whole.
    """
    ((person, credentials),) = user.items()
    lines = [
        "apiVersion: v1",
        "kind: Config",
        f"current-context: {json.dumps(name)}",
        "clusters:",
        f"- name: {json.dumps(name)}",
        "  cluster:",
        f"    server: {json.dumps(server)}",
        f"    certificate-authority: {json.dumps(str(ca))}",
        "users:",
        f"- name: {json.dumps(person)}",
        "  user:",
        *(f"    {field}: {json.dumps(str(value))}" for field, value in credentials.items()),
        "contexts:",
        f"- name: {json.dumps(name)}",
        f"  context: {{cluster: {json.dumps(name)}, user: {json.dumps(person)}}}",
        "",
    ]
    fresh = file.with_name(f".{file.name}")
    fresh.touch(mode=0o600)
    fresh.write_text("\n".join(lines))
    return fresh.replace(file)

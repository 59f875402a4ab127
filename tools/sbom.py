"""Writes what outgate is made of, for those who must know: build/outgate.cdx.json, a CycloneDX 1.5 bill of materials
from requirements.lock, each package with its version and the hashes that may be installed. `make sbom`.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WHERE = ROOT / "build" / "outgate.cdx.json"
_PACKAGE = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+) \\$")
_HASH = re.compile(r"--hash=sha256:(?P<hash>[0-9a-f]{64})")


def bill() -> dict[str, Any]:
    """Return the bill of materials.

    Raises:
        ValueError: a line of the lock file is not understood; nothing is left out in silence.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = _locked((ROOT / "requirements.lock").read_text())
    whole = {
        "type": "application",
        "bom-ref": "outgate",
        "name": "outgate",
        "version": project["version"],
        "licenses": [{"license": {"id": project["license"]}}],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": whole},
        "components": parts,
        "dependencies": [{"ref": "outgate", "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def _locked(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        package, digest = _PACKAGE.match(line), _HASH.search(line)
        if package is not None:
            purl = f"pkg:pypi/{package['name'].lower()}@{package['version']}"
            found.append({"type": "library", "bom-ref": purl, "purl": purl, **package.groupdict(), "hashes": []})
        elif digest is not None:
            found[-1]["hashes"].append({"alg": "SHA-256", "content": digest["hash"]})
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ValueError(f"requirements.lock: {line!r} is neither a package nor a hash")
    return found


def main() -> int:
    """Write the file and say where it is."""
    WHERE.parent.mkdir(exist_ok=True)
    WHERE.write_text(json.dumps(bill(), indent=2) + "\n")
    print(f"{WHERE.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes what is made from code: deploy/crds/*.yaml and docs/reference/kinds.md from the description of our kinds,
deploy/kustomize/base/rbac.yaml from what the roles do, the templates of the Helm chart from the manifests, and
deploy/monitoring/dashboard.json.

`make docs` runs it. With `--check` nothing is written, and the exit code is 1 when a file is old.
"""

from __future__ import annotations

import sys
from pathlib import Path

from outgate.roles.rights import manifests
from outgate.sources.crd import definitions
from outgate.sources.reference import reference
from outgate.sources.yaml_writer import to_yaml
from tools.chart import chart
from tools.dashboard import dashboard

ROOT = Path(__file__).resolve().parent.parent
_HEAD = "# Made by tools/deploy.py from src/outgate/sources. Change it there.\n"
_RIGHTS_HEAD = "# Made by tools/deploy.py from src/outgate/roles/rights.py. Change it there.\n"


def generated() -> dict[Path, str]:
    """Return the files and what they should hold."""
    crds = {ROOT / "deploy" / "crds" / name: _HEAD + to_yaml(made) for name, made in definitions().items()}
    rights = "---\n".join(to_yaml(one) for one in manifests())
    return crds | {
        ROOT / "docs" / "reference" / "kinds.md": reference(),
        ROOT / "deploy" / "kustomize" / "base" / "rbac.yaml": _RIGHTS_HEAD + rights,
        ROOT / "deploy" / "monitoring" / "dashboard.json": dashboard(),
    }


def charted() -> dict[Path, str]:
    """Return the templates of the Helm chart."""
    return chart(ROOT / "deploy")


def main(*, check: bool) -> int:
    """Write or check all files, name those that were old, and return the exit code."""
    old = 0
    for made in (generated, charted):  # the chart is made of what the first one wrote
        for path, text in made().items():
            if path.exists() and path.read_text() == text:
                continue
            old += 1
            print(f"{path.relative_to(ROOT)}: {'is old: run `make docs`' if check else 'written anew'}")
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))

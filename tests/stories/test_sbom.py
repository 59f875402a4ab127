"""The bill of materials names everything that is installed to run outgate, as it is locked."""

from __future__ import annotations

from importlib.metadata import distribution, requires

from packaging.requirements import Requirement

from tools.sbom import bill


def needed(name: str, seen: set[str]) -> set[str]:
    """Return the names of all that a distribution needs to run here, itself not counted."""
    for line in requires(name) or ():
        wanted = Requirement(line)
        key = wanted.name.lower().replace("_", "-")
        if (wanted.marker is None or wanted.marker.evaluate({"extra": ""})) and key not in seen:
            seen.add(key)
            needed(key, seen)
    return seen


def test_everything_that_runs_is_on_the_bill_in_the_version_that_is_installed() -> None:
    parts = {part["name"].lower().replace("_", "-"): part for part in bill()["components"]}
    assert needed("outgate", set()) <= parts.keys()
    for name in needed("outgate", set()):
        assert parts[name]["version"] == distribution(name).version
        assert parts[name]["hashes"]
        assert parts[name]["purl"] == f"pkg:pypi/{name}@{parts[name]['version']}"

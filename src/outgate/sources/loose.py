"""Objects of kinds that the Intent does not have, as plain dictionaries, from files that also hold much else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from outgate.model.errors import IntentError
from outgate.model.why import Origin
from outgate.sources.files import is_manifest

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield files, and the manifests of directories in the order of their names."""
    for path in paths:
        yield from sorted(one for one in path.iterdir() if is_manifest(one.name)) if path.is_dir() else (path,)


def objects_in(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file, those of lists one by one.

    Raises:
        IntentError: the file can not be read.
    """
    try:
        documents = list(yaml.load_all(file.read_text(encoding="utf-8"), Loader=_LOADER))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise IntentError(f"can not be read: {error}", Origin(file=str(file))) from error
    for document in documents:
        items = document.get("items") if isinstance(document, dict) else None
        yield from (one for one in (items if isinstance(items, list) else [document]) if isinstance(one, dict))

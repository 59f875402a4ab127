"""The daemon sleeps until somebody changes a manifest: with an editor, with mv, through a ConfigMap volume.

The kernel reports by inotify; what matters wakes the daemon, what an editor does for itself does not.
"""

from __future__ import annotations

import select
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.model.errors import NotReady
from outgate.sources.manifests import ManifestSource

LIMIT_S = 10.0


def namespace(name: str) -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"


def names(source: ManifestSource, *, look_at_all: bool = False) -> list[str]:
    return [one.name for one in source.read(look_at_all=look_at_all).namespaces]


def is_told(source: ManifestSource, within_s: float = LIMIT_S) -> bool:
    """Whether the descriptor became readable and the source says that it matters."""
    readable, _, _ = select.select([source], [], [], within_s)
    return bool(readable) and source.changed()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "manifests"
    made.mkdir()
    (made / "a.yaml").write_text(namespace("a"))
    return made


@pytest.fixture
def source(folder: Path) -> Iterator[ManifestSource]:
    made = ManifestSource(folder)
    made.fileno()
    assert names(made) == ["a"]
    yield made
    made.close()


def test_nothing_is_told_while_nothing_happens(source: ManifestSource) -> None:
    assert not source.changed()
    assert not is_told(source, 0)


def test_a_new_a_changed_a_renamed_and_a_removed_file_are_told_and_seen(folder: Path, source: ManifestSource) -> None:
    (folder / "b.yaml").write_text(namespace("b"))
    assert is_told(source)
    assert names(source) == ["a", "b"]

    (folder / "b.yaml").write_text(namespace("c"))
    assert is_told(source)
    assert names(source) == ["a", "c"]

    (folder / ".new").write_text(namespace("d"))
    (folder / ".new").replace(folder / "b.yaml")
    assert is_told(source)
    assert names(source) == ["a", "d"]

    (folder / "b.yaml").unlink()
    assert is_told(source)
    assert names(source) == ["a"]


def test_what_an_editor_writes_for_itself_wakes_nobody(folder: Path, source: ManifestSource) -> None:
    (folder / ".a.yaml.swp").write_text("x")
    (folder / "a.yaml~").write_text("x")

    select.select([source], [], [], LIMIT_S)
    assert not source.changed()


def test_a_config_map_volume_swaps_all_its_files_at_once(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    for version, name in (("..1", "old"), ("..2", "new")):
        (volume / version).mkdir(parents=True)
        (volume / version / "ns.yaml").write_text(namespace(name))
    (volume / "..data").symlink_to("..1")
    (volume / "ns.yaml").symlink_to("..data/ns.yaml")
    source = ManifestSource(volume)
    source.fileno()
    assert names(source) == ["old"]

    (volume / "..data_tmp").symlink_to("..2")
    (volume / "..data_tmp").replace(volume / "..data")

    assert is_told(source)
    assert names(source) == ["new"]
    source.close()


def test_a_directory_that_is_taken_away_is_not_ready_and_is_found_again(folder: Path, source: ManifestSource) -> None:
    shutil.rmtree(folder)
    assert is_told(source)
    with pytest.raises(NotReady):
        source.read(look_at_all=False)

    folder.mkdir()
    (folder / "b.yaml").write_text(namespace("b"))
    assert names(source) == ["b"]
    (folder / "c.yaml").write_text(namespace("c"))
    assert is_told(source)
    assert names(source) == ["b", "c"]


def test_a_directory_that_another_one_replaced_is_watched_in_its_place(
    tmp_path: Path, folder: Path, source: ManifestSource
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.yaml").write_text(namespace("b"))

    folder.rename(tmp_path / "old")
    other.rename(folder)

    assert is_told(source)
    assert names(source) == ["b"]
    (folder / "c.yaml").write_text(namespace("c"))
    assert is_told(source)
    assert names(source) == ["b", "c"]


def test_one_file_is_watched_by_its_name(folder: Path) -> None:
    source = ManifestSource(folder / "a.yaml")
    source.fileno()
    assert names(source) == ["a"]

    (folder / "b.yaml").write_text(namespace("b"))
    select.select([source], [], [], LIMIT_S)
    assert not source.changed()
    (folder / ".new").write_text(namespace("z"))
    (folder / ".new").replace(folder / "a.yaml")

    assert is_told(source)
    assert names(source) == ["z"]
    source.close()


def test_a_link_that_leads_out_of_the_directory_is_seen_by_the_audit(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "elsewhere.yaml").write_text(namespace("before"))
    (folder / "link.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    source = ManifestSource(folder)
    source.fileno()
    assert names(source) == ["a", "before"]

    (tmp_path / "elsewhere.yaml").write_text(namespace("changed-after"))

    assert names(source, look_at_all=True) == ["a", "changed-after"]
    source.close()

"""Writes `gateway.json` from `gateway.nft`, and `node.json` from `node.nft`: what nft makes of the texts, as root.

The text is loaded in a network namespace that ends with this program, and listed with numbers instead of names, so that
neither /etc/protocols nor /etc/iproute2/rt_marks of the machine that loads it has a say. Handles and counts are left
out. With `--check` nothing is written, and the exit code is 1 if a file is old.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from outgate.lab.namespace import Namespace
from outgate.systems.nft.table import constant_part

FOLDER = Path(__file__).resolve().parent.parent / "src" / "outgate" / "systems" / "nft"
NFT = "nft"


def rendered(text: str) -> str:
    """Return the JSON of a ruleset in text, one object a line.

    Raises:
        subprocess.CalledProcessError: nft refuses the text.
    """
    with Namespace("render") as namespace:
        namespace.run((NFT, "-f", "-"), input=text)
        listing = namespace.run((NFT, "-n", "-j", "list", "table", "inet", "outgate")).stdout
    objects = constant_part(msgspec.json.decode(listing)["nftables"])
    lines = ",\n".join(msgspec.json.encode(one).decode() for one in objects)
    return f'{{"nftables": [\n{lines}\n]}}\n'


def main(*, check: bool) -> int:
    """Write or check the files and return the exit code."""
    return max([_one(source, check=check) for source in sorted(FOLDER.glob("*.nft"))])


def _one(source: Path, *, check: bool) -> int:
    target = source.with_suffix(".json")
    text = rendered(source.read_text(encoding="utf-8"))
    old = not target.exists() or target.read_text(encoding="utf-8") != text
    if old and not check:
        target.write_text(text, encoding="utf-8")
    if old:
        print(f"{target.name}: {'is old: run `python -m tools.render_ruleset`' if check else 'written anew'}")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))

# ruff: noqa: T201  # a program, run alone inside an image; its result goes to stdout
"""Counts the bytes of an image, inside it: sizes.py IMAGE BOUND_MB, one JSON object on stdout.

A file counts once, at its length. What is mounted into the running container does not count. Ends
with 1 where the image is larger than its bound; 0 is none.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST = 8
MB = 1_000_000


def parts() -> Iterator[tuple[str, str, int]]:
    """Yield part, name within it, and bytes of every file."""
    home = Path("/opt/sluice")
    packages = next(home.glob("lib/python3*/site-packages"), home)
    device = Path("/usr").stat().st_dev
    seen = set()
    for folder, folders, files in os.walk("/"):
        here = Path(folder)
        folders[:] = [name for name in folders if (here / name).lstat().st_dev == device]
        for name in files:
            file = here / name
            status = file.lstat()
            if status.st_dev != device or status.st_ino in seen:
                continue
            seen.add(status.st_ino)
            if file.is_relative_to(packages):
                yield "packages", file.relative_to(packages).parts[0], status.st_size
            elif file.is_relative_to(home / "share"):
                yield "model", "", status.st_size
            else:
                yield "system", "", status.st_size


def main(image: str, bound_mb: int) -> None:
    """Print the sizes; exit with 1 where they are over the bound."""
    sizes: dict[str, int] = {}
    packages: dict[str, int] = {}
    for part, name, size in parts():
        sizes[part] = sizes.get(part, 0) + size
        if part == "packages":
            packages[name] = packages.get(name, 0) + size
    largest = sorted(packages, key=packages.__getitem__, reverse=True)[:LARGEST]
    total = sum(sizes.values())
    print(
        json.dumps(
            {
                "image": image,
                "bytes": total,
                "bound_bytes": bound_mb * MB or None,
                "parts": sizes,
                "largest_packages": {name: packages[name] for name in largest},
            },
            indent=2,
        )
    )
    if bound_mb and total > bound_mb * MB:
        sys.exit(f"{image} has {total / MB:.0f} MB, its bound is {bound_mb} MB: see its sizes")


main(sys.argv[1], int(sys.argv[2]))

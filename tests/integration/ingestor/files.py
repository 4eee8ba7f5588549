"""Files of a test's root, written and changed."""

import os
from pathlib import Path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def touch_later(path: Path, text: str) -> None:
    """Write the file with a modification time that certainly differs."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    later = max(path.stat().st_mtime_ns, before) + 1_000_000
    os.utime(path, ns=(later, later))

"""Short texts of real files, for lakes of many small files."""

from __future__ import annotations

import itertools
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[3]
_CORPUS = _REPOSITORY.parent / "shared" / "data" / "corpora" / "powershell-docs"
_CHARACTERS = 400


def small_files(count: int) -> dict[str, str]:
    """So many Markdown files in twenty folders, no two alike.

    Each is the beginning of a document of the corpus where that is there, else a paragraph of a
    sample.
    """
    if _CORPUS.is_dir():
        paths = sorted(_CORPUS.rglob("*.md"))
        texts = (path.read_text(errors="replace")[:_CHARACTERS] for path in paths)
    else:
        samples = [
            *(_REPOSITORY / "samples").rglob("*.md"),
            *(_REPOSITORY / "samples").rglob("*.txt"),
        ]
        texts = (
            paragraph[:_CHARACTERS]
            for path in sorted(samples)
            for paragraph in path.read_text().split("\n\n")
            if paragraph.strip()
        )
    chosen = list(itertools.islice(texts, count))
    return {
        f"part-{number % 20:02d}/note-{number:05d}.md": f"# Note {number}\n\n{text}\n"
        for number, text in zip(range(count), itertools.cycle(chosen))
    }

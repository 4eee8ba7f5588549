"""Three short documents that queries can tell apart, for collections of a test's own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from client.indexing import Document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

TEXTS = {
    "doc://renew": "Renew the kerberos ticket with a keytab before it expires.",
    "doc://disk": "The disk is full: add machines or delete snapshots.",
    "doc://queue": "Applications wait in the queue until the scheduler finds room.",
}
_numbers = itertools.count(1)


def unused_name(kind: str = "docs") -> str:
    """A name that no other test of this process has."""
    return f"{kind}-{next(_numbers)}"


async def documents(version: int = 1, texts: Mapping[str, str] = TEXTS) -> AsyncIterator[Document]:
    """The texts as documents of one version."""
    for uri, text in texts.items():
        yield Document(
            uri, text, version, title=uri.upper(), metadata={"year": 2024, "tags": ["x"]}
        )

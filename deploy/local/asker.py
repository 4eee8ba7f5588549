"""Asks one collection a question after the other until it is ended, and tells how each went.

    python asker.py COLLECTION QUESTION…

It is a program of the Python client as a user writes one: it finds the query servers by the
settings in its environment, keeps one client, and repeats nothing itself. Each search is one line
of JSON on stdout; what it must never do is to stop at a failure.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from typing import TYPE_CHECKING

from client.answers import SearchQuery
from client.commands.session import connection, open_client
from common.errors import SluiceError

if TYPE_CHECKING:
    from client.client import SluiceClient

PAUSE_S = 0.05
ANSWER_S = 10.0


async def ask(sluice: SluiceClient, query: SearchQuery) -> dict[str, object]:
    """How one search went: ``ms`` it took, its ``best`` passage, an ``error``."""
    began_s = time.perf_counter()
    degraded: tuple[str, ...] = ()
    best, error = "", ""
    try:
        answer = await sluice.search(query, timeout_s=ANSWER_S)
        degraded = answer.degraded
        if answer.hits:
            best = answer.hits[0].text
        else:
            error = "NO_HITS: an answer without a passage"
    except SluiceError as failure:
        error = f"{failure.code.name}: {failure.message}"
    took_ms = (time.perf_counter() - began_s) * 1_000
    return {"ms": round(took_ms, 1), "degraded": degraded, "best": best, "error": error}


async def ask_for_ever(collection: str, questions: list[str]) -> None:
    """Search until cancelled."""
    async with open_client(connection(None, None)) as sluice:
        for question in itertools.cycle(questions):
            told = await ask(sluice, SearchQuery(question, collection, top_k=3))
            print(json.dumps(told), flush=True)  # noqa: T201  # a program's output
            await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    asyncio.run(ask_for_ever(sys.argv[1], sys.argv[2:]))

"""Quality on judged collections: Sluice with one default beside dense, BM25 and their mix.

Sluice is asked as ``sluice eval`` asks it, through the real services, with the weights that users
get; the baselines rank whole documents in this process, with the same model. Nothing is tuned and
nothing is left out: a collection that loses stands in the table like one that gains.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.ranking_baselines import score
from client.client import SluiceClient
from client.evaluating import metrics
from client.evaluating.asking import Plan, ask_all
from client.evaluating.judged_collection import STATISTICS_WAIT_S, await_statistics, write_corpus
from client.evaluating.judged_set import CORPUS, read_judged_set
from client.local_server import local_server
from common.embedding import EmbeddingSettings, open_embedder
from common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.ranking_baselines import Rankings
    from client.evaluating.judged_set import JudgedSet
    from common.embedding import Embedder

MODE = "fused"
OURS = "ours"
# What ours gains over the better of dense and bm25s.
GAIN = "ours_less_max"
BASELINES = ("dense", "bm25s", "bm25s_plus", "simple")
BASELINES_TOLD = (
    "whole documents cut at the model's length; bm25s over the whole corpus with Snowball stems, "
    "k1 1.2, b .75, bm25s_plus with its longer list of stop words; simple: half dense, half BM25 "
    "by theoretical bounds, over 200 dense candidates with the corpus' statistics"
)
MEASURES = ("ndcg@10", "recall@100")


def run(*, folders: Sequence[Path], quick: bool) -> dict[str, Any]:
    """Measure.

    Args:
        folders: judged collections in BEIR layout, or folders of such.
        quick: the smallest of them only.

    Raises:
        ValueError: no collection, or one is not as the layout says.
    """
    try:
        sets = [read_judged_set(folder) for folder in _collections(folders)]
    except InvalidArgument as error:
        raise ValueError(error.message) from error
    if not sets:
        raise ValueError("name folders in BEIR layout, or folders of such")
    if quick:
        sets = [min(sets, key=lambda judged: judged.size)]
    return asyncio.run(_measure(sets))


def markdown(result: dict[str, Any]) -> str:
    """The result as tables for a page."""
    names = (*BASELINES, OURS)
    rows = [*result["collections"].items(), ("mean", result["mean"])]
    quality = [
        (name, *_short(found, "ndcg@10"), f"{found['max_of_both']:.3f}", f"{found[GAIN]:+.3f}")
        for name, found in rows
    ]
    found_at_all = [(name, *_short(found, "recall@100")) for name, found in rows]
    return "\n".join(
        (
            f"nDCG@10, {result['embedder']}:",
            "",
            *_table(("collection", *names, "max(dense, bm25s)", "ours - max"), quality),
            "",
            "recall@100:",
            "",
            *_table(("collection", *names), found_at_all),
        )
    )


def _short(found: dict[str, Any], measure: str) -> list[str]:
    return [f"{found[name][measure]:.3f}" for name in (*BASELINES, OURS)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cells)} |"


def _collections(folders: Iterable[Path]) -> list[Path]:
    found = []
    for folder in folders:
        if (folder / CORPUS).is_file():
            found.append(folder)
        else:
            found += sorted(path.parent for path in folder.glob(f"*/{CORPUS}"))
    return found


async def _measure(sets: Sequence[JudgedSet]) -> dict[str, Any]:
    embedder = open_embedder(EmbeddingSettings())
    try:
        collections = {judged.name: await _collection(judged, embedder) for judged in sets}
    finally:
        await embedder.aclose()
    return {
        "mode": MODE,
        "embedder": f"{embedder.spec.model} {embedder.spec.variant}",
        "collections": collections,
        "mean": _means(list(collections.values())),
        "baselines": BASELINES_TOLD,
    }


async def _collection(judged: JudgedSet, embedder: Embedder) -> dict[str, Any]:
    _say(f"ranking: {judged.name}, baselines of {judged.size} documents")
    rankings = (await score(judged, embedder)).rankings()
    found: dict[str, Any] = {name: _judge(judged, rankings[name]) for name in BASELINES}
    _say(f"ranking: {judged.name}, {len(judged.queries)} queries through the services")
    found |= await _ours(judged)
    best = max(found["dense"]["ndcg@10"], found["bm25s"]["ndcg@10"])
    return found | {
        "documents": judged.size,
        "queries": len(judged.queries),
        "max_of_both": best,
        GAIN: round(found[OURS]["ndcg@10"] - best, 4),
    }


async def _ours(judged: JudgedSet) -> dict[str, Any]:
    """What ``sluice eval`` gives, from a server of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        async with (
            local_server(Path(folder), environ=environ) as address,
            SluiceClient(address) as client,
        ):
            written = await write_corpus(client, judged, _progress)
            counted = await await_statistics(
                client, judged, written, wait_s=STATISTICS_WAIT_S, progress=_progress
            )
            asked = (await ask_all(client, judged, written, Plan((MODE,)), _progress))[MODE]
    return {
        OURS: _judge(judged, [one.documents for one in asked]),
        "corpus_statistics": counted.whole,
        "chunks": counted.version.chunks,
        "degraded": dict(Counter(why for one in asked for why in one.degraded)),
    }


def _judge(judged: JudgedSet, rankings: Rankings) -> dict[str, float]:
    pairs = list(zip(rankings, judged.queries, strict=True))
    return {
        "ndcg@10": _mean([metrics.ndcg(ranking, query.grades, 10) for ranking, query in pairs]),
        "recall@100": _mean(
            [metrics.recall(ranking, query.grades, 100) for ranking, query in pairs]
        ),
    }


def _means(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {
        name: {measure: _mean([one[name][measure] for one in found]) for measure in MEASURES}
        for name in (*BASELINES, OURS)
    }
    best = _mean([one["max_of_both"] for one in found])
    return means | {
        "max_of_both": best,
        GAIN: round(means[OURS]["ndcg@10"] - best, 4),
        "simple_less_max": round(means["simple"]["ndcg@10"] - best, 4),
        "worst": min(one[GAIN] for one in found),
    }


def _mean(values: Sequence[float]) -> float:
    return round(math.fsum(values) / len(values), 4)


def _progress(what: str, done: int, of: int) -> None:
    """Nothing: a line for every query would be too much."""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

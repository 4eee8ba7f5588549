"""An evaluation of four queries whose figures can be worked out by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from client.evaluating.asking import Asked
from client.evaluating.figures import Evaluation, figures
from client.evaluating.judged_set import read_judged_set

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "</title><script>alert(1)</script>\x1b]0;owned\x07"
NDCG = {"dense": (0.0, 0.5, 1.0, 0.75), "fused": (1.0, 0.5, 0.25, 1.0)}


def asked(ndcg, call_ms, *, documents=("d1", "d2"), degraded=(), **stages):
    ranking = tuple((document, 1 / rank) for rank, document in enumerate(documents, start=1))
    return Asked(ranking, ndcg, ndcg / 2, 0.5, 1.0, call_ms, stages, degraded)


def data_set(folder: Path):
    """Four queries with the relevant documents d1 to d4; d4 is not in the corpus."""
    (folder / "qrels").mkdir(parents=True)
    rows = {
        "corpus.jsonl": [
            {"_id": "d1", "title": f"Title {EVIL}", "text": "one"},
            {"_id": "d2", "text": "A text without a title. " * 20},
            {"_id": "d3", "title": "Third", "text": "three"},
        ],
        "queries.jsonl": [
            {"_id": "q1", "text": f"why {EVIL}"},
            {"_id": "q2", "text": "who"},
            {"_id": "q3", "text": "where"},
            {"_id": "q4", "text": "when"},
        ],
    }
    for name, lines in rows.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "qrels/test.tsv").write_text(
        "q1\td1\t2\nq1\td4\t1\nq2\td2\t1\nq3\td3\t1\nq4\td1\t1\nq4\td2\t0\n"
    )
    return read_judged_set(folder)


def evaluation(folder: Path, modes=NDCG, **changed) -> Evaluation:
    """Dense and fused over that data set; fused takes twice as long and reranks."""
    answers = {
        mode: tuple(
            asked(
                value,
                10.0 * (place + 1) * (1 + index),
                documents=("d2", "d1") if mode == "dense" else ("d1", "d3"),
                degraded=("stale_route",) if mode == "fused" and index == 3 else (),
                retrieve=2.0 * (index + 1),
                **({} if mode == "dense" else {"rerank": 0.5, "assemble": 1.0}),
            )
            for index, value in enumerate(ndcg)
        )
        for place, (mode, ndcg) in enumerate(modes.items())
    }
    found = {
        "judged": data_set(folder),
        "modes": figures(answers, lambda _: 200),
        "asked": answers,
        "statistics": "corpus",
        "settings": {"when": "2026-01-02T03:04:05+00:00", "embedder": f"mini {EVIL}"},
        "notes": ("bm25 ranked the whole corpus by words alone",),
    }
    return Evaluation(**{**found, **changed})

"""What an evaluation was measured with, in words: figures mean nothing without it.

Names of machines, users and folders stay out: a report is shown to others.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from client.evaluating import bootstrap
from client.evaluating.asking import MODES, MOST_CANDIDATES, WARM_UP_QUERIES
from client.evaluating.figures import degradations
from client.quantities import count, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from client.evaluating.asking import Plan
    from client.evaluating.figures import ModeFigures
    from client.evaluating.judged_collection import Counted, Written
    from client.evaluating.judged_set import JudgedSet


def settings(
    judged: JudgedSet, written: Written, counted: Counted, plan: Plan, *, now: datetime, own: bool
) -> dict[str, str]:
    """Each setting by its name.

    Args:
        judged: what was asked.
        written: where the corpus is.
        counted: the version and how it ranked a first query.
        plan: how queries were asked.
        now: when.
        own: whether the server was started for this evaluation alone.
    """
    version, explained = counted.version, counted.explanation
    embedder = version.embedder
    candidates: dict[int, str] = {}
    for mode in plan.modes:
        many = plan.candidates(mode)
        candidates[many] = f"{candidates[many]}, {mode}" if many in candidates else mode
    return {
        "when": now.isoformat(timespec="seconds"),
        "sluice": installed_version("sluice"),
        "machine": _machine(),
        "server": "started for this evaluation, on the same machine" if own else "a running one",
        "collection": f"{written.collection}, index version {version.number}",
        "corpus": f"{number(judged.size, 'document')}, SHA-256 {judged.digest[:12]}…",
        "chunks": f"{count(version.chunks)}, of {version.chunk_tokens} tokens at most that share"
        f" {version.overlap_tokens}, cut by {version.splitter}",
        "embedder": f"{embedder.model} {embedder.variant}, {embedder.dimension} dimensions",
        "judgements": f"split {judged.split}, nDCG gain 2^grade - 1",
        "ranking": f"k1 {explained.k1:g}, b {explained.b:g}, title {explained.title:g}, proximity"
        f" {explained.proximity:g}, {explained.normalisation.replace('_', '-')}",
        "words counted over": f"{number(explained.statistics_chunks, 'chunk')} "
        + ("of the index version" if explained.corpus_statistics else "that are candidates"),
        "timed": "calls for 10 passages, what a search gets that names no number",
        "scored": f"{plan.depth} passages of each query, near duplicates by themselves",
        "candidates": ", ".join(
            f"{many:,} of each query" if len(candidates) == 1 else f"{many:,} ({modes})"
            for many, modes in candidates.items()
        ),
        "asked": f"{number(plan.concurrency, 'query')} at a time after"
        f" {min(WARM_UP_QUERIES, len(judged.queries))} to warm up, the modes in turn",
        "intervals": f"{bootstrap.LEVEL:.0%}, percentile bootstrap over the queries, paired,"
        f" {bootstrap.RESAMPLES:,} resamples, seed {bootstrap.SEED}",
    }


def notes(
    judged: JudgedSet, counted: Counted, plan: Plan, modes: Mapping[str, ModeFigures]
) -> Iterable[str]:
    """What a reader must know of the figures."""
    yield from judged.notes
    by_words = [mode for mode in plan.modes if MODES[mode] == "lexical"]
    chunks = counted.version.chunks or 0
    for mode in by_words:
        if chunks <= MOST_CANDIDATES:
            yield f"{mode} ranked the whole corpus by words alone"
        else:
            yield (
                f"{mode} ranked by words alone the {MOST_CANDIDATES:,} chunks nearest by meaning,"
                f" of {chunks:,}: all that a query may take"
            )
    if not counted.whole and any(mode != "dense" for mode in plan.modes):
        stands = "as they were counted before its last writes"
        if not counted.explanation.corpus_statistics:
            stands = "of the candidates of each query: the server had none of the index version"
        yield f"candidate statistics: words were weighed by frequencies {stands}"
    yield from degradations(modes)


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{number(cores, 'core')} of {_processor()}, {system}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "an unknown processor")

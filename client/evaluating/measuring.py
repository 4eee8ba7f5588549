"""A whole evaluation: the corpus indexed, its queries asked, what came back put into figures.

The one place that knows the order of it. Nothing is printed, and no file is written.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from client.evaluating.asking import MODES, ask_all
from client.evaluating.conditions import notes, settings
from client.evaluating.figures import Evaluation, figures
from client.evaluating.judged_collection import STATISTICS_WAIT_S, await_statistics, write_corpus

if TYPE_CHECKING:
    from client.client import SluiceClient
    from client.evaluating.asking import Plan
    from client.evaluating.judged_collection import Progress
    from client.evaluating.judged_set import JudgedSet


async def measure(
    client: SluiceClient,
    judged: JudgedSet,
    plan: Plan,
    progress: Progress,
    *,
    wait: bool,
    own: bool,
) -> Evaluation:
    """Evaluate every mode of the plan.

    Args:
        client: open.
        judged: corpus, queries and grades.
        plan: how queries are asked.
        progress: told of every document and query.
        wait: until the corpus's words are counted, where a mode ranks by words.
        own: whether the server was started for this alone.

    Raises:
        FailedPrecondition: the server lacks a mode, rejected a document, or holds others.
        SluiceError: as a search ends.
    """
    now = datetime.now(UTC)
    modes = {mode: MODES[mode] for mode in plan.modes}
    written = await write_corpus(client, judged, progress, modes)
    waits = wait and any(mode != "dense" for mode in plan.modes)
    counted = await await_statistics(
        client, judged, written, wait_s=STATISTICS_WAIT_S if waits else 0, progress=progress
    )
    asked = await ask_all(client, judged, written, plan, progress)
    found = figures(asked, plan.candidates)
    return Evaluation(
        judged=judged,
        modes=found,
        asked=asked,
        statistics="corpus" if counted.explanation.corpus_statistics else "candidates",
        settings=settings(judged, written, counted, plan, now=now, own=own),
        notes=tuple(notes(judged, counted, plan, found)),
    )

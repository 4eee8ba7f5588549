"""Answers as a person reads them, on a terminal or in a pipe.

Everything is built as ``rich`` text, never as markup, and every string from a server is made
printable first. Nothing here is for programs: they ask for JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from client.passage import excerpt, printable, readable_source, shortened
from client.quantities import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TextIO

    from rich.console import RenderableType

    from client.answers import Duplicate, Explanation, Hit, SearchResponse, StageTiming
    from common.doctor import Check

PASSAGE_LINES = 4
MAX_WIDTH = 100
BAR_CELLS = 24
# Duplicates named under a hit; what remains is counted.
MOST_PLACES = 3
# Cells that all parts of a score need.
_ALL_PARTS = 66
_EIGHTHS = " ▏▎▍▌▋▊▉"
_DEGRADED = {
    "rerank_skipped": "time was short: ordered by meaning alone; allow a longer deadline",
    "stale_route": "the coordinator does not answer: the last known index version answered",
    "cross_encoder_cut": "time was short: the cross-encoder scored fewer passages than it was to;"
    " allow a longer deadline",
}


def open_console(file: TextIO | None = None, *, stderr: bool = False) -> Console:
    """A console that interprets nothing in what it prints; colours only on a terminal."""
    return Console(file=file, stderr=stderr, markup=False, highlight=False, emoji=False)


def search_answer(
    response: SearchResponse, *, explain: bool, width: int, base: Path | None = None
) -> RenderableType:
    """A whole answer.

    Args:
        response: as the client got it.
        explain: add the parts of each score, the plan and the stages.
        width: cells of a line.
        base: local files below it are named from there; the working directory by default.
    """
    width = min(width, MAX_WIDTH)
    base = base or Path.cwd()
    blocks: list[RenderableType] = []
    for hit in response.hits:
        blocks += [_hit(hit, width=width, base=base), Text()]
    if not response.hits:
        blocks += [Text("No passage was found; is the collection empty or the filter narrow?")]
    if explain:
        blocks += _explained(response, width)
    blocks += [Text(f"note: {_DEGRADED.get(why, why)}", "yellow") for why in response.degraded]
    blocks.append(Text(_footer(response), "dim"))
    return Constrain(Group(*blocks), width)


def _hit(hit: Hit, *, width: int, base: Path) -> RenderableType:
    margin = 4
    room = width - margin
    source = readable_source(hit.source_uri, base=base)
    page = f" · p. {hit.page}" if hit.page else ""
    if hit.merged_chunk_ids:
        page += f" · {len(hit.merged_chunk_ids)} passages joined"
    title = printable(hit.title) or source.rpartition("/")[2]
    score = f"{hit.score:.3f}"
    head = Table.grid(expand=False, padding=0)
    head.add_column(width=margin)
    head.add_column(width=room - len(score) - 2, no_wrap=True, overflow="ellipsis")
    head.add_column(width=len(score) + 2, justify="right")
    head.add_row(Text(f"{hit.rank}."), Text(title, "bold"), Text(score, "cyan"))
    place = Text(shortened(source, room - len(page)) + page, "green", no_wrap=True)
    passage = excerpt(hit.text, hit.highlights, width=room, lines=PASSAGE_LINES)
    blocks = [place, passage]
    if hit.duplicates:
        blocks.append(Text(_also_in(hit.duplicates, room, base), "dim"))
    return Group(head, Padding(Group(*blocks), (0, 0, 0, margin), expand=False))


def _also_in(places: Sequence[Duplicate], room: int, base: Path) -> str:
    """Where the text stands once more; each document once, a line each."""
    sources = list(dict.fromkeys(readable_source(place.source_uri, base=base) for place in places))
    lead, indent = "also in: ", " " * len("also in: ")
    lines = [shortened(source, room - len(lead)) for source in sources[:MOST_PLACES]]
    if len(sources) > MOST_PLACES:
        lines.append(f"… and {len(sources) - MOST_PLACES} more")
    return lead + f"\n{indent}".join(lines)


def _footer(response: SearchResponse) -> str:
    parts = [f"index version {response.index_version}", f"{response.server_ms:.1f} ms"]
    if response.explanation:
        candidates = response.explanation.candidates
        parts.append(f"{candidates} candidate{'' if candidates == 1 else 's'}")
        parts.append(response.explanation.rerank.replace("_", "-"))
        if response.cross_encoded:
            parts[-1] += f" over {response.cross_encoded}"
    return " · ".join(parts)


def _explained(response: SearchResponse, width: int) -> list[RenderableType]:
    blocks: list[RenderableType] = []
    if any(hit.parts for hit in response.hits):
        by_words = response.explanation is None or response.explanation.rerank != "dense"
        blocks += [_scores(response.hits, width, words=by_words), Text()]
    if response.explanation:
        blocks += [_plan(response.explanation), Text()]
    if response.timings:
        blocks += [_stages(response.timings), Text()]
    return blocks


def _scores(hits: Iterable[Hit], width: int, *, words: bool) -> Table:
    """A line for each hit; what the title and nearness added stands there where there is room."""
    scored = [(hit, hit.parts) for hit in hits if hit.parts]
    crossed = any(parts.cross_encoder is not None for _, parts in scored)
    added = width >= _ALL_PARTS + (7 if crossed else 0)
    names = ["hit", "score", "cosine"]
    if words:
        names += ["meaning", "BM25", *(("title", "near") if added else ()), "words"]
    names += ["cross"] if crossed else []
    table = plain_table()
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("rank by meaning", justify="right")
    for hit, parts in scored:
        cells = [str(hit.rank), f"{hit.score:.3f}", f"{parts.similarity:.3f}"]
        if words:
            cells += [f"{parts.dense:.3f}", f"{parts.bm25:.2f}"]
            cells += [f"{parts.title:.2f}", f"{parts.proximity:.2f}"] if added else []
            cells.append(f"{parts.lexical:.3f}")
        if crossed:
            cells.append("" if parts.cross_encoder is None else f"{parts.cross_encoder:.2f}")
        table.add_row(*cells, str(parts.dense_rank))
    return table


def _plan(explanation: Explanation) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold", style="dim")
    for name, said in _planned(explanation):
        table.add_row(Text(name), Text(said))
    return table


def _planned(explanation: Explanation) -> Iterator[tuple[str, str]]:
    yield "terms", " ".join(map(printable, explanation.terms)) or "none"
    mixed = explanation.rerank in {"fused", "cross_encoder"}
    if mixed:
        yield "score", f"{explanation.alpha:.3g} · meaning + {1 - explanation.alpha:.3g} · words"
        scale = explanation.normalisation.replace("_", "-")
        yield "meaning", f"cosine, scaled over the candidates ({scale})"
    if explanation.rerank != "dense":
        weights = f"k1 {explanation.k1:g}, b {explanation.b:g}"
        weights += f", title weight {explanation.title:g}"
        weights += f", proximity weight {explanation.proximity:g}"
        yield "words", f"BM25 ({weights}){', scaled likewise' if mixed else ''}"
        if explanation.statistics_chunks:
            counted = number(explanation.statistics_chunks, "chunk")
            whole = f"in {counted} of the index version"
            yield (
                "counted",
                whole if explanation.corpus_statistics else f"in the candidates, {counted}",
            )
    if explanation.rerank == "cross_encoder":
        yield "order", "the first by the cross-encoder, the others by the score"
    if explanation.store_filter:
        yield "filter", printable(explanation.store_filter)


def _stages(timings: Sequence[StageTiming]) -> Table:
    longest = max(timing.duration_ms for timing in timings)
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for timing in timings:
        share = timing.duration_ms / longest if longest > 0 else 0.0
        bar = Text(_bar(share), "blue")
        table.add_row(Text(printable(timing.stage)), bar, Text(f"{timing.duration_ms:.2f} ms"))
    return table


def _bar(share: float) -> str:
    """A bar of up to ``BAR_CELLS`` cells, in eighths of a cell."""
    full, rest = divmod(round(share * BAR_CELLS * 8), 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(BAR_CELLS)


def findings(checks: Sequence[Check]) -> RenderableType:
    """What the doctor found; a cure stands under its fault."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark = Text("ok", "green") if check.ok else Text("fault", "bold red")
        said = Text(printable(check.detail))
        if check.cure:
            said.append(f"\n→ {printable(check.cure)}", "yellow")
        table.add_row(mark, Text(printable(check.name)), said)
    return table


def plain_table() -> Table:
    """A table of aligned columns without lines."""
    return Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)

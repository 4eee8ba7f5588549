"""An evaluation as one page of HTML, for people to read and to hand on.

It stands by itself: no script, no font, no request, and its policy forbids them. Light or dark as
the reader's system is. Every text that came from a data set is escaped and made printable first.
"""

from __future__ import annotations

from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Final

from client.evaluating import bootstrap, charts
from client.evaluating.figures import MEASURES, verdict
from client.evaluating.page_style import STYLE
from client.passage import printable
from client.quantities import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from client.evaluating.asking import Asked
    from client.evaluating.figures import Difference, Estimate, Evaluation, Times
    from client.evaluating.judged_set import JudgedQuery, JudgedSet

_MOST_QUERIES: Final = 5
_MOST_RELEVANT: Final = 6
_TOP: Final = 3
_MOST_TITLE: Final = 110
_NAMES: Final = {"ndcg@10": "nDCG@10", "recall@100": "recall@100", "mrr@10": "MRR@10"}
_NONE: Final = "\N{EM DASH}"


def page(evaluation: Evaluation) -> str:
    """The whole page; its first mode is what the others are compared with."""
    judged = evaluation.judged
    name = _shown(judged.name)
    titles = _titles(evaluation)
    said = " ".join(verdict(evaluation))
    body = "\n".join(
        [
            f"<header><p>Sluice · evaluation</p><h1>{name}</h1>",
            f"<p class=lead>{_shown(said)}</p>",
            f"<p>{_size(judged)}</p></header>",
            _headline(evaluation),
            _figure(
                "Quality against time",
                charts.quality_by_time(evaluation.modes),
                "Each point is a mode: up is better, left is faster. The upright bar is the"
                f" {bootstrap.LEVEL:.0%} interval of its mean, the level one goes from the median"
                " call to the time that 99 of 100 calls keep to.",
            ),
            _stages(evaluation),
            *(_compared(evaluation, mode, titles) for mode in list(evaluation.modes)[1:]),
            _settings(evaluation),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{name} · Sluice evaluation</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _size(judged: JudgedSet) -> str:
    return f"{number(len(judged.queries), 'judged query')}, {number(judged.size, 'document')}"


def _headline(evaluation: Evaluation) -> str:
    columns = [*_NAMES.values(), f"nDCG@10 minus {evaluation.first}", "p50 ms", "p90 ms", "p99 ms"]
    rows = []
    for mode, figures in evaluation.modes.items():
        gap = figures.difference
        cells = [_estimate(figures.measures[name]) for name in MEASURES]
        cells.append(_estimate(gap.measures["ndcg@10"], signed=True) if gap else _NONE)
        cells += [f"{time:.1f}" for time in figures.call]
        rows.append((_mode(mode), cells))
    notes = "".join(f"<li>{_shown(note)}</li>" for note in evaluation.notes)
    return (
        f"<section><h2>Figures</h2>{_table('Mode', columns, rows)}"
        f"<p class=quiet>Under each mean its {bootstrap.LEVEL:.0%} interval; a difference whose"
        " interval holds 0 may be chance.</p>"
        + (f"<ul class=notes>{notes}</ul>" if notes else "")
        + "</section>"
    )


def _stages(evaluation: Evaluation) -> str:
    modes = evaluation.modes.values()
    rows = [
        (_shown(stage), [_percentiles(figures.stages.get(stage)) for figures in modes])
        for stage in evaluation.stages
    ]
    rows.append(("whole call", [_percentiles(figures.call) for figures in modes]))
    legend = " ".join(_mode(mode) for mode in evaluation.modes)
    return _figure(
        "Where the time goes",
        f"<p class=legend>{legend}</p>{charts.stage_bars(evaluation.modes, evaluation.stages)}",
        "Milliseconds, p50 / p99: the bar is the median, the line goes on to what 99 of 100 calls"
        " keep to. The whole call is as the client sees it, with the way there and back.",
        "<details><summary>The same as a table</summary>"
        f"{_table('ms, p50 / p90 / p99', list(evaluation.modes), rows)}</details>",
    )


def _percentiles(times: Times | None) -> str:
    return " / ".join(f"{time:.2f}" for time in times) if times else _NONE


def _compared(evaluation: Evaluation, mode: str, titles: Mapping[str, str]) -> str:
    gap = evaluation.modes[mode].difference
    if gap is None:
        return ""
    figure = _figure(
        f"{mode} against {evaluation.first}, query by query",
        charts.sorted_differences(gap, mode),
        f"nDCG@10 of each query with {mode} minus that with {evaluation.first}, from the greatest"
        " gain to the greatest loss;"
        f" {number(len(gap.by_query) - gap.better - gap.worse, 'query')} fared alike.",
    )
    lead = f"nDCG@10 with {evaluation.first} → with {mode}; a query opens to what it should find."
    told = [f"<p class=quiet>{_shown(lead)}</p>"]
    for heading, chosen in _extremes(gap):
        queries = "".join(_query(evaluation, mode, index, titles) for index in chosen)
        told.append(f"<h3>{heading}</h3>{queries or '<p class=quiet>None.</p>'}")
    return f"{figure}<section class=queries>{''.join(told)}</section>"


def _extremes(gap: Difference) -> Iterator[tuple[str, list[int]]]:
    """Indices of the queries that won and lost most."""
    order = sorted(range(len(gap.by_query)), key=lambda index: -gap.by_query[index])
    yield "Won most", order[: min(_MOST_QUERIES, gap.better)]
    yield "Lost most", order[::-1][: min(_MOST_QUERIES, gap.worse)]


def _query(evaluation: Evaluation, mode: str, index: int, titles: Mapping[str, str]) -> str:
    query = evaluation.judged.queries[index]
    pair = {name: evaluation.asked[name][index] for name in (evaluation.first, mode)}
    scores = " → ".join(f"{asked.ndcg_at_10:.2f}" for asked in pair.values())
    ranks = {
        name: {document: rank for rank, document in enumerate(asked.documents, start=1)}
        for name, asked in pair.items()
    }
    relevant = _relevant(query)
    rows = [
        (
            f"{_title(titles, document)} <small>{_shown(document)}</small>",
            [str(query.grades[document])] + [str(of.get(document, _NONE)) for of in ranks.values()],
        )
        for document in relevant[:_MOST_RELEVANT]
    ]
    table = _table("Relevant document", ["grade", *(f"rank, {name}" for name in pair)], rows)
    more = len(relevant) - _MOST_RELEVANT
    rest = f"<p class=quiet>… and {more} more.</p>" if more > 0 else ""
    tops = "".join(
        f"<div><h4>First with {_mode(name)}</h4><ol>{_tops(asked, query, titles)}</ol></div>"
        for name, asked in pair.items()
    )
    return (
        f"<details><summary><span>{_shown(query.text)}</span> <b>{scores}</b></summary>"
        f"{table}{rest}<div class=tops>{tops}</div></details>"
    )


def _tops(asked: Asked, query: JudgedQuery, titles: Mapping[str, str]) -> str:
    told = []
    for document in asked.documents[:_TOP]:
        mark = " <b>relevant</b>" if query.grades.get(document, 0) > 0 else ""
        told.append(f"<li>{_title(titles, document)}{mark}</li>")
    return "".join(told)


def _settings(evaluation: Evaluation) -> str:
    told = "".join(
        f"<dt>{_shown(name)}</dt><dd>{_shown(said)}</dd>"
        for name, said in evaluation.settings.items()
    )
    return f"<section><h2>Measured with</h2><dl>{told}</dl></section>"


def _titles(evaluation: Evaluation) -> dict[str, str]:
    """Titles of the documents that the page names, or how their texts begin."""
    wanted: set[str] = set()
    for mode, figures in evaluation.modes.items():
        if figures.difference is None:
            continue
        for _, chosen in _extremes(figures.difference):
            for index in chosen:
                wanted.update(_relevant(evaluation.judged.queries[index])[:_MOST_RELEVANT])
                for name in (evaluation.first, mode):
                    wanted.update(evaluation.asked[name][index].documents[:_TOP])
    return _titles_of(evaluation.judged, wanted)


def _titles_of(judged: JudgedSet, wanted: set[str]) -> dict[str, str]:
    found = (document for document in judged.documents() if document.id in wanted)
    return {
        document.id: printable(document.title) or printable(document.text[: 4 * _MOST_TITLE])
        for document in islice(found, len(wanted))
    }


def _relevant(query: JudgedQuery) -> list[str]:
    """Relevant documents, the best grade first."""
    relevant = [document for document, grade in query.grades.items() if grade > 0]
    return sorted(relevant, key=lambda document: -query.grades[document])


def _title(titles: Mapping[str, str], document: str) -> str:
    title = titles.get(document)
    if title is None:
        return "<i>not in the corpus</i>"
    return escape(title if len(title) <= _MOST_TITLE else f"{title[: _MOST_TITLE - 1]}…")


def _figure(heading: str, drawn: str, caption: str, more: str = "") -> str:
    return (
        f"<section><h2>{_shown(heading)}</h2><figure><div class=plot>{drawn}</div>"
        f"<figcaption>{_shown(caption)}</figcaption></figure>{more}</section>"
    )


def _table(corner: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A table; the names of its rows and its cells are HTML already."""
    head = "".join(f"<th scope=col>{_shown(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th scope=row>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, cells in rows
    )
    return (
        f"<div class=wide><table><thead><tr><th scope=col>{_shown(corner)}</th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _estimate(estimate: Estimate, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, low, high = (f"{value:{sign}.3f}" for value in estimate)
    return f"{mean}<small>{low} to {high}</small>"


def _mode(mode: str) -> str:
    icon = f'<svg class=icon viewBox="-8 -8 16 16" aria-hidden="true">{charts.marker(mode)}</svg>'
    return f"<span class=mode>{icon}{_shown(mode)}</span>"


def _shown(text: str) -> str:
    return escape(printable(text))

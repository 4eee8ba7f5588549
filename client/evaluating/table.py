"""An evaluation as a person reads it on a terminal, from 80 columns on.

Everything is built as ``rich`` text, as in ``client.render``. Nothing here is for programs: they
ask for JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from client.evaluating import bootstrap
from client.evaluating.figures import MEASURES, verdict
from client.passage import printable
from client.quantities import number
from client.render import plain_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from client.evaluating.figures import Estimate, Evaluation

_TO = "\N{EN DASH}"


def table(evaluation: Evaluation) -> RenderableType:
    """The figures of every mode side by side, the times by stage, and what to know of them."""
    judged = evaluation.judged
    head = Text(printable(judged.name), "bold")
    head.append(
        f"  {number(len(judged.queries), 'query')}, {number(judged.size, 'document')}", "not bold"
    )
    blocks: list[RenderableType] = [head, Text(), _qualities(evaluation), Text()]
    blocks += [_times(evaluation), Text(), *map(Text, verdict(evaluation))]
    blocks.append(
        Text(
            f"Below each mean its {bootstrap.LEVEL:.0%} interval over the queries"
            f" ({bootstrap.RESAMPLES:,} resamples, seed {bootstrap.SEED}).",
            "dim",
        )
    )
    blocks += [Text(f"note: {printable(note)}", "yellow") for note in evaluation.notes]
    return Group(*blocks)


def _qualities(evaluation: Evaluation) -> Table:
    shown = plain_table()
    shown.add_column("mode", no_wrap=True)
    for name in (*MEASURES, f"ndcg vs {evaluation.first}", "p50 ms", "p99 ms"):
        shown.add_column(name, justify="right", no_wrap=True)
    for mode, figures in evaluation.modes.items():
        cells = [_with_interval(figures.measures[name]) for name in MEASURES]
        gap = figures.difference
        cells.append(_with_interval(gap.measures["ndcg@10"], signed=True) if gap else Text(""))
        cells += [Text(f"{figures.call.p50:.1f}"), Text(f"{figures.call.p99:.1f}")]
        shown.add_row(Text(mode, "bold"), *cells)
    return shown


def _with_interval(estimate: Estimate, *, signed: bool = False) -> Text:
    sign = "+" if signed else ""
    mean, low, high = (_short(f"{value:{sign}.3f}") for value in estimate)
    style = ""
    if signed and (estimate.low > 0 or estimate.high < 0):
        style = "green" if estimate.low > 0 else "red"
    to = " to " if signed else _TO
    return Text(mean, style).append(f"\n{low}{to}{high}", "dim default")


def _short(figure: str) -> str:
    """Without the zero before the point, as tables of the field print shares."""
    return figure.replace("0.", ".", 1) if figure.lstrip("+-").startswith("0.") else figure


def _times(evaluation: Evaluation) -> Table:
    """Milliseconds of each stage of the server and of the whole call, p50 and p99 of each mode."""
    shown = plain_table()
    shown.add_column("ms, p50 / p99", no_wrap=True)
    for mode in evaluation.modes:
        shown.add_column(mode, justify="right", no_wrap=True)
    for stage in evaluation.stages:
        ran = [figures.stages.get(stage) for figures in evaluation.modes.values()]
        cells = ["" if found is None else f"{found.p50:.2f} / {found.p99:.2f}" for found in ran]
        shown.add_row(Text(printable(stage)), *cells)
    calls = [figures.call for figures in evaluation.modes.values()]
    shown.add_row("whole call", *(f"{call.p50:.2f} / {call.p99:.2f}" for call in calls))
    return shown

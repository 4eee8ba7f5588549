"""What a check or a repair of an index version found, as a person reads it.

Everything is built as ``rich`` text, as in ``client.render``, and reads well from 80 columns on.
Long lists are cut with what is left counted; all of it is in the JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from client.passage import printable, readable_source
from client.quantities import count, number
from client.render import plain_table
from client.render_collections import score_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from client.inspection import Inspection
    from client.manifests import Compared
    from client.verification import DocumentFault, GoldenMiss, Repaired, Verification

MOST_FAULTS = 50
MOST_MISSES = 20
_MOST_NAMES = 3
_INDENT = 2
_OK, _WRONG = "green", "yellow"
_MEANING = {
    "incomplete": "lacks its head or other chunks; must be sent again",
    "diverged": "its chunks differ in version or metadata; must be sent again",
    "surplus": "complete, with chunks of other states besides; a repair deletes them",
}


def inspection(result: Inspection, collection: str, *, repair: bool) -> RenderableType:
    """All that `sluice collections verify` has to say.

    Args:
        result: as it was found and mended.
        collection: its name.
        repair: whether a repair was asked for.
    """
    blocks: list[RenderableType] = []
    if repair:
        blocks += [_faults_found(result.found), _repaired(result.repaired), Text()]
    blocks += [verification(result.verified, collection)]
    if result.verified.faults or result.verified.golden:
        blocks.append(Text())
    blocks += _manifests(result.manifests)
    advice = _advice(result, printable(collection), repair=repair)
    if advice:
        blocks += [Text(), Text(f"→ {advice}")]
    return Group(*blocks)


def verification(result: Verification, collection: str) -> RenderableType:
    """Whether a version is whole, and what is wrong with it."""
    version = result.version
    head = Text(f"version {version.number} of {printable(collection)}", "bold")
    head.append(
        f"  {version.state}, {number(version.documents, 'document')},"
        f" {number(version.chunks, 'chunk')}",
        "not bold",
    )
    blocks: list[RenderableType] = [head]
    if not result.faults:
        blocks.append(Text("every document is complete", _OK))
    blocks += [Text(printable(line), _WRONG) for line in _general(result)]
    if result.faults:
        blocks += [Text(), _faults(result.faults)]
    if result.golden:
        blocks += [Text(), Text("golden queries: ").append_text(score_line(result.golden))]
    return Group(*blocks, *_misses(result.misses))


def _general(result: Verification) -> Iterator[str]:
    """The findings that the tables below them do not show anyway."""
    shown = tuple(f"document {fault.document_id} " for fault in result.faults)
    if result.misses:
        shown = (*shown, 'golden query "')
    for finding in result.findings:
        if not finding.startswith(shown):
            yield finding


def _faults_found(found: Verification) -> RenderableType:
    return _faults(found.faults) if found.faults else Text("the store holds no faults", _OK)


def _faults(faults: Sequence[DocumentFault]) -> RenderableType:
    table = plain_table()
    table.add_column("fault", no_wrap=True)
    table.add_column("surplus", justify="right", no_wrap=True)
    table.add_column("document", overflow="fold")
    for fault in faults[:MOST_FAULTS]:
        name = readable_source(fault.source_uri, base=Path.cwd()) or fault.document_id
        table.add_row(Text(fault.kind, _WRONG), count(fault.surplus_chunks), Text(name))
    kinds = sorted({fault.kind for fault in faults})
    meanings = [Text(f"{kind}: {_MEANING[kind]}", "dim") for kind in kinds if kind in _MEANING]
    return Group(table, *_rest(len(faults) - MOST_FAULTS, "document"), *meanings)


def _misses(misses: Sequence[GoldenMiss]) -> list[RenderableType]:
    blocks: list[RenderableType] = []
    for miss in misses[:MOST_MISSES]:
        head = Text(f"“{printable(miss.query)}”", "bold")
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(Text("missing", _WRONG), _names(miss.missing))
        table.add_row(Text("found", "dim"), _names(miss.found))
        if miss.active_finds:
            table.add_row("", Text("the active version finds all it should", "dim"))
        blocks += [head, Padding(table, (0, 0, 0, _INDENT))]
    return [*blocks, *_rest(len(misses) - MOST_MISSES, "query")]


def _names(names: Sequence[str]) -> Text:
    base = Path.cwd()
    shown = [readable_source(name, base=base) for name in names[:_MOST_NAMES]] or ["nothing"]
    if len(names) > _MOST_NAMES:
        shown.append(f"… and {len(names) - _MOST_NAMES:,} more")
    return Text("\n".join(shown))


def _rest(many: int, what: str) -> list[Text]:
    return [Text(f"… and {number(many, what)} more, in --json", "dim")] if many > 0 else []


def _repaired(repaired: Repaired | None) -> Text:
    if repaired is None:
        return Text("nothing in the store was to be mended")
    said = Text(f"repaired: {number(repaired.deleted_chunks, 'chunk')} deleted")
    if repaired.incomplete_documents:
        lacking = number(repaired.incomplete_documents, "document")
        said.append(f"; {lacking} must be sent again", _WRONG)
    return said


def _manifests(compared: Compared) -> list[RenderableType]:
    report = compared.report
    if report is None:
        style = _WRONG if compared.failed else "dim"
        return [Text(f"manifests: not compared: {printable(compared.note)}", style)]
    said = Text("manifests: ")
    said.append(f"{number(report.files, 'file')} of {number(report.roots, 'root')}")
    if report.agrees:
        return [said.append(" agree with the index", _OK)]
    parts = []
    if report.missing:
        parts.append(f"the index lacks {number(report.missing, 'document')}")
    if report.surplus:
        parts.append(f"{number(report.surplus, 'document')} of the index in no manifest")
    if report.forgotten:
        parts.append(f"{number(report.forgotten, 'file')} to be read again")
    said.append(f"; {', '.join(parts) or 'not as they should be'}", _WRONG)
    return [said, *(Text(f"  {printable(line)}") for line in report.findings)]


def _advice(result: Inspection, collection: str, *, repair: bool) -> str:
    """What to do next; empty where nothing is wrong or nothing can be said."""
    if result.all_right:
        return ""
    report = result.manifests.report
    beside = report is not None and not report.agrees
    if repair and beside:
        return f"the next `sluice ingest` of these roots into {collection} mends the rest"
    if repair and result.to_be_sent:
        return (
            "send these documents again: where they are ingested from, run this repair there"
            " and then `sluice ingest`"
        )
    if not repair and (result.verified.faults or beside):
        number_ = result.verified.version.number
        return f"`sluice collections verify {collection} --version {number_} --repair` mends this"
    return ""

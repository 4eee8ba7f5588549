"""Collections and their index versions, as a person reads them.

Everything is built as ``rich`` text, as in ``client.render``, and reads well from 80 columns on.
Nothing here is for programs: they ask for JSON.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from client.passage import printable
from client.quantities import ago, count, moment, number, rate
from client.render import plain_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from client.versions import (
        Build,
        Collection,
        GoldenScore,
        IndexVersion,
        Verdict,
        WordStatistics,
    )

_INDENT = 2
_STATE_STYLES = {
    "building": "cyan",
    "ready": "yellow",
    "active": "green",
    "retired": "dim",
    "failed": "red",
}


def collection_list(
    collections: Sequence[Collection], *, now: datetime | None = None
) -> RenderableType:
    """One line for each collection."""
    if not collections:
        return Text("No collections yet; `sluice ingest URI --collection NAME` makes one.")
    now = now or datetime.now(UTC)
    table = plain_table()
    table.add_column("collection", overflow="fold")
    for name in ("active", "documents", "chunks", "kept"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("since", no_wrap=True)
    for collection in collections:
        active = collection.active_version
        table.add_row(
            Text(printable(collection.name)),
            str(collection.active.version) if collection.active else Text("none", "yellow"),
            count(active.documents if active else None),
            count(active.chunks if active else None),
            str(len(collection.versions)),
            ago(collection.active.activated_at if collection.active else None, now),
        )
    builds = [line for collection in collections for line in _building(collection)]
    return Group(table, *([Text(), *builds] if builds else []))


def _building(collection: Collection) -> Iterable[Text]:
    """A line for the build under way, and one for each that nobody goes on with."""
    name = printable(collection.name)
    build = collection.build
    if build is not None:
        yield Text(f"{name}: version {build.version} is being built, {_progress(build)}", "cyan")
        yield Text(f"{' ' * _INDENT}by {printable(build.builder)}")
    for version in collection.versions:
        if _abandoned(collection, version):
            yield Text(f"{name}: the build of version {version.number} was abandoned", "yellow")


def _progress(build: Build) -> str:
    """How far a build is and how fast it goes."""
    return (
        f"{number(build.documents, 'document')}, {number(build.chunks, 'chunk')},"
        f" {rate(build.documents_per_s)}"
    )


def collection_detail(collection: Collection, *, now: datetime | None = None) -> RenderableType:
    """One collection with its versions, the newest first, and the build under way."""
    now = now or datetime.now(UTC)
    title = Text(printable(collection.name), "bold")
    if collection.active:
        title.append(
            f"  version {collection.active.version} is active"
            f" (generation {collection.active.generation})",
            "not bold",
        )
    else:
        title.append("  no version is active", "not bold yellow")
    blocks: list[RenderableType] = [title]
    if collection.build:
        blocks += [Text(), _build(collection.build, now)]
    for version in reversed(collection.versions):
        blocks += [Text(), _version(collection, version)]
    return Group(*blocks)


def _build(build: Build, now: datetime) -> RenderableType:
    head = Text(f"Version {build.version} is being built: {_progress(build)}", "cyan")
    who = Text(
        f"by {printable(build.builder)}, since {moment(build.since)};"
        f" last heard of {ago(build.reported_at, now)}"
    )
    return Group(head, Padding(who, (0, 0, 0, _INDENT)))


def _version(collection: Collection, version: IndexVersion) -> Table:
    table = Table.grid(padding=(0, 2))
    # As wide in every version, so that they stand in line.
    table.add_column(no_wrap=True, min_width=len("version 10"))
    table.add_column(no_wrap=True, min_width=len("activated"))
    table.add_column(overflow="fold")
    state = Text(version.state, _STATE_STYLES.get(version.state, ""))
    counts = "not counted yet"
    if version.documents is not None:
        counts = f"{number(version.documents, 'document')}, {number(version.chunks, 'chunk')}"
    table.add_row(Text(f"version {version.number}", "bold"), state, counts)
    for label, said in _facts(collection, version):
        table.add_row("", Text(label, "dim"), said)
    return table


def _facts(collection: Collection, version: IndexVersion) -> Iterable[tuple[str, Text]]:
    """What is known of a version, a label and a line each."""
    if _abandoned(collection, version):
        remove = f"`sluice collections delete {collection.name} --version {version.number}`"
        advice = f"abandoned; it goes by itself, or at once with\n{printable(remove)}"
        yield "", Text(advice, "yellow")
    if version.failure:
        yield "because", Text(printable(version.failure), "red")
    by = f" by {printable(version.builder)}" if version.builder else ""
    yield "created", Text(moment(version.created_at) + by)
    if version.activated_at:
        yield "activated", Text(moment(version.activated_at))
    if version.forced:
        yield (
            "forced",
            Text(f"{moment(version.forced.at)} by {printable(version.forced.by)}", "yellow"),
        )
    if version.retired_at:
        # What failed, or was deleted, bears the time of that here.
        yield "ended" if version.state == "failed" else "retired", Text(moment(version.retired_at))
    if version.verdict:
        yield "verified", _verdict(version.verdict)
        if version.verdict.golden:
            yield "golden", score_line(version.verdict.golden)
    if version.word_statistics:
        yield "words", _words(version.word_statistics, version.chunks)
    yield "embedder", Text(_written_with(version))


def _verdict(verdict: Verdict) -> Text:
    said = Text(f"{moment(verdict.verified_at)}, ")
    if verdict.passed:
        return said.append("passed", "green")
    said.append("fell short", "yellow")
    for finding in verdict.findings:
        said.append(f"\n{printable(finding)}")
    return said


def _words(words: WordStatistics, chunks: int | None) -> Text:
    """What was counted; a count that is not of all chunks is about to be renewed."""
    said = Text(f"{count(words.terms)} in ")
    if words.chunks != chunks:
        said.append(f"{count(words.chunks)} of ", "yellow")
    said.append(number(chunks, "chunk"))
    return said.append(f", {moment(words.counted_at)}")


def score_line(score: GoldenScore) -> Text:
    """What golden queries scored, beside what was wanted and what the active version had."""
    enough = score.candidate >= score.threshold
    said = Text(f"{score.candidate:.3f}", "green" if enough else "bold yellow")
    asked = "1 query" if score.queries == 1 else f"{score.queries:,} queries"
    said.append(f" over {asked}, {score.threshold:.3f} wanted", "default not bold")
    if score.active is not None:
        said.append(f"; version {score.active_version} had {score.active:.3f}", "default not bold")
    return said


def _abandoned(collection: Collection, version: IndexVersion) -> bool:
    built = collection.build.version if collection.build else 0
    return version.state == "building" and version.number != built


def _written_with(version: IndexVersion) -> str:
    embedder = version.embedder
    return printable(
        f"{embedder.model} {embedder.variant}, chunks of {version.chunk_tokens} tokens"
        f" that share {version.overlap_tokens}"
    )

"""Files that make trouble, over a real HDFS: each ends as docs/INGESTING.md says."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import pytest

from common.rpc import GrpcServer, ServerSettings
from ingestor.storage.sources import StorageSource
from tests.integration.hdfs.lake import Lake
from tests.integration.ingestor.conftest import Ingester, Recorder, bindings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ingestor.job.summary import IngestSummary
    from ingestor.state.dead_letters import DeadLetter
    from tests.integration.hdfs.minidfs import MiniDfs

GOOD = {"good/a.md": "# A\n\nA block has three replicas.\n", "good/b.txt": "Heartbeats come.\n"}
MIB = 2**20


class Trial:
    """One lake with two good files, and a job over it."""

    def __init__(self, lake: Lake, recorder: Recorder, ingester: Ingester) -> None:
        self.lake = lake
        self.recorder = recorder
        self.ingester = ingester

    async def run(self, **settings) -> IngestSummary:
        """Run a job; what came of the root."""
        report = await self.ingester(self.lake.uri, **settings)
        return report.roots[0]

    async def letter(self) -> DeadLetter:
        """The only dead letter there is."""
        letters: list[DeadLetter] = await self.ingester.letters()
        assert len(letters) == 1
        return letters[0]

    @property
    def names(self) -> set[str]:
        """Names of what the index holds."""
        return {uri.removeprefix(f"{self.lake.uri}/") for uri in self.recorder.uris()}


@pytest.fixture
async def trial(
    dfs: MiniDfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Trial]:
    for name, value in dfs.environ.items():
        monkeypatch.setenv(name, value)
    lake, recorder = Lake(dfs), Recorder()
    lake.write_all(GOOD)
    async with GrpcServer.open(ServerSettings(listen="127.0.0.1:0"), bindings(recorder)) as server:
        yield Trial(lake, recorder, Ingester(server.address, tmp_path / "state", tmp_path))


async def test_a_broken_pdf_is_a_dead_letter(trial):
    trial.lake.write("broken.pdf", b"%PDF-1.7\n" + b"\x00broken" * 100)
    summary = await trial.run()
    letter = await trial.letter()
    assert (letter.uri, letter.stage, letter.cause) == (
        f"{trial.lake.uri}/broken.pdf",
        "extract",
        "malformed",
    )
    assert (summary.indexed, summary.dead_letters) == (2, 1)


async def test_a_zip_bomb_is_a_dead_letter_and_is_not_expanded(trial):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.txt", b"0" * (300 * MIB))
    trial.lake.write("bomb.zip", bomb.getvalue())
    summary = await trial.run(extraction={"max_expanded_bytes": 64 * MIB})
    letter = await trial.letter()
    assert (letter.stage, letter.cause) == ("extract", "too_large")
    assert (summary.indexed, summary.dead_letters) == (2, 1)


async def test_a_text_file_of_two_gigabytes_is_a_dead_letter_and_is_not_opened(trial):
    lines = b"A block has three replicas, and a name node knows them all.\n" * 2**16
    with trial.lake.client.create(f"{trial.lake.path}/huge.txt") as file:
        for _ in range(2**31 // len(lines) + 1):
            file.write(lines)
    summary = await trial.run()
    letter = await trial.letter()
    assert trial.lake.client.get_file_info(f"{trial.lake.path}/huge.txt").length > 2**31
    trial.lake.delete(["huge.txt"])
    assert (letter.stage, letter.cause) == ("read", "too_large")
    assert (summary.indexed, summary.dead_letters) == (2, 1)
    assert "huge.txt" not in trial.lake.opened()


async def test_a_file_removed_between_listing_and_reading_is_no_fault(trial, monkeypatch):
    read = StorageSource.read

    async def removed(self, entry, max_bytes):
        if entry.path == "good/a.md":
            trial.lake.delete(["good/a.md"])
        return await read(self, entry, max_bytes)

    monkeypatch.setattr(StorageSource, "read", removed)
    summary = await trial.run()
    assert (summary.indexed, summary.dead_letters) == (1, 0)
    assert trial.names == {"good/b.txt"}


async def test_an_unreadable_directory_is_a_dead_letter_and_keeps_what_was_indexed(trial):
    trial.lake.write("closed/c.md", "# C\n\nBefore the door was closed.\n")
    assert (await trial.run()).indexed == 3
    trial.lake.dfs.command("chown", "hdfs", "supergroup", f"{trial.lake.path}/closed")
    trial.lake.dfs.command("chmod", "000", f"{trial.lake.path}/closed")
    summary = await trial.run()
    letter = await trial.letter()
    assert (letter.uri, letter.stage, letter.cause) == (
        f"{trial.lake.uri}/closed",
        "list",
        "permission_denied",
    )
    assert (summary.dead_letters, summary.deleted, summary.unchanged) == (1, 0, 2)
    assert trial.names == {*GOOD, "closed/c.md"}


async def test_stray_bytes_in_a_text_are_replaced_and_counted(trial):
    trial.lake.write("stray.txt", b"A caf\xe9 in Latin-1, and much other text around it.\n")
    assert (await trial.run()).indexed == 3
    (document,) = [
        document
        for document in trial.recorder.documents.values()
        if document.source_uri.endswith("/stray.txt")
    ]
    assert document.content.startswith("A caf\ufffd in Latin-1")
    assert document.metadata["replaced_characters"].int_value == 1


async def test_an_empty_file_is_a_dead_letter_and_its_document_goes(trial):
    trial.lake.write("good/a.md", b"")
    trial.lake.write("good/b.txt", "Heartbeats come.\n")
    summary = await trial.run()
    letter = await trial.letter()
    assert (letter.uri, letter.cause) == (f"{trial.lake.uri}/good/a.md", "no_text")
    assert (summary.indexed, summary.dead_letters) == (1, 1)
    trial.lake.write("good/b.txt", b"")
    assert (await trial.run(allow_empty=True)).deleted == 1
    assert trial.names == set()


async def test_a_name_with_a_newline_and_an_emoji_is_indexed(trial):
    trial.lake.write("two\nlines \N{GLOBE WITH MERIDIANS}#?.md", "# Odd\n\nBut a name.\n")
    assert (await trial.run()).indexed == 3
    assert trial.names == {*GOOD, "two%0Alines%20%F0%9F%8C%90%23%3F.md"}
    again = await trial.run()
    assert (again.unchanged, again.files_opened) == (3, 0)

"""What becomes of a job when another version is activated under it, or the embedder changes."""

from __future__ import annotations

import asyncio

import pytest

from common.errors import (
    FailedPrecondition,
    NotFound,
)
from tests.integration.ingestor.moments import at_document, write

FEW = {"max_unacknowledged_documents": 4, "batch_documents": 2}


class TestSwapsUnderAJob:
    @pytest.mark.parametrize("number", [1, 20])
    async def test_another_round_brings_the_new_version_into_line(
        self, ingester, recorder, caplog, number
    ):
        write(ingester.root, 20)

        def swap() -> None:
            recorder.versions.append(2)
            recorder.version = 2

        at_document(recorder, number, swap)
        report = await ingester(stream=FEW)
        assert (report.target.version, report.rounds, report.to_json()["rounds"]) == (2, 2, 2)
        assert len(recorder.held(2)) == 20
        assert "the next round brings that one into line" in caplog.text
        assert (await ingester()).roots[0].unchanged == 20

    async def test_swaps_without_end_end_the_job(self, ingester, recorder):
        write(ingester.root, 4)

        def swap(_) -> None:
            recorder.versions.append(recorder.version + 1)
            recorder.version += 1

        recorder.on_document = swap
        with pytest.raises(FailedPrecondition, match="in each of 3 rounds"):
            await ingester()
        assert len({opening.index_version for opening in recorder.openings}) == 3

    async def test_a_collection_deleted_meanwhile_is_not_made_again(self, ingester, recorder):
        write(ingester.root, 6)

        def delete() -> None:
            recorder.version = 0
            recorder.versions.clear()

        at_document(recorder, 3, delete)
        with pytest.raises(NotFound):
            await ingester(stream=FEW)
        # A stream whose status was lost may have been opened again; no other version was.
        assert {opening.index_version for opening in recorder.openings} == {1}
        assert recorder.creations == 1

    async def test_a_watch_goes_on_in_the_new_version(self, ingester, recorder):
        write(ingester.root, 6)

        def swap() -> None:
            recorder.versions.append(2)
            recorder.version = 2

        at_document(recorder, 3, swap)
        stop = asyncio.Event()
        reports = []

        def told(report) -> None:
            reports.append(report)
            stop.set()

        async with asyncio.timeout(30):
            await ingester.watch(told, stop, stream=FEW)
        assert (reports[0].target.version, len(recorder.held(2))) == (2, 6)

    async def test_letters_are_retried_in_the_new_version_where_it_knows_them(
        self, ingester, recorder
    ):
        write(ingester.root, 2)
        (ingester.root / "b.txt").write_text("")
        await ingester()
        await ingester(rebuild=True)
        letters = await ingester.letters()
        recorder.version = letters[0].index_version
        (ingester.root / "b.txt").write_text("text at last")
        at_document(recorder, len(recorder.sent) + 1, lambda: setattr(recorder, "version", 1))
        (report,) = await ingester.retry(letters)
        assert (report.target.version, report.rounds) == (1, 2)
        assert any(uri.endswith("b.txt") for uri in recorder.uris())
        assert (await ingester()).roots[0].files_opened == 0

    async def test_letters_of_a_version_without_a_manifest_are_left_to_a_whole_job(
        self, ingester, recorder
    ):
        write(ingester.root, 2)
        (ingester.root / "b.txt").write_text("")
        await ingester()
        letters = await ingester.letters()
        (ingester.root / "b.txt").write_text("text at last")

        def swap() -> None:
            recorder.versions.append(2)
            recorder.version = 2

        at_document(recorder, len(recorder.sent) + 1, swap)
        with pytest.raises(FailedPrecondition, match="run `sluice ingest`"):
            await ingester.retry(letters)
        assert (await ingester()).roots[0].files_opened == 3

    async def test_a_build_of_somebody_else_disturbs_no_job(self, ingester, recorder):
        write(ingester.root, 3)
        recorder.versions.append(2)
        recorder.builds.take(2, "somebody@elsewhere", 600)
        report = await ingester()
        assert (report.target.version, report.rounds, report.roots[0].indexed) == (1, 1, 3)


async def test_another_embedder_is_told_in_a_line_that_says_what_to_do(ingester, recorder):
    write(ingester.root, 1)
    refusal = "version 1 of docs was written with one model, this indexer embeds with another"
    recorder.failures = [(0, FailedPrecondition(refusal))] * 3
    with pytest.raises(FailedPrecondition) as raised:
        await ingester()
    told = raised.value.message
    assert told.startswith(refusal)
    assert told.endswith("`sluice ingest URI... --collection docs --rebuild --activate`")
    assert "\n" not in told
    assert len(recorder.openings) == 1
    # A build is not told to build.
    with pytest.raises(FailedPrecondition) as raised:
        await ingester(rebuild=True)
    assert raised.value.message == refusal

"""Index versions from the client and the command line against a real server: build to rollback."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import EntryPoint

import pytest

from client import manifests
from client.answers import SearchQuery
from client.client import SluiceClient
from client.verification import Exam
from common.errors import Contended, FailedPrecondition
from common.golden import GoldenCase
from common.verification import ENTRY_POINT_GROUP
from tests.integration.client.small_collection import TEXTS, documents, unused_name

# The second names a document that a version may lack.
GOLDEN = (
    {"query": "kerberos keytab", "expected": "renew"},
    {"query": "the disk is full", "expected": ["doc://disk"]},
)
WITHOUT_DISK = {uri: text for uri, text in TEXTS.items() if uri != "doc://disk"}


@pytest.fixture
def golden(tmp_path):
    file = tmp_path / "golden.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in GOLDEN))
    return str(file)


async def built(client, collection, *, texts=TEXTS, exam=None):
    """Build the next version and verify it as its builder does."""
    begun = await client.begin_version(collection, builder="ann@lake, a test", ttl_s=60)
    number = begun.version.number
    stream = client.index_documents(documents(texts=texts), collection=collection, version=number)
    assert len([a async for a in stream]) == len(texts)
    await client.renew_build(collection, number, begun.fence, documents=len(texts), chunks=5)
    found = await client.verify(
        collection, version=number, expected_documents=len(texts), fence=begun.fence, golden=exam
    )
    return begun, found


@pytest.fixture
def candidate(address, collection):
    """A READY version beside the active one that lacks a document; its number."""

    async def build():
        async with SluiceClient(address) as client:
            begun, _ = await built(client, collection, texts=WITHOUT_DISK)
            await client.end_build(collection, begun.version.number, begun.fence)
            return begun.version.number

    return str(asyncio.run(build()))


class TestClient:
    async def test_versions_are_built_switched_and_rolled_back(self, address, collection):
        async with SluiceClient(address) as client:
            begun, verified = await built(client, collection)
            assert (begun.version.number, begun.version.state) == (2, "building")
            assert (verified.passed, verified.version.state) == (True, "ready")
            pointer, changed = await client.activate(collection, 2, fence=begun.fence)
            assert (pointer.version, changed) == (2, True)
            ended = await client.end_build(collection, 2, begun.fence)
            assert ended is not None
            assert ended.state == "active"
            assert (await client.activate(collection, 2))[1] is False
            assert (await client.roll_back(collection)).version == 1
            assert (await client.roll_back(collection, to_version=2)).version == 2
            await client.activate(collection, 1)
            await client.delete(collection)
            assert collection not in {c.name for c in await client.collections()}

    async def test_one_builds_at_a_time_and_everybody_sees_who(self, address, collection):
        async with SluiceClient(address) as client:
            begun = await client.begin_version(collection, builder="ann@lake", ttl_s=60)
            with pytest.raises(Contended, match="ann@lake"):
                await client.begin_version(collection, builder="bob@lake")
            await client.renew_build(
                collection, 2, begun.fence, documents=5, chunks=9, documents_per_s=2.5
            )
            build = (await client.describe(collection)).build
            assert build is not None
            assert (build.version, build.builder, build.documents) == (2, "ann@lake", 5)
            assert (build.chunks, build.documents_per_s, build.ttl_s) == (9, 2.5, 60)
            assert build.since is not None
            assert build.reported_at is not None
            assert build.since <= build.reported_at
            with pytest.raises(FailedPrecondition):
                await client.activate(collection, 2)
            ended = await client.end_build(collection, 2, begun.fence, reason="the disk is full")
            assert ended is not None
            assert (ended.state, ended.failure) == ("failed", "the disk is full")
            with pytest.raises(FailedPrecondition):
                await client.renew_build(collection, 2, begun.fence)
            assert (await client.describe(collection)).build is None

    async def test_a_version_is_asked_before_it_is_active(self, address, collection):
        async with SluiceClient(address) as client:
            await built(client, collection, texts=WITHOUT_DISK)
            old = await client.search(SearchQuery("disk", collection))
            new = await client.search(SearchQuery("disk", collection, index_version=2))
        assert (old.index_version, new.index_version) == (1, 2)
        assert "doc://disk" in {hit.source_uri for hit in old.hits}
        assert "doc://disk" not in {hit.source_uri for hit in new.hits}

    async def test_a_version_that_falls_short_says_what_it_does_not_find(self, address, collection):
        exam = Exam(
            (GoldenCase("kerberos keytab", ("renew",)), GoldenCase("the disk is full", ("disk",)))
        )
        async with SluiceClient(address) as client:
            begun, found = await built(client, collection, texts=WITHOUT_DISK, exam=exam)
            assert (found.passed, found.version.state) == (False, "ready")
            assert found.golden is not None
            assert (found.golden.candidate, found.golden.active) == (0.5, 1.0)
            (miss,) = found.misses
            assert (miss.query, miss.missing) == ("the disk is full", ("disk",))
            assert miss.active_finds
            assert miss.found
            with pytest.raises(FailedPrecondition, match="fell short"):
                await client.activate(collection, 2, fence=begun.fence)
            assert (await client.search(SearchQuery("disk", collection))).index_version == 1
            await client.activate(
                collection, 2, fence=begun.fence, force=True, requested_by="bob@lake"
            )
            (_, forced) = (await client.describe(collection)).versions
        assert forced.forced is not None
        assert forced.forced.by == "bob@lake"
        assert forced.verdict is not None
        assert forced.verdict.golden == found.golden


class TestCommands:
    def test_the_active_version_is_whole(self, sluice, collection):
        good = sluice("collections", "verify", collection, "--expected-documents", "3", "--json")
        found = json.loads(good.stdout)
        assert (good.exit_code, found["ok"], found["passed"]) == (0, True, True)
        assert (found["version"]["documents"], found["faults"]) == (3, [])
        told = sluice("collections", "verify", collection)
        assert told.exit_code == 0
        assert told.stdout.startswith(f"version 1 of {collection}  active, 3 documents, 3 chunks")

    def test_a_document_too_few_is_a_fault(self, sluice, collection):
        bad = sluice("collections", "verify", collection, "--expected-documents", "4", "--json")
        found = json.loads(bad.stdout)
        assert (bad.exit_code, found["ok"], found["passed"]) == (1, False, False)
        assert found["findings"]

    def test_a_store_without_faults_needs_no_repair(self, sluice, collection):
        result = sluice("collections", "verify", collection, "--repair")
        assert result.exit_code == 0
        assert "nothing in the store was to be mended" in result.stdout

    def test_golden_queries_that_fall_short_are_shown_and_not_activated(
        self, sluice, collection, candidate, golden
    ):
        ask = ("collections", "verify", collection, "--version", candidate, "--golden", golden)
        result = sluice(*ask)
        assert result.exit_code == 1
        assert "golden queries: 0.500 over 2 queries, 0.900 wanted" in result.stdout
        assert "“the disk is full”\n  missing  doc://disk" in result.stdout
        assert "kerberos keytab" not in result.stdout
        refused = sluice("collections", "activate", collection, candidate)
        assert refused.exit_code == 1
        assert 'golden query "the disk is full" does not find doc://disk' in refused.stderr
        shown = sluice("collections", "show", collection).stdout
        assert "fell short" in shown
        enough = ("--golden-threshold", "0.5", "--golden-max-drop", "0.5")
        assert sluice(*ask, *enough).exit_code == 0
        assert sluice("collections", "activate", collection, candidate).exit_code == 0

    def test_a_forced_activation_stays_in_the_record(self, sluice, collection, candidate, golden):
        ask = ("collections", "verify", collection, "--version", candidate, "--golden", golden)
        assert sluice(*ask).exit_code == 1
        forced = sluice("collections", "activate", collection, candidate, "--force")
        assert forced.stdout == (
            f"Version 2 of {collection} is active now; version 1 is kept for rollback.\n"
        )
        shown = json.loads(sluice("collections", "show", collection, "--json").stdout)
        assert ", process " in shown["versions"][1]["forced"]["by"]

    def test_there_and_back(self, sluice, collection, candidate):
        assert sluice("collections", "activate", collection, candidate).exit_code == 0
        again = sluice("collections", "activate", collection, candidate)
        assert again.stdout == f"Version 2 of {collection} was active already: no-op.\n"
        back = sluice("collections", "rollback", collection, "--json")
        assert json.loads(back.stdout)["active"]["version"] == 1
        forth = sluice("collections", "rollback", collection, "--to", candidate)
        assert forth.stdout == f"Version 2 of {collection} is active again.\n"

    def test_a_rollback_without_an_earlier_version_is_a_failure(self, sluice, collection):
        assert sluice("collections", "rollback", collection).exit_code == 1

    def test_activating_the_active_version_says_so(self, sluice, collection):
        told = sluice("collections", "activate", collection, "1", "--json")
        assert json.loads(told.stdout)["changed"] is False

    def test_a_version_that_nobody_uses_is_deleted(self, sluice, collection, candidate):
        gone = sluice("collections", "delete", collection, "--version", candidate, "--json")
        assert json.loads(gone.stdout) == {
            "deleted": collection,
            "version": 2,
            "pending": False,
            "used_by": [],
        }
        shown = json.loads(sluice("collections", "show", collection, "--json").stdout)
        assert [version["number"] for version in shown["versions"]] == [1]

    def test_a_build_under_way_is_told(self, sluice, address, collection):
        async def begin():
            async with SluiceClient(address) as client:
                begun = await client.begin_version(collection, builder="ann@lake", ttl_s=60)
                await client.renew_build(
                    collection, 2, begun.fence, documents=5, chunks=9, documents_per_s=2.5
                )

        asyncio.run(begin())
        line = "version 2 is being built, 5 documents, 9 chunks, 2.5/s"
        assert f"{collection}: {line}" in sluice("collections", "list").stdout
        assert "by ann@lake, since" in sluice("collections", "show", collection).stdout

    def test_one_version_is_searched(self, sluice, collection, candidate):
        options = ("-c", collection, "--index-version", candidate, "--json")
        answer = json.loads(sluice("search", "disk", *options).stdout)
        assert answer["index_version"] == 2


@pytest.fixture
def ingested(sluice, monkeypatch, tmp_path):
    """A collection written by `sluice ingest` of two files, whose manifests can be compared."""
    monkeypatch.setenv("SLUICE_INGEST__STATE_URI", (tmp_path / "state").as_uri())
    point = EntryPoint("ingest", "ingestor.manifest_check:check", ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        manifests, "entry_points", lambda group: (point,) if group == ENTRY_POINT_GROUP else ()
    )
    root = tmp_path / "root"
    root.mkdir()
    for name, text in (("one.md", "The first of two."), ("two.md", "The second of two.")):
        (root / name).write_text(text)
    collection = unused_name()

    def ingest():
        result = sluice("ingest", str(root), "--collection", collection, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    ingest()
    return collection, ingest


class TestManifests:
    def test_they_agree_after_an_ingest(self, sluice, ingested):
        collection, _ = ingested
        result = sluice("collections", "verify", collection)
        assert result.exit_code == 0
        assert "manifests: 2 files of 1 root agree with the index" in result.stdout

    def test_what_the_index_lacks_is_sent_by_the_ingest_after_a_repair(
        self, sluice, address, ingested
    ):
        collection, ingest = ingested

        async def lose_one():
            async with SluiceClient(address) as client:
                hits = (await client.search(SearchQuery("second", collection))).hits
                (lost,) = {hit.document_id for hit in hits if hit.source_uri.endswith("/two.md")}
                await client.delete_documents([lost], collection=collection)

        asyncio.run(lose_one())
        verify = ("collections", "verify", collection)
        found = sluice(*verify, "--json")
        report = json.loads(found.stdout)["manifests"]
        assert (found.exit_code, report["missing"], report["forgotten"]) == (1, 1, 0)
        mended = sluice(*verify, "--repair")
        assert mended.exit_code == 1
        assert "1 file to be read again" in " ".join(mended.stdout.split())
        ingest()
        assert sluice(*verify).exit_code == 0

    def test_a_version_that_was_written_elsewhere_has_no_manifest_here(
        self, sluice, ingested, collection
    ):
        del ingested
        result = sluice("collections", "verify", collection)
        assert result.exit_code == 0
        told = "manifests: not compared: none of version 1 is known on this machine"
        assert told in result.stdout

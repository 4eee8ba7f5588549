"""Building a version against a real `sluice up`: golden queries, force, locks, other embedders."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from common.config import load
from common.identity import document_id
from ingestor.ingestion import Ingestion
from ingestor.manifest_check import check
from ingestor.sending.collection_client import CollectionClient
from ingestor.sending.index_client import IndexClient
from ingestor.sending.indexers import Indexers
from ingestor.settings import IngestorConfig
from tests.installation import COLLECTION, Installation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXTS = {
    "blocks.md": "A missing block has no live replica on any data node.",
    "quotas.md": "A quota bounds how many names a directory may hold.",
    "trash.md": "Deleted files stay in the trash until the next checkpoint of it.",
}


@pytest.fixture
def lake(sluice: Installation) -> Path:
    """One root for all, as it was: a build must not leave out a root of the active version."""
    root = sluice.home / "lake"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, text in TEXTS.items():
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One for all."""
    home = tmp_path_factory.mktemp("home")
    installation = Installation(home, {"SLUICE_EMBEDDING__KIND": "hashing"})
    with installation.running():
        yield installation


def golden(folder: Path, *cases: tuple[str, str]) -> str:
    file = folder / "golden.jsonl"
    lines = (json.dumps({"query": query, "expected": source}) for query, source in cases)
    file.write_text("\n".join(lines))
    return str(file)


def test_what_finds_its_golden_queries_becomes_active_and_what_does_not_is_forced(
    sluice, lake, tmp_path
):
    first = sluice.ingest(lake)["index_version"]
    good = golden(tmp_path, (TEXTS["blocks.md"], "blocks.md"), (TEXTS["trash.md"], "trash.md"))
    told = sluice.ingest(lake, "--rebuild", "--activate", "--golden", good)
    assert (told["index_version"], told["activated"], told["findings"]) == (first + 1, True, [])
    assert (told["golden"]["queries"], told["golden"]["candidate"]) == (2, 1.0)
    assert sluice.ingest(lake)["files_opened"] == 0

    bad = golden(tmp_path, (TEXTS["blocks.md"], "blocks.md"), ("what is a lease", "leases.md"))
    words = ["ingest", str(lake), "--collection", COLLECTION, "--rebuild", "--activate"]
    ended = sluice.sluice(*words, "--golden", bad)
    assert ended.returncode == 1, ended.stderr
    assert "'what is a lease' misses leases.md" in ended.stdout
    assert f"sluice collections activate docs {first + 2} --force" in ended.stdout
    assert sluice.ingest(lake)["index_version"] == first + 1

    told = sluice.ingest(lake, "--rebuild", "--activate", "--force", "--golden", bad)
    assert (told["activated"], told["forced"]) == (True, True)
    assert [miss["query"] for miss in told["misses"]] == ["what is a lease"]
    assert sluice.ingest(lake)["index_version"] == first + 3


async def test_a_build_keeps_another_out_and_no_ordinary_job(sluice, lake):
    environ = sluice.environ
    config = load(IngestorConfig, file=None, environ=environ)
    async with Indexers.open(config.client, None) as indexers:
        collections = CollectionClient(indexers, config.ingest.stream, timeout_s=30)
        await collections.active("default", COLLECTION)
        begun = await collections.begin_version(
            "default", COLLECTION, builder="somebody@elsewhere", ttl_s=60
        )
        words = ("ingest", str(lake), "--collection", COLLECTION, "--rebuild")
        kept_out = await asyncio.to_thread(lambda: sluice.sluice(*words))
        assert kept_out.returncode == 1
        assert f"version {begun.target.version}" in kept_out.stderr
        assert "somebody@elsewhere" in kept_out.stderr
        (lake / "leases.md").write_text("A lease keeps the writer of a file.")
        assert (await asyncio.to_thread(sluice.ingest, lake))["indexed"] == 1
        await collections.end_build(begun, "enough")
        told = await asyncio.to_thread(sluice.ingest, lake, "--rebuild", "--activate")
        assert (told["index_version"], told["activated"]) == (begun.target.version + 1, True)


async def test_manifests_agree_with_a_real_index_until_something_is_lost(sluice, lake):
    await asyncio.to_thread(sluice.ingest, lake, "--rebuild", "--activate")
    config = load(IngestorConfig, file=None, environ=sluice.environ)
    async with Ingestion.open(config, dict(os.environ)) as ingestion, ingestion.open_shop() as shop:
        target = await shop.collections.active("default", COLLECTION)

        async def compare(*, repair: bool = False):
            return await check(
                config=None,
                environ=sluice.environ,
                tenant="default",
                collection=COLLECTION,
                version=target.version,
                created_at=target.created_at.replace("Z", "+00:00"),
                incomplete=frozenset(),
                repair=repair,
            )

        report = await compare()
        assert (report.roots, report.files, report.findings) == (1, 3, ())

        index = IndexClient(shop.indexers, target, shop.settings.stream, timeout_s=30)
        await index.delete([(document_id((lake / "trash.md").as_uri()), 2**62)])
        report = await compare(repair=True)
        assert (report.missing, report.forgotten) == (1, 1)
    told = await asyncio.to_thread(sluice.ingest, lake)
    assert (told["files_opened"], told["indexed"] + told["updated"]) == (1, 1)
    assert (await compare()).findings == ()


def test_another_chunking_asks_for_a_rebuild_and_gets_it(sluice, lake):
    first = sluice.ingest(lake)["index_version"]
    sluice.stop()
    sluice.environ["SLUICE_CHUNKING__CHUNK_TOKENS"] = "64"
    sluice.start()
    (lake / "blocks.md").write_text("Another text.")
    ended = sluice.sluice("ingest", str(lake), "--collection", COLLECTION)
    assert ended.returncode == 1
    (line,) = [one for one in ended.stderr.splitlines() if one.startswith("error: ")]
    assert "chunking" in line
    assert "`sluice ingest --rebuild --activate`" in line
    told = sluice.ingest(lake, "--rebuild", "--activate")
    assert (told["index_version"], told["activated"], told["indexed"]) == (first + 1, True, 3)
    assert sluice.ingest(lake)["unchanged"] == 3

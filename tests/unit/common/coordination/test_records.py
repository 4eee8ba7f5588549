"""What is stored of records, and how keys are laid out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from common.coordination import (
    Build,
    ChunkingSpec,
    Entry,
    Forced,
    GoldenScore,
    Instance,
    Pointer,
    Verdict,
    VersionRecord,
    VersionState,
    WordStatisticsRecord,
    codec,
    keys,
)
from common.embedding import EmbedderSpec
from common.errors import InvalidArgument
from sluice.collections.v1 import collections_pb2

EMBEDDER = EmbedderSpec(
    model="minilm", digest="cd" * 32, dimension=384, pooling="mean", max_tokens=256, variant="fp32"
)
AT = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
RECORD = VersionRecord(
    tenant="acme",
    collection="docs",
    number=7,
    state=VersionState.BUILDING,
    embedder=EMBEDDER,
    chunking=ChunkingSpec("sentence", 256, 32),
    documents=None,
    chunks=None,
    created_at=AT,
    activated_at=None,
)
SCORE = GoldenScore(
    queries=40, depth=10, threshold=0.9, candidate=0.25, active=0.0, active_version=3
)
VERDICT = Verdict(passed=False, verified_at=AT, findings=("one", "two"), golden=SCORE)
POINTER = Pointer(
    tenant="acme",
    collection="docs",
    version=7,
    generation=3,
    embedder=EMBEDDER,
    activated_at=AT,
    previous_version=5,
)


@pytest.mark.parametrize("state", list(VersionState))
def test_a_version_survives_storage(state: VersionState) -> None:
    for record in (
        replace(RECORD, state=state),
        replace(RECORD, state=state, documents=0, chunks=0),
        replace(RECORD, state=state, documents=2**40, chunks=3, activated_at=AT),
        replace(RECORD, state=state, retired_at=AT, builder="host, process 7", failure="why"),
        replace(RECORD, state=state, verdict=Verdict(passed=True, verified_at=AT)),
        replace(RECORD, state=state, verdict=VERDICT, forced=Forced("kim@host", AT)),
        replace(RECORD, verdict=replace(VERDICT, golden=replace(SCORE, active=None))),
    ):
        entry = Entry("k", codec.encode_version(replace(record, fence=77)), 5, 9)
        decoded = codec.decode_version(entry, "acme", "docs")
        assert decoded == record
        assert (decoded.mod_revision, decoded.fence) == (9, 5)


def test_the_fence_is_told_and_never_stored() -> None:
    record = replace(RECORD, fence=77)
    assert codec.version_message(record).fence == 77
    assert "fence" not in json.loads(codec.encode_version(record))


def test_a_build_survives_storage() -> None:
    build = Build(
        tenant="acme",
        collection="docs",
        version=7,
        builder="host, process 7",
        since=AT,
        documents=2**40,
        chunks=0,
        documents_per_s=12.5,
        reported_at=AT,
        ttl_s=15,
        fence=5,
        lease=2**62,
    )
    entry = Entry("k", codec.encode_build(build), 5, 9, 2**62)
    assert codec.decode_build(entry, "acme", "docs") == build
    stored = json.loads(entry.value)
    assert set(stored) <= {field.name for field in collections_pb2.Build.DESCRIPTOR.fields}
    with pytest.raises(codec.UnreadableRecord, match="the/key"):
        codec.decode_build(Entry("the/key", b"{", 1, 1), "acme", "docs")


def test_a_stored_version_is_json_of_the_contract() -> None:
    stored = json.loads(codec.encode_version(replace(RECORD, documents=1, chunks=2)))
    assert stored["state"] == "VERSION_STATE_BUILDING"
    assert stored["store_collection"] == "acme.docs.v000007"
    assert stored["embedder"]["max_tokens"] == 256
    assert set(stored) <= {field.name for field in collections_pb2.IndexVersion.DESCRIPTOR.fields}


def test_a_pointer_and_an_instance_survive_storage() -> None:
    assert codec.decode_pointer("k", codec.encode_pointer(POINTER), "acme", "docs") == POINTER
    instance = Instance("1f", "query", "host:50052", AT)
    entry = Entry("k", codec.encode_instance(instance), 1, 1)
    assert codec.decode_instance(entry) == instance


def test_word_statistics_survive_storage() -> None:
    statistics = WordStatisticsRecord(
        tenant="acme",
        collection="docs",
        number=7,
        table="9f" * 16,
        chunks=2**40,
        terms=500_000,
        text_words=2**50,
        title_words=0,
        parts=2,
        digest="ab" * 32,
        counted_at=AT,
        analysis=1,
    )
    stored = codec.encode_word_statistics(statistics)
    assert codec.decode_word_statistics("k", stored, "acme", "docs", 7) == statistics
    fields = {field.name for field in collections_pb2.WordStatistics.DESCRIPTOR.fields}
    assert set(json.loads(stored)) <= fields
    with pytest.raises(codec.UnreadableRecord, match="the/key"):
        codec.decode_word_statistics("the/key", b"[]", "acme", "docs", 7)


def test_fields_of_a_newer_sluice_are_ignored() -> None:
    stored = json.loads(codec.encode_pointer(POINTER)) | {"weather": "fine"}
    assert codec.decode_pointer("k", json.dumps(stored).encode(), "acme", "docs") == POINTER


@pytest.mark.parametrize("value", [b"", b"{", b"\xff", b"[]", b"{}", b'{"generation": "many"}'])
def test_an_unreadable_value_names_its_key(value: bytes) -> None:
    with pytest.raises(codec.UnreadableRecord, match="the/key"):
        codec.decode_pointer("the/key", value, "acme", "docs")


@pytest.mark.parametrize("value", [b"{}", b'{"state": 99}'])
def test_a_version_without_a_known_state_is_unreadable(value: bytes) -> None:
    with pytest.raises(codec.UnreadableRecord, match="the/key"):
        codec.decode_version(Entry("the/key", value, 1, 1), "acme", "docs")


def test_the_sequence_is_a_number() -> None:
    assert codec.decode_sequence(Entry("k", codec.encode_sequence(41), 1, 1)) == 41
    with pytest.raises(codec.UnreadableRecord):
        codec.decode_sequence(Entry("k", b"-1", 1, 1))


def test_keys_are_laid_out_as_designed() -> None:
    assert keys.active_key("", "docs") == "collections/default/docs/active"
    assert keys.sequence_key("acme", "docs") == "collections/acme/docs/sequence"
    assert keys.version_key("acme", "docs", 12) == "collections/acme/docs/versions/12"
    assert keys.statistics_key("", "docs", 12) == "collections/default/docs/statistics/12"
    assert keys.instances_prefix("query") == "instances/query/"
    assert keys.build_lock("", "docs") == "locks/default/docs"
    assert keys.maintenance_lock("acme", "docs") == "locks/acme/docs/maintenance"
    assert keys.collector_lock() == "locks/collector"
    assert keys.pins_prefix("", "docs", 12) == "pins/default/docs/12/"
    with pytest.raises(InvalidArgument, match="service"):
        keys.instances_prefix("query/../x")


def test_collection_keys_are_taken_apart() -> None:
    assert keys.parse_collection_key("collections/a/b/active") == ("a", "b", None)
    assert keys.parse_collection_key("collections/a/b/versions/12") == ("a", "b", 12)
    assert keys.parse_collection_key("collections/a/b/statistics/12") is None
    assert keys.parse_statistics_key("collections/a/b/statistics/12") == ("a", "b", 12)
    assert keys.parse_statistics_key("collections/a/b/versions/12") is None
    for other in ("collections/a/b/sequence", "collections/a/active", "instances/a/b/active"):
        assert keys.parse_collection_key(other) is None


def test_build_locks_are_told_from_other_locks() -> None:
    assert keys.parse_build_lock(keys.build_lock("", "docs")) == ("default", "docs")
    for other in (
        keys.maintenance_lock("", "docs"),
        keys.root_lock("", "docs", "hdfs://lake/raw/"),
        keys.collector_lock(),
    ):
        assert keys.parse_build_lock(other) is None


def test_other_chunking_has_another_fingerprint() -> None:
    specs = [
        ChunkingSpec("sentence", 256, 32),
        ChunkingSpec("sentence", 256, 3),
        ChunkingSpec("sentence", 25, 632),
        ChunkingSpec("token", 256, 32),
    ]
    assert len({spec.fingerprint() for spec in specs}) == len(specs)
    assert specs[0].fingerprint() == ChunkingSpec("sentence", 256, 32).fingerprint()

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from common.identity import chunk_id
from indexer.nodes import Attributes
from indexer.reconcile import (
    HeldChunk,
    Removal,
    Superseded,
    Unchanged,
    Write,
    complete_heads,
    current,
    decide,
    is_complete,
    remove,
)

DOCUMENT = "0" * 32
A, B = "a" * 16, "b" * 16
URI = "file:///x"


def attributes(version: int, **metadata: str) -> Attributes:
    return Attributes(version, URI, metadata)


def held(
    revision: str, version: int, chunk_count: int, *, ordinals: range | None = None, **metadata: str
) -> list[HeldChunk]:
    return [
        HeldChunk(
            id=chunk_id(DOCUMENT, revision, ordinal),
            revision=revision,
            ordinal=ordinal,
            version=version,
            chunk_count=chunk_count,
            source_uri=URI,
            attributes=attributes(version, **metadata).digest,
        )
        for ordinal in (range(chunk_count) if ordinals is None else ordinals)
    ]


def ids(revision: str, *ordinals: int) -> tuple[str, ...]:
    return tuple(chunk_id(DOCUMENT, revision, ordinal) for ordinal in ordinals)


def test_nothing_held_is_written() -> None:
    assert decide([], A, attributes(1)) == Write(())


def test_the_same_revision_complete_is_unchanged() -> None:
    assert decide(held(A, 5, 3), A, attributes(5)) == Unchanged(3, (), ())


def test_a_newer_complete_version_supersedes() -> None:
    assert decide(held(A, 5, 3), B, attributes(4)) == Superseded(5)
    assert decide(held(A, 5, 3), A, attributes(4)) == Superseded(5)


def test_an_older_complete_version_is_replaced() -> None:
    assert decide(held(A, 5, 2), B, attributes(6)) == Write(ids(A, 0, 1))


def test_an_equal_version_of_another_revision_is_replaced() -> None:
    assert decide(held(A, 5, 2), B, attributes(5)) == Write(ids(A, 0, 1))


def test_a_newer_version_without_its_head_supersedes_nothing() -> None:
    unfinished = held(B, 9, 3, ordinals=range(1, 3))
    assert decide(unfinished, A, attributes(5)) == Write(ids(B, 1, 2))
    complete = held(A, 5, 1)
    assert decide(complete + unfinished, A, attributes(5)) == Unchanged(1, (), ids(B, 1, 2))


def test_a_head_whose_chunks_are_missing_is_no_complete_revision() -> None:
    damaged = held(A, 5, 3, ordinals=range(2))
    assert decide(damaged, A, attributes(5)) == Write(ids(A, 0, 1))
    assert decide(damaged, B, attributes(4)) == Write(ids(A, 0, 1))


def test_moved_version_or_metadata_name_the_chunks_to_move() -> None:
    assert decide(held(A, 5, 2), A, attributes(6)) == Unchanged(2, ids(A, 0, 1), ())
    assert decide(held(A, 5, 2), A, attributes(5, lang="en")) == Unchanged(2, ids(A, 0, 1), ())
    half = held(A, 5, 2, ordinals=range(1)) + held(A, 6, 2, ordinals=range(1, 2))
    assert decide(half, A, attributes(6)) == Unchanged(2, ids(A, 0), ())


def test_leftovers_of_an_earlier_state_go_with_an_unchanged_document() -> None:
    both = held(A, 4, 2) + held(B, 5, 1)
    assert decide(both, B, attributes(5)) == Unchanged(1, (), ids(A, 0, 1))


def test_chunks_beyond_the_count_are_surplus() -> None:
    assert decide(held(A, 5, 2, ordinals=range(3)), A, attributes(5)) == Unchanged(2, (), ids(A, 2))


CHUNKS = st.lists(
    st.tuples(st.sampled_from([A, B]), st.integers(0, 4), st.integers(1, 4), st.integers(1, 4)),
    unique_by=lambda chunk: chunk[:2],
    max_size=10,
).map(
    lambda drawn: [
        chunk
        for revision, ordinal, version, chunk_count in drawn
        for chunk in held(revision, version, chunk_count, ordinals=range(ordinal, ordinal + 1))
    ]
)


@given(CHUNKS, st.sampled_from([A, B]), st.integers(1, 4))
def test_whatever_a_crash_left_the_decision_keeps_the_rule(
    chunks: list[HeldChunk], revision: str, version: int
) -> None:
    incoming = attributes(version)
    complete = {head.revision: head for head in complete_heads(chunks)}
    newest = max((head.version for head in complete.values()), default=0)
    match decide(chunks, revision, incoming):
        case Superseded(newer):
            assert newer == newest > version
        case Write(known):
            assert newest <= version
            assert revision not in complete
            assert set(known) == {chunk.id for chunk in chunks}
        case Unchanged(chunk_count, stale, surplus):
            assert newest <= version
            assert complete[revision].chunk_count == chunk_count
            kept = {chunk.id for chunk in chunks} - set(surplus)
            assert kept == {chunk_id(DOCUMENT, revision, n) for n in range(chunk_count)}
            still = {c.id for c in chunks if c.version == version} & kept
            assert set(stale) == kept - still


@given(CHUNKS)
def test_a_revision_is_complete_only_with_all_its_chunks(chunks: list[HeldChunk]) -> None:
    for head in complete_heads(chunks):
        there = {chunk.ordinal for chunk in chunks if chunk.revision == head.revision}
        assert there >= set(range(head.chunk_count))
        assert head.ordinal == 0
        assert is_complete(head, {chunk.id for chunk in chunks})
        for ordinal in range(head.chunk_count):
            missing = {chunk.id for chunk in chunks} - {chunk_id(DOCUMENT, head.revision, ordinal)}
            assert not is_complete(head, missing)


def contained(chunks: list[HeldChunk], container_uri: str = URI) -> list[HeldChunk]:
    return [replace(chunk, container_uri=container_uri) for chunk in chunks]


def test_a_container_loses_the_document_only_up_to_the_version() -> None:
    chunks = contained(held(A, 5, 3))
    for version in (0, 5, 6):
        assert remove(chunks, URI, version) == Removal(ids(A, 0, 1, 2), document=True)
    assert remove(chunks, URI, 4) == Removal((), document=False)
    assert remove(chunks, "file:///other", 0) == Removal((), document=False)
    assert remove([], URI, 0) == Removal((), document=False)


def test_a_container_loses_what_is_left_of_earlier_states() -> None:
    chunks = contained(held(A, 4, 2) + held(B, 5, 1))
    assert remove(chunks, URI, 4) == Removal(ids(A, 0, 1), document=False)
    elsewhere = contained(held(A, 4, 2)) + contained(held(B, 5, 1), "file:///other")
    assert remove(elsewhere, URI, 0) == Removal(ids(A, 0, 1), document=False)


def test_a_revision_that_was_being_moved_goes_whole() -> None:
    half = contained(held(A, 5, 3, ordinals=range(1)) + held(A, 6, 3, ordinals=range(1, 3)))
    assert remove(half, URI, 5) == Removal(ids(A, 0, 1, 2), document=True)


def test_what_is_being_written_stays() -> None:
    begun = contained(held(A, 5, 1) + held(B, 6, 3, ordinals=range(1, 3)))
    assert remove(begun, URI, 5) == Removal(ids(A, 0), document=True)
    assert remove(begun[1:], URI, 5) == Removal((), document=False)


@given(CHUNKS, st.lists(st.sampled_from([URI, "file:///other", ""])), st.integers(0, 4))
def test_a_container_never_takes_what_is_newer_or_elsewhere(
    chunks: list[HeldChunk], drawn: list[str], version: int
) -> None:
    chunks = [
        replace(chunk, container_uri=drawn[n] if n < len(drawn) else URI)
        for n, chunk in enumerate(chunks)
    ]
    removal = remove(chunks, URI, version)
    newest = current(chunks)
    old = {c.id for c in chunks if c.container_uri == URI and (not version or c.version <= version)}
    assert removal.document == (newest is not None and newest.id in old)
    rest = [chunk for chunk in chunks if chunk.id not in removal.chunks]
    if newest is not None and not removal.document:
        assert current(rest) == newest
        assert all(chunk in rest for chunk in chunks if chunk.revision == newest.revision)
    else:
        assert not old & {chunk.id for chunk in rest}
    own = newest.revision if newest is not None and removal.document else ""
    assert all(c.id in old for c in chunks if c.id in removal.chunks and c.revision != own)

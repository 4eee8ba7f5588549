"""What is wrong with a document, and which of its chunks a repair may delete."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.identity import chunk_id
from indexer.faults import Fault, FaultKind, doomed, fault_of
from indexer.reconcile import HeldChunk, complete_heads

ID = "d" * 32
OLD, NEW = "a" * 16, "b" * 16


def revision(
    name: str, version: int, count: int, ordinals: range | None = None
) -> tuple[HeldChunk, ...]:
    return tuple(
        HeldChunk(
            id=chunk_id(ID, name, ordinal),
            revision=name,
            ordinal=ordinal,
            version=version,
            chunk_count=count,
            source_uri=f"file:///{name[0]}",
            attributes="same",
            container_uri="file:///box" if name == NEW else "",
        )
        for ordinal in ordinals or range(count)
    )


WHOLE = revision(OLD, 1, 3)
NEW_TAILS = revision(NEW, 2, 3, range(1, 3))


def fault(kind: FaultKind, surplus: int = 0, name: str = OLD) -> Fault:
    container = "file:///box" if name == NEW else ""
    return Fault(ID, f"file:///{name[0]}", container, kind, surplus)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (WHOLE, None),
        (WHOLE[:2], fault(FaultKind.INCOMPLETE)),
        (WHOLE[1:], fault(FaultKind.INCOMPLETE, 2)),
        (WHOLE[:2] + NEW_TAILS, fault(FaultKind.INCOMPLETE, 2, NEW)),
        (WHOLE + NEW_TAILS, fault(FaultKind.SURPLUS, 2)),
        (WHOLE + revision(NEW, 2, 3), fault(FaultKind.SURPLUS, 3, NEW)),
        (WHOLE + revision(NEW, 2, 3, range(1)), fault(FaultKind.SURPLUS, 1)),
        (WHOLE + revision(OLD, 1, 9, range(3, 5)), fault(FaultKind.SURPLUS, 2)),
        ((*WHOLE[:2], replace(WHOLE[2], version=2)), fault(FaultKind.DIVERGED)),
        ((replace(WHOLE[0], attributes="other"), *WHOLE[1:]), fault(FaultKind.DIVERGED)),
        ((*WHOLE[:2], replace(WHOLE[2], version=2), *NEW_TAILS), fault(FaultKind.DIVERGED, 2)),
    ],
    ids=[
        "whole",
        "lacks a tail",
        "lacks its head",
        "lacks a tail, and new tails",
        "new tails",
        "a newer revision",
        "a newer head alone",
        "ordinals beyond the last",
        "a version apart",
        "metadata apart",
        "a version apart, and new tails",
    ],
)
def test_each_fault_is_told_by_its_kind(
    held: tuple[HeldChunk, ...], expected: Fault | None
) -> None:
    assert fault_of(ID, held) == expected


def test_of_two_complete_revisions_of_one_version_the_one_that_searches_show_is_kept() -> None:
    twin = revision(NEW, 1, 2)
    for held in (WHOLE + twin, twin + WHOLE):
        assert sorted(doomed(held)) == [chunk.id for chunk in WHOLE]


def test_a_line_names_document_source_and_cure() -> None:
    assert str(fault(FaultKind.SURPLUS, 1)) == (
        f"document {ID} (file:///a): 1 chunk of other states left; repair the version"
    )
    assert str(fault(FaultKind.INCOMPLETE, 2)) == (
        f"document {ID} (file:///a): no revision of it is complete and 2 chunks to be deleted by a "
        "repair; send it again"
    )
    assert str(fault(FaultKind.DIVERGED)) == (
        f"document {ID} (file:///a): its chunks differ in version or metadata; send it again"
    )


@given(
    st.lists(
        st.tuples(st.sampled_from([OLD, NEW, "c" * 16]), st.integers(0, 4)), unique=True, min_size=1
    ),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3),
)
def test_a_repair_keeps_what_is_newest_and_complete_and_leaves_nothing_more_to_repair(
    chosen: list[tuple[str, int]], counts: tuple[int, int, int], versions: tuple[int, int, int]
) -> None:
    held = [
        replace(
            revision(name, versions["abc".index(name[0])], counts["abc".index(name[0])])[0],
            id=chunk_id(ID, name, ordinal),
            ordinal=ordinal,
        )
        for name, ordinal in chosen
    ]
    gone = set(doomed(held))
    kept = [chunk for chunk in held if chunk.id not in gone]
    assert not doomed(kept)
    heads = complete_heads(held)
    assert bool(complete_heads(kept)) == bool(heads)
    if heads:
        assert fault_of(ID, kept) is None
        assert kept[0].version == max(head.version for head in heads)
    else:
        assert [c for c in held if c.id in gone] == [
            c for c in held if chunk_id(ID, c.revision, 0) not in {one.id for one in held}
        ]

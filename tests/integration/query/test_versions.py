"""Which version answers: the active one, one that is waited for, one by its number."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from common.coordination import IndexRegistry, VersionState, pinned
from common.embedding import EmbeddingSettings, open_embedder
from common.errors import (
    DeadlineExceeded,
    EmbedderMismatch,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from common.identity import ConsistencyToken, encode_token, store_collection
from common.rpc import Deadline
from tests.integration.query.asking import (
    FAILOVER,
    NEWER,
    QUOTA,
    MovingIndex,
    ask,
    asking,
    uris,
)

if TYPE_CHECKING:
    from common.coordination import Coordinator, VersionRecord
    from query.search import Searcher
    from tests.integration.query.asking import OpenSearcher
    from tests.integration.query.written_index import WrittenIndex


async def test_an_answer_is_of_one_version_though_it_is_switched_meanwhile(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    second = await index.begin()
    await index.write(NEWER, version=second.number)
    source = MovingIndex(index, lambda: index.activate(second))
    searcher = await open_searcher(source=source)
    during = await ask(searcher)
    assert (during.index_version, during.generation) == (1, 1)
    assert {hit.text for hit in during.hits} == set(FAILOVER.chunks)
    token = encode_token(ConsistencyToken("default", "docs", 2, 2))
    after = await ask(searcher, at_least=token)
    assert (after.index_version, after.generation) == (2, 2)
    assert {hit.text for hit in after.hits} == set(NEWER.chunks)


async def test_a_version_that_goes_during_a_search_is_left_for_the_active_one(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    second = await index.begin()
    await index.write(NEWER, version=second.number)

    async def switch() -> None:
        await index.activate(second)
        await index.chroma.delete_collection(store_collection("default", "docs", 1))

    result = await ask(await open_searcher(source=MovingIndex(index, switch)))
    assert result.index_version == 2
    assert {hit.text for hit in result.hits} == set(NEWER.chunks)


async def test_an_active_version_without_records_in_the_store_is_unavailable(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    await index.chroma.delete_collection(store_collection("default", "docs", 1))
    with pytest.raises(Unavailable, match="version 1 of collection docs are not in") as caught:
        await ask(await open_searcher())
    assert caught.value.retry_after_ms


async def test_what_cannot_be_searched_is_told_apart(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    searcher = await open_searcher()
    with pytest.raises(NotFound, match="docs"):
        await ask(searcher)
    version = await index.begin()
    with pytest.raises(FailedPrecondition, match="docs has no active version"):
        await ask(searcher)
    await index.activate(version)
    assert (await ask(searcher)).index_version == 1


async def test_a_version_of_another_embedder_is_refused(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    other = open_embedder(EmbeddingSettings(kind="hashing", dimension=64))
    with pytest.raises(EmbedderMismatch, match=r"written with hashing-128 .* hashing-64"):
        await ask(await open_searcher(embedder=other))


async def test_a_token_waits_for_its_version(index: WrittenIndex, open_searcher: OpenSearcher):
    await index.holding(FAILOVER)
    second = await index.begin()
    searcher = await open_searcher()
    token = encode_token(ConsistencyToken("default", "docs", 2, 2))
    with pytest.raises(DeadlineExceeded):
        await searcher.search(asking(at_least=token), Deadline.after(0.05))
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(ask(searcher, at_least=token))
        await ask(searcher)
        assert not waiting.done()
        await index.activate(second)
    assert waiting.result().index_version == 2


async def test_a_token_of_what_never_comes_is_told_while_there_is_time_to_hear_it(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    searcher = await open_searcher()
    token = encode_token(ConsistencyToken("default", "docs", 2, 2))
    deadline = Deadline.after(0.5)
    with pytest.raises(DeadlineExceeded, match=r"docs is at generation 1 and did not reach .* 2"):
        await searcher.search(asking(at_least=token), deadline)
    assert deadline.remaining_s() > 0


@pytest.mark.parametrize("state", VersionState)
async def test_a_version_is_searched_by_its_number_if_it_is_whole(
    index: WrittenIndex, open_searcher: OpenSearcher, state: VersionState
):
    """What is active meanwhile has other documents, so an answer shows where it comes from."""
    asked = await index.begin()
    await index.write(QUOTA, version=asked.number)
    if state in {VersionState.ACTIVE, VersionState.RETIRED}:
        await index.activate(asked)
    elif state is not VersionState.BUILDING:
        await index.registry.set_state(asked, state)
    if state is not VersionState.ACTIVE:
        await index.holding(FAILOVER)
    searcher = await open_searcher()
    if state in {VersionState.BUILDING, VersionState.FAILED}:
        with pytest.raises(FailedPrecondition, match=f"version 1 .* is {state.value}; only"):
            await ask(searcher, index_version=1)
        return
    result = await ask(searcher, index_version=1)
    assert set(uris(result)) == {QUOTA.uri}
    assert result.index_version == 1
    assert result.generation == (1 if state is VersionState.ACTIVE else 0)


async def test_what_cannot_be_searched_by_number_is_told_apart(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    await index.begin()
    searcher = await open_searcher()
    with pytest.raises(NotFound, match="docs of tenant default has no version 7; it has 1, 2"):
        await ask(searcher, index_version=7)
    with pytest.raises(NotFound, match="no collection other"):
        await ask(searcher, index_version=1, collection="other")
    token = encode_token(ConsistencyToken("default", "docs", 1, 1))
    with pytest.raises(InvalidArgument, match=r"at_least: .* without index_version"):
        asking(at_least=token, index_version=1)


async def test_a_version_of_another_embedder_is_refused_by_number_too(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    await index.holding(FAILOVER)
    other = open_embedder(EmbeddingSettings(kind="hashing", dimension=64))
    searcher = await open_searcher(embedder=other)
    for _ in range(2):  # the second time it is known
        with pytest.raises(EmbedderMismatch, match=r"version 1 .* hashing-64"):
            await ask(searcher, index_version=1)


class CountingRegistry(IndexRegistry):
    """The real one; counts how often a version's record is read, by its number."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(coordinator)
        self.reads: Counter[int] = Counter()

    async def version(self, tenant: str, name: str, number: int) -> VersionRecord:
        self.reads[number] += 1
        return await super().version(tenant, name, number)


async def test_many_searches_of_one_version_read_its_record_once_and_keep_it_pinned(
    index: WrittenIndex, open_searcher: OpenSearcher, coordinator: Coordinator
):
    await index.holding(QUOTA)
    await index.holding(FAILOVER)
    registry = CountingRegistry(coordinator)
    searcher = await open_searcher(registry=registry, keep_s=600)
    for _ in range(5):
        assert set(uris(await ask(searcher, index_version=1))) == {QUOTA.uri}
        await until_pinned(coordinator, 1, 2)
        assert set(uris(await ask(searcher))) == {FAILOVER.uri}
        await ask(searcher, index_version=2)  # the active one is known without reading
    assert registry.reads == {1: 1}


async def test_a_version_asked_for_by_number_is_let_go_and_read_again_after_a_while(
    index: WrittenIndex, open_searcher: OpenSearcher, coordinator: Coordinator
):
    await index.holding(QUOTA)
    await index.holding(FAILOVER)
    registry = CountingRegistry(coordinator)
    searcher = await open_searcher(registry=registry, keep_s=0.1)
    await ask(searcher, index_version=1)
    await until_pinned(coordinator, 2)
    await ask(searcher, index_version=1)
    assert registry.reads == {1: 2}


async def test_no_more_versions_are_kept_than_the_bound(
    index: WrittenIndex,
    open_searcher: OpenSearcher,
    coordinator: Coordinator,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("query.routing.MAX_KEPT", 2)
    for _ in range(5):
        await index.holding(QUOTA)
    searcher = await open_searcher(keep_s=600)
    for number in (1, 2, 3, 4):
        await ask(searcher, index_version=number)
    await until_pinned(coordinator, 3, 4, 5)


async def until_pinned(coordinator: Coordinator, *numbers: int) -> None:
    """Wait until exactly these versions are pinned, of those there may be."""
    async with asyncio.timeout(10):
        while {n for n in range(1, 6) if await pinned(coordinator, "", "docs", n)} != set(numbers):
            pass


async def test_a_search_that_was_overtaken_keeps_its_version_pinned_to_its_end(
    index: WrittenIndex, open_searcher: OpenSearcher, coordinator: Coordinator
):
    await index.holding(QUOTA)
    go, retrieved = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        retrieved.set()
        await go.wait()

    searcher = await open_searcher(source=MovingIndex(index, hold))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(ask(searcher))
        await retrieved.wait()
        for number in (2, 3):
            await index.holding(FAILOVER)
            # Once 2 is let go, 1 would have been too.
            await until_pinned(coordinator, 1, number)
        go.set()
    assert running.result().index_version == 1
    assert set(uris(running.result())) == {QUOTA.uri}
    await until_pinned(coordinator, 3)


@pytest.mark.parametrize("known_before", [False, True])
async def test_a_version_asked_for_by_number_is_held_by_a_search_longer_than_it_is_kept(
    index: WrittenIndex,
    open_searcher: OpenSearcher,
    coordinator: Coordinator,
    known_before: bool,  # noqa: FBT001 — a parameter of the test
):
    for document in (QUOTA, FAILOVER, FAILOVER):
        await index.holding(document)
    go, retrieved = asyncio.Event(), asyncio.Event()

    async def nothing() -> None:
        pass

    async def hold() -> None:
        retrieved.set()
        await go.wait()

    source = MovingIndex(index, *([nothing] if known_before else []), hold)
    registry = CountingRegistry(coordinator)
    searcher = await open_searcher(source=source, registry=registry, keep_s=0.5)
    async with asyncio.TaskGroup() as tasks:
        if known_before:
            await ask(searcher, index_version=1)
        running = tasks.create_task(ask(searcher, index_version=1))
        await retrieved.wait()
        # Kept after 1, and forgotten after it: once 2 is let go, 1 would have been too.
        while registry.reads[2] < 2:
            await ask(searcher, index_version=2)
        await until_pinned(coordinator, 1, 3)
        go.set()
    assert set(uris(running.result())) == {QUOTA.uri}
    await until_pinned(coordinator, 3)


async def test_a_version_by_number_that_went_is_told_and_no_other_answers_for_it(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(QUOTA)
    await index.holding(FAILOVER)
    searcher = await open_searcher()
    await ask(searcher, index_version=1)
    await index.chroma.delete_collection(store_collection("default", "docs", 1))
    with pytest.raises(Unavailable, match="records of version 1 of collection docs are not in"):
        await ask(searcher, index_version=1)
    record = await index.registry.version("", "docs", 1)
    await index.registry.fail(record, "to be deleted")
    with pytest.raises(FailedPrecondition, match=r"version 1 .* is failed"):
        await ask(searcher, index_version=1)
    await index.registry.delete_version(await index.registry.version("", "docs", 1))
    with pytest.raises(NotFound, match="no version 1"):
        await ask(searcher, index_version=1)


async def test_a_deleted_collection_is_served_to_the_end_of_a_search_and_no_further(
    index: WrittenIndex, open_searcher: OpenSearcher
):
    await index.holding(FAILOVER)
    source = MovingIndex(index, lambda: index.registry.delete_collection("", "docs"))
    searcher = await open_searcher(source=source)
    assert set(uris(await ask(searcher))) == {FAILOVER.uri}

    async def asked_until_refused() -> None:
        while True:  # the watch tells of it in its time
            await ask(searcher)

    with pytest.raises(NotFound, match="no collection docs"):
        await asyncio.wait_for(asked_until_refused(), 10)


async def test_a_store_that_went_with_the_coordinator_is_left_for_what_serves_by_now(
    index: WrittenIndex, open_searcher: OpenSearcher, coordinator: Coordinator
):
    await index.holding(FAILOVER)
    second = await index.begin()
    await index.write(QUOTA, version=second.number)
    searchers: list[Searcher] = []

    async def lose() -> None:
        await index.activate(second)
        token = encode_token(ConsistencyToken("default", "docs", 2, 2))
        await ask(searchers[0], at_least=token)
        await index.chroma.delete_collection(store_collection("default", "docs", 1))
        await coordinator.aclose()

    searchers.append(await open_searcher(source=MovingIndex(index, lose)))
    result = await ask(searchers[0])
    assert (result.index_version, set(uris(result))) == (2, {QUOTA.uri})
